"""The files for other tools have the ports that those tools ask for, and compute what ours compute."""

import json
from collections import Counter
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch.nn.functional import interpolate as resize

from mobilesam_export import Bundle, export
from mobilesam_export.bundle.manifest import Manifest
from mobilesam_export.contract import PIXEL_MEAN, PIXEL_STD
from mobilesam_export.errors import ExportError
from mobilesam_export.jobs import plan
from mobilesam_export.targets.onnx import target
from mobilesam_export.targets.onnx.contracts.cvat import crop
from mobilesam_export.targets.onnx.contracts.join import graph
from mobilesam_export.targets.onnx.contracts.native_photo import native_photo_encoder
from mobilesam_export.targets.onnx.runtime import OnnxRuntime, session
from reference.mobile_sam import MobileSam
from reference.transforms import resize_longest_side
from tests.randomised import randomised_sam

SIZE, GRID, LOW = 128, 8, 32  # the tools' own is 1024; nothing in the graphs depends on it
PHOTO = (100, 75)  # height and width
ROUNDING = 2e-5  # of a std: the same weights, in graphs that the runtime fuses in another order

FILES = [
    "anylabeling/mobile_sam.encoder.onnx",
    "anylabeling/mobile_sam.decoder.onnx",
    "anylabeling/config.yaml",
    "osam/mobile_sam.encoder.onnx",
    "osam/mobile_sam.decoder.onnx",
    "transformersjs/onnx/vision_encoder.onnx",
    "transformersjs/onnx/prompt_encoder_mask_decoder.onnx",
    "transformersjs/onnx/vision_encoder_fp16.onnx",
    "transformersjs/onnx/prompt_encoder_mask_decoder_fp16.onnx",
    "transformersjs/onnx/vision_encoder_quantized.onnx",
    "transformersjs/onnx/prompt_encoder_mask_decoder_quantized.onnx",
    "transformersjs/config.json",
    "transformersjs/preprocessor_config.json",
    "cvat/decoder.onnx",
]
F, EMBEDDING = "tensor(float)", ["image_embeddings", [1, 256, GRID, GRID], "tensor(float)"]
OFFICIAL = [
    EMBEDDING,
    ["point_coords", ["prompts", "points", 2], F],
    ["point_labels", ["prompts", "points"], F],
    ["mask_input", ["prompts", 1, LOW, LOW], F],
    ["has_mask_input", [1], F],
    ["orig_im_size", [2], F],
]
ONE_MASK = [["iou_predictions", ["prompts", 1], F], ["low_res_masks", ["prompts", 1, LOW, LOW], F]]
PHOTO_SIZE = ["image_positional_embeddings", [1, 2], F]
PORTS: dict[str, tuple[list[Any], list[Any]]] = {
    "anylabeling/mobile_sam.encoder.onnx": ([["input_image", ["height", "width", 3], F]], [EMBEDDING]),
    "anylabeling/mobile_sam.decoder.onnx": (
        OFFICIAL,
        [["masks", ["prompts", 1, "height", "width"], F], *ONE_MASK],
    ),
    "osam/mobile_sam.encoder.onnx": ([["x", [1, 3, SIZE, SIZE], F]], [EMBEDDING]),
    "osam/mobile_sam.decoder.onnx": (OFFICIAL, [["masks", ["prompts", 1, "height", "width"], F], *ONE_MASK]),
    "transformersjs/onnx/vision_encoder.onnx": (
        [["pixel_values", [1, 3, "height", "width"], F]],
        [EMBEDDING, PHOTO_SIZE],
    ),
    "transformersjs/onnx/prompt_encoder_mask_decoder.onnx": (
        [
            EMBEDDING,
            PHOTO_SIZE,
            ["input_points", [1, "prompts", "points", 2], F],
            ["input_labels", [1, "prompts", "points"], "tensor(int64)"],
        ],
        [["iou_scores", [1, "prompts", 3], F], ["pred_masks", [1, "prompts", 3, SIZE, SIZE], F]],
    ),
    "cvat/decoder.onnx": (
        OFFICIAL,
        [
            ["masks", [1, 1, "mask_height", "mask_width"], "tensor(uint8)"],
            *ONE_MASK,
            *([name, [1], "tensor(int32)"] for name in ("xtl", "ytl", "xbr", "ybr")),
        ],
    ),
}


@pytest.fixture(scope="module")
def sam() -> MobileSam:
    return randomised_sam(image_size=SIZE)


@pytest.fixture(scope="module")
def bundle(sam: MobileSam, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Every contract, at a size at which it is quick."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(target, "CONTRACT_SIZE", SIZE)
        return export(
            sam, out_dir=tmp_path_factory.mktemp("doors") / "dist", contracts=list(target.CONTRACTS), verify=False
        )


@pytest.fixture(scope="module")
def ours(bundle: Bundle) -> OnnxRuntime:
    folder = bundle.directory / "onnx"
    return OnnxRuntime(folder / "mobile_sam_encoder.onnx", folder / "mobile_sam_decoder.onnx", threads=1)


@pytest.fixture(scope="module")
def embeddings() -> Any:
    return np.random.default_rng(1).standard_normal((1, 256, GRID, GRID)).astype(np.float32)


def opened(bundle: Bundle, name: str) -> onnxruntime.InferenceSession:
    return session(bundle.directory / "onnx" / name, 1)


def photo() -> Any:
    """RGB of 0 to 255, already resized so that it fits."""
    return (np.random.default_rng(0).random((SIZE - 37, SIZE, 3)) * 255).round().astype(np.float32)


def frame(pixels: Any) -> Any:
    """A photo in our encoder's frame: (1, 3, S, S), the rest the mean."""
    image = np.empty((1, 3, SIZE, SIZE), np.float32)
    image[:] = np.reshape(PIXEL_MEAN, (1, 3, 1, 1))
    image[0, :, : pixels.shape[0], : pixels.shape[1]] = pixels.transpose(2, 0, 1)
    return image


def normalised(pixels: Any) -> Any:
    """A photo as tools send it that normalise, and then pad with zeros."""
    values = ((pixels - np.array(PIXEL_MEAN)) / np.array(PIXEL_STD)).astype(np.float32)
    return np.pad(values, ((0, SIZE - len(pixels)), (0, SIZE - pixels.shape[1]), (0, 0))).transpose(2, 0, 1)[None]


def asked(
    decoder: onnxruntime.InferenceSession, embeddings: Any, points: Any, labels: Any, mask: Any = None, has: float = 0
) -> dict[str, Any]:
    """A decoder with the official inputs, asked about one prompt."""
    answer = decoder.run(
        None,
        {
            "image_embeddings": embeddings,
            "point_coords": np.array([points], np.float32),
            "point_labels": np.array([labels], np.float32),
            "mask_input": np.zeros((1, 1, LOW, LOW), np.float32) if mask is None else mask,
            "has_mask_input": np.array([has], np.float32),
            "orig_im_size": np.array(PHOTO, np.float32),
        },
    )
    return dict(zip([output.name for output in decoder.get_outputs()], answer, strict=True))


def close(got: Any, expected: Any) -> bool:
    return bool(np.abs(got - expected).max() <= ROUNDING * expected.std())


def test_every_file_is_listed_and_hashed_and_a_changed_one_is_found(bundle: Bundle) -> None:
    entry = Manifest.read(bundle.directory).targets["onnx"]
    assert entry.options == {"contracts": list(target.CONTRACTS)}
    listed = [file.path.removeprefix("onnx/") for file in entry.files]
    assert listed == ["mobile_sam_encoder.onnx", "mobile_sam_decoder.onnx", *FILES]
    assert [file.role for file in entry.files] == ["encoder", "decoder", *["other"] * len(FILES)]
    entry.check_files(bundle.directory)
    config = bundle.directory / "onnx" / "anylabeling" / "config.yaml"
    text = config.read_text()
    config.write_text(text.replace("MobileSAM", "MobileSAW"))
    try:
        with pytest.raises(ExportError, match=r"onnx/anylabeling/config.yaml has been changed"):
            entry.check_files(bundle.directory)
    finally:
        config.write_text(text)


@pytest.mark.parametrize("name", PORTS)
def test_ports_are_those_that_the_tool_asks_for(bundle: Bundle, name: str) -> None:
    found = opened(bundle, name)
    inputs, outputs = ([[e.name, e.shape, e.type] for e in side] for side in (found.get_inputs(), found.get_outputs()))
    assert (inputs, outputs) == PORTS[name]
    model = onnx.load(bundle.directory / "onnx" / name)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    assert model.ir_version == 8
    # Without names ONNX Runtime 1.18 to 1.21 refuse a file in which they fuse the same thing twice.
    assert Counter(node.name for node in model.graph.node).most_common(1)[0][1] == 1
    assert all(value.doc_string for value in (*model.graph.input, *model.graph.output))
    told = {entry.key: entry.value for entry in model.metadata_props}
    assert told["contract"] == name.partition("/")[0]
    assert told["weights_sha256"] == bundle.manifest.weights.sha256


def test_twins_say_their_own_precision_and_the_configurations_say_which_is_meant(bundle: Bundle) -> None:
    folder = bundle.directory / "onnx" / "transformersjs"
    sizes = {}
    for suffix, precision in (("", "float32"), ("_fp16", "float16"), ("_quantized", "int8")):
        for part in ("vision_encoder", "prompt_encoder_mask_decoder"):
            path = folder / "onnx" / f"{part}{suffix}.onnx"
            told = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
            assert told["precision"] == precision
            sizes[part, precision] = path.stat().st_size
    assert sizes["vision_encoder", "float16"] < 0.6 * sizes["vision_encoder", "float32"]
    assert sizes["vision_encoder", "int8"] < 0.6 * sizes["vision_encoder", "float32"]
    config = json.loads((folder / "config.json").read_text())
    assert (config["model_type"], config["transformers.js_config"]) == ("sam", {"dtype": "fp32"})
    processor = json.loads((folder / "preprocessor_config.json").read_text())
    # Left as it is up to two frames; masks come in a square of one frame, which is cut by `pad_size`.
    assert not any(processor[f"do_{step}"] for step in ("resize", "rescale", "normalize", "pad"))
    assert processor["do_thumbnail"] and processor["size"] == {"height": 2 * SIZE, "width": 2 * SIZE}
    assert processor["pad_size"] == {"height": SIZE, "width": SIZE}


def test_every_encoder_gives_our_embedding_of_a_photo_that_does_not_fill_the_frame(
    bundle: Bundle, ours: OnnxRuntime, sam: MobileSam
) -> None:
    pixels = photo()
    expected = ours.encode(frame(pixels))
    (got,) = opened(bundle, "anylabeling/mobile_sam.encoder.onnx").run(None, {"input_image": pixels})
    assert close(got, expected)
    (got,) = opened(bundle, "osam/mobile_sam.encoder.onnx").run(None, {"x": normalised(pixels)})
    assert close(got, expected)
    encoder = opened(bundle, "transformersjs/onnx/vision_encoder.onnx")
    got, size = encoder.run(None, {"pixel_values": pixels.transpose(2, 0, 1)[None]})
    assert close(got, expected)
    assert size.tolist() == [list(pixels.shape[:2])]


@pytest.mark.parametrize(
    "size",
    [(50, 75), (97, 73), (128, 91), (1, 5), (128, 3), (129, 128), (150, 100), (192, 256), (256, 256), (127, 249)],
)
def test_transformersjs_photo_is_resized_in_the_graph_as_the_reference_resizes(size: tuple[int, int]) -> None:
    shape = f"float[1, 3, {SIZE}, {SIZE}]"
    nothing = graph(f"encoder ({shape} image) => ({shape} framed) {{{{ framed = Identity (image) }}}}")
    model = native_photo_encoder(nothing, SIZE, "pixel_values", "photo_size")
    graphs = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    picture = np.random.default_rng(sum(size)).integers(0, 256, (*size, 3), dtype=np.uint8)
    pixels = picture.transpose(2, 0, 1)[None].astype(np.float32)
    got, found = graphs.run(["framed", "photo_size"], {"pixel_values": pixels})
    expected = frame(resize_longest_side(picture, SIZE).astype(np.float32))
    away = np.abs(got - expected)
    # Pillow sums in fixed point: where a sum is all but half between two numbers, it may round the other way.
    assert away.max() < 1.001 and (away > 0.001).mean() < 0.01
    assert found.tolist() == [list(size)]


@pytest.mark.parametrize("name", ["anylabeling/mobile_sam.decoder.onnx", "osam/mobile_sam.decoder.onnx"])
def test_a_box_has_no_padding_point_and_a_click_has_one_whatever_the_tool_sends(
    bundle: Bundle, ours: OnnxRuntime, embeddings: Any, name: str
) -> None:
    decoder = opened(bundle, name)
    padding, corners = [0, 0], [[20, 30], [100, 90]]
    prompts: list[tuple[list[Any], list[int], bool]] = [
        ([[50, 60]], [1], True),  # one click: the best of three
        (corners, [2, 3], True),
        ([[50, 60], [80, 20]], [1, 0], False),
        ([*corners, [60, 60]], [2, 3, 1], False),
    ]
    for points, labels, ambiguous in prompts:
        ends = ([padding], [-1]) if 2 not in labels else ([], [])
        logits, iou = ours.decode(
            embeddings, np.array([points + ends[0]], np.float32), np.array([labels + ends[1]], np.float32)
        )
        row = 1 + int(iou[0, 1:].argmax()) if ambiguous else 0
        for sent, told in ((points, labels), ([*points, padding], [*labels, -1])):
            got = asked(decoder, embeddings, sent, told)
            assert close(got["low_res_masks"][0, 0], logits[0, row]), (sent, told)
            assert close(got["iou_predictions"], iou[:, row : row + 1]) or np.isclose(
                got["iou_predictions"], iou[0, row], atol=1e-6
            )
            assert got["masks"].shape == (1, 1, *PHOTO)


def test_a_mask_input_flag_of_zero_or_less_means_none(bundle: Bundle, ours: OnnxRuntime, embeddings: Any) -> None:
    mask = np.random.default_rng(2).standard_normal((1, 1, LOW, LOW)).astype(np.float32) * 5
    for name in ("anylabeling/mobile_sam.decoder.onnx", "osam/mobile_sam.decoder.onnx", "cvat/decoder.onnx"):
        decoder = opened(bundle, name)
        without, minus, given = (
            asked(decoder, embeddings, [[50, 60]], [1], mask, has)["low_res_masks"] for has in (0, -1, 1)
        )
        assert np.array_equal(minus, without), name
        assert not close(given, without), name
    feeds = {"image_embeddings": embeddings, "point_coords": np.array([[[50, 60], [0, 0]]], np.float32)}
    feeds |= {"point_labels": np.array([[1, -1]], np.float32), "mask_input": mask}
    plain = [ours.decoder.run(None, feeds | {"has_mask_input": np.array([has], np.float32)})[0] for has in (0, -1, 1)]
    assert np.array_equal(plain[0], plain[1]) and not close(plain[2], plain[0])


def test_cvat_gets_the_same_mask_cut_to_its_bounds(bundle: Bundle, embeddings: Any) -> None:
    official, cvat = opened(bundle, "osam/mobile_sam.decoder.onnx"), opened(bundle, "cvat/decoder.onnx")
    points, labels = [[20, 30], [100, 90], [60, 60]], [2, 3, 1]
    whole = asked(official, embeddings, points, labels)["masks"][0, 0] > 0
    got = asked(cvat, embeddings, points, labels)
    left, top, right, bottom = (int(got[name][0]) for name in ("xtl", "ytl", "xbr", "ybr"))
    rows, columns = whole.any(1).nonzero()[0], whole.any(0).nonzero()[0]
    assert (left, top, right, bottom) == (columns[0], rows[0], columns[-1], rows[-1])
    assert whole.any() and not whole.all()
    assert np.array_equal(got["masks"][0, 0], 255 * whole[top : bottom + 1, left : right + 1])


@pytest.mark.parametrize("inside", [(), (0, 0), (4, 6), (2, 3)])
def test_cvat_gets_one_pixel_for_a_mask_of_one_or_none(inside: tuple[int, ...]) -> None:
    full = np.full((1, 1, 5, 7), -1, np.float32)
    if inside:
        full[(0, 0, *inside)] = 1
    cut = onnxruntime.InferenceSession(crop().SerializeToString(), providers=["CPUExecutionProvider"])
    masks, *bounds = cut.run(["masks", "xtl", "ytl", "xbr", "ybr"], {"full": full})
    row, column = inside or (0, 0)
    assert [int(bound[0]) for bound in bounds] == [column, row, column, row]
    assert masks.tolist() == [[[[255 if inside else 0]]]]


def test_transformersjs_decodes_several_prompts_as_sam_model_does(
    bundle: Bundle, ours: OnnxRuntime, embeddings: Any
) -> None:
    decoder = opened(bundle, "transformersjs/onnx/prompt_encoder_mask_decoder.onnx")

    def check(points: Any, labels: Any, told: Any, meant: Any, photo: tuple[int, int] = (SIZE, SIZE)) -> None:
        resized = [int(side * SIZE / max(photo) + 0.5) for side in photo]
        back = [photo[1] / resized[1], photo[0] / resized[0]]  # x and y of the frame in the photo
        iou, masks = decoder.run(
            None,
            {
                "image_embeddings": embeddings,
                "image_positional_embeddings": np.array([photo], np.float32),
                "input_points": np.array([points], np.float32) * np.array(back, np.float32),
                "input_labels": np.array([told], np.int64),
            },
        )
        logits, expected = ours.decode(embeddings, np.array(meant, np.float32), np.array(labels, np.float32))
        whole = resize(torch.from_numpy(logits[:, 1:]), (SIZE, SIZE), mode="bilinear", align_corners=False)
        place = tuple(min(side, SIZE) for side in photo)
        drawn = resize(whole[:, :, : resized[0], : resized[1]], place, mode="bilinear", align_corners=False)
        assert close(masks[0, :, :, : place[0], : place[1]], drawn.numpy()), (told, photo)
        assert np.allclose(iou[0], expected[:, 1:], atol=1e-5), (told, photo)

    two, pad = [[[50, 60], [80, 20]], [[10, 100], [70, 70]], [[60, 60], [90, 90]]], [0, 0]
    kinds = [[1, 0], [1, 1], [0, 1]]
    check(two, [[*kind, -1] for kind in kinds], kinds, [[*pair, pad] for pair in two])
    # A box by its corners; an ignored slot beside a click; "not a point", which SAM's own padding joins.
    check(two[:1], [[2, 3]], [[2, 3]], two[:1])
    check(two[:1], [[1, -1]], [[1, -10]], [[two[0][0], pad]])
    check(two[:1], [[1, -1, -1]], [[1, -1]], [[*two[0], pad]])
    # Smaller than the frame; longer on one side; longer on both, where a square of one frame holds it squeezed.
    for size in ((100, 75), (90, 201), (256, 150)):
        check(two, [[*kind, -1] for kind in kinds], kinds, [[*pair, pad] for pair in two], size)


def test_what_a_tool_cannot_take_is_refused_before_any_work() -> None:
    def refused(
        match: str, image_size: int = 1024, name: str = "onnx", precision: str | None = None, **options: Any
    ) -> None:
        with pytest.raises(ExportError, match=match):
            plan([name], precision, {"contracts": ["osam"], **options}, verify=True, image_size=image_size)

    plan(["onnx"], None, {"contracts": ["osam"]}, verify=False)
    refused("got image_size 512 for the contract osam, expected 1024, which is fixed in the tool", 512)
    refused("got --max-points for the contract osam.*leave out --max-points", max_points=8)
    refused("got --single-mask for the contract osam", single_mask=True)
    refused("got opset 23 for the contract osam, expected 17", opset=23)
    refused("got precision auto for the contract osam; .* --plan", precision="auto")
    refused("is for onnx, got target tflite", name="tflite")
    for wrong in (["labelme"], ["osam", "osam"], "osam", [1]):
        refused("got contracts .*, expected a list of anylabeling, osam, transformersjs, cvat", contracts=wrong)
