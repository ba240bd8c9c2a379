"""Other people's tools segment photos with our files, by their own code, as our reference does.

samexporter and osam are the packages of PyPI, transformers.js is npm's, in Node and in Chromium. AnyLabeling and CVAT's
browser plugin cannot be driven here: two tests do literally, in NumPy, what their contracts say. AnyLabeling's files
are those that samexporter is driven with as well.
"""

import dataclasses
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mobilesam_export.bundle.checksums import sha256_of
from mobilesam_export.parity.cases import PHOTOS, Case, Photo, PromptKind
from mobilesam_export.parity.metrics import disagreement, is_informative, mask_iou
from mobilesam_export.targets.onnx.runtime import session
from mobilesam_export.targets.onnx.target import CONTRACTS
from mobilesam_export.targets.onnx.write import write
from reference import Predictor, load_mobile_sam
from reference.mobile_sam import MobileSam

pytestmark = pytest.mark.doors

SAME = 0.999  # the tool resizes as we do: what is left is rounding, in another runtime
# transformers.js shrinks a photo of over 2048 pixels by Lanczos before the graph resizes it: measured 0.9947
SHRUNK = 0.99
HALF = 0.99  # weights in float16; our own gate for them
INT8 = 0.90  # our own gate for 8-bit activations
KINDS = (PromptKind.POINT, PromptKind.POINTS, PromptKind.BOX, PromptKind.BOX_AND_POINTS)
HERE = Path(__file__).parent

Mask = Any
Segment = Callable[[Case], Mask]


@pytest.fixture(scope="module")
def sam() -> MobileSam:
    return load_mobile_sam("demo")


@pytest.fixture(scope="module")
def folder(sam: MobileSam, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All contracts."""
    directory = tmp_path_factory.mktemp("doors")
    write(sam, directory, contracts=CONTRACTS)
    return directory


class Reference:
    """The reference's answers, each photo encoded once."""

    def __init__(self, sam: MobileSam) -> None:
        self.predictor, self.embeddings = Predictor(sam), dict[str, tuple[Any, Any]]()

    def about(self, photo: Photo) -> Predictor:
        if photo.name not in self.embeddings:
            self.predictor.set_image(photo.read())
            self.embeddings[photo.name] = self.predictor.image_embeddings, self.predictor.original_size
        self.predictor.image_embeddings, self.predictor.original_size = self.embeddings[photo.name]
        return self.predictor

    def mask(self, photo: Photo, case: Case) -> Mask:
        """The one mask that a tool is to show: of one click or a box alone the best of three."""
        return chosen(self.about(photo), case)


def chosen(predictor: Predictor, case: Case) -> Mask:
    points = {"point_coords": case.points, "point_labels": case.labels} if case.points else {}
    masks, iou, _ = predictor.predict_every_mask(**points, box=case.box)
    return masks[int((iou + (case.slots - 2.5) * np.array([1000, 0, 0, 0])).argmax())]


@pytest.fixture(scope="module")
def reference(sam: MobileSam) -> Reference:
    return Reference(sam)


def agreement(expected: Mask, got: Mask) -> float:
    """IoU; of a nearly empty or full mask, whose IoU turns on a few pixels, the part of the photo that agrees."""
    assert expected.shape == got.shape
    return mask_iou(expected, got) if is_informative(expected) else 1 - disagreement(expected, got)


def told(lowest: Mapping[Any, float]) -> str:
    return ", ".join(f"{kind} {value:.5f}" for kind, value in lowest.items())


def check(tool: str, reference: Reference, open_photo: Callable[[Photo], Segment], least: float) -> None:
    """Every kind of prompt on every photo; the lowest agreement of each kind is printed."""
    lowest = dict.fromkeys(KINDS, 1.0)
    for photo in PHOTOS:
        segment = open_photo(photo)
        for case in photo.cases():
            if case.kind in KINDS:
                found = agreement(reference.mask(photo, case), segment(case))
                lowest[case.kind] = min(lowest[case.kind], found)
    print(f"\n{tool}: {told(lowest)}")
    assert min(lowest.values()) >= least, lowest


def sent(case: Case) -> tuple[list[tuple[float, float]], list[int]]:
    """A prompt as points with labels, a box as two of them."""
    corners = [case.box[:2], case.box[2:]] if case.box else []
    return [*corners, *case.points], [*([2, 3] if case.box else []), *case.labels]


@pytest.mark.parametrize("contract", ["anylabeling", "osam"])  # with and without preprocessing in the graph
def test_samexporter_segments_as_the_reference(contract: str, folder: Path, reference: Reference) -> None:
    sam_onnx = pytest.importorskip("samexporter.sam_onnx", reason="pip install --no-deps samexporter==0.5.0")
    files = [str(folder / contract / f"mobile_sam.{part}.onnx") for part in ("encoder", "decoder")]
    model = sam_onnx.SegmentAnythingONNX(*files)
    assert model.encoder_input_rank == {"anylabeling": 3, "osam": 4}[contract]

    def open_photo(photo: Photo) -> Segment:
        embedding = model.encode(photo.read()[:, :, ::-1].copy())  # BGR

        def segment(case: Case) -> Mask:
            marks: list[dict[str, Any]] = [{"type": "rectangle", "data": list(case.box)}] if case.box else []
            for point, label in zip(case.points, case.labels, strict=True):
                marks.append({"type": "point", "data": list(point), "label": label})
            masks = model.predict_masks(embedding, marks)
            assert masks.shape[:2] == (1, 1)
            mask: Mask = masks[0, 0] > 0
            return mask

        return segment

    check(f"samexporter with the files of {contract}", reference, open_photo, SAME)


def test_osam_segments_as_the_reference(
    folder: Path, reference: Reference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    types = pytest.importorskip("osam.types", reason='pip install -e ".[doors]"')
    from osam import apis
    from osam._models.sam._models import Sam

    monkeypatch.setenv("HOME", str(tmp_path))  # where osam keeps what it has downloaded, by its hash
    monkeypatch.setattr(apis, "registered_model_types", [*apis.registered_model_types])
    monkeypatch.setattr(apis, "running_model", None)

    class MobileSamOnnx(Sam):  # type: ignore[misc]
        name = "mobilesam:latest"

    MobileSamOnnx._blobs = {}
    for part in ("encoder", "decoder"):
        file = folder / "osam" / f"mobile_sam.{part}.onnx"
        blob = types.Blob(url=f"https://localhost/{file.name}", hash=f"sha256:{sha256_of(file)}")
        Path(blob.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, blob.path)
        MobileSamOnnx._blobs[part] = blob
    apis.registered_model_types.append(MobileSamOnnx)

    def open_photo(photo: Photo) -> Segment:
        pixels = photo.read()
        request = types.GenerateRequest(model="mobilesam", image=pixels)  # of its centre
        embedding = apis.generate(request).image_embedding

        def segment(case: Case) -> Mask:
            points, labels = sent(case)
            prompt = types.Prompt(points=np.array(points, float), point_labels=np.array(labels))
            asked = types.GenerateRequest(model="mobilesam", image_embedding=embedding, prompt=prompt)
            answer = apis.generate(asked)
            found, mask = answer.annotations[0], np.zeros(pixels.shape[:2], bool)
            box = found.bounding_box
            mask[box.ymin : box.ymax + 1, box.xmin : box.xmax + 1] = found.mask
            return mask

        return segment

    check("osam", reference, open_photo, SAME)


def test_anylabelings_contract_followed_literally_segments_as_the_reference(folder: Path, sam: MobileSam) -> None:
    """Every photo is put into 684 x 1024, black beyond it, and the masks are of that size."""
    height, width = 684, 1024
    encoder = session(folder / "anylabeling" / "mobile_sam.encoder.onnx")
    decoder = session(folder / "anylabeling" / "mobile_sam.decoder.onnx")
    (pixels,) = encoder.get_inputs()
    predictor, lowest = Predictor(sam), dict.fromkeys(KINDS, 1.0)
    for photo in PHOTOS[1::2]:  # one that fills the width, one that fills the height
        picture = Image.fromarray(photo.read())
        scale = min(height / picture.height, width / picture.width)
        fitted = picture.resize((int(picture.width * scale), int(picture.height * scale)), Image.Resampling.BILINEAR)
        warped = np.zeros((height, width, 3), np.uint8)
        warped[: fitted.height, : fitted.width] = np.asarray(fitted)
        predictor.set_image(warped)
        embedding = encoder.run(None, {pixels.name: warped.astype(np.float32)})[0]
        for case in photo.cases():
            if case.kind not in KINDS:
                continue
            points, labels = sent(case)
            moved = [(x * scale, y * scale) for x, y in points]
            feeds = {
                "image_embeddings": embedding,
                "point_coords": np.array([[*moved, (0, 0)]], np.float32),  # a padding point after a rectangle too
                "point_labels": np.array([[*labels, -1]], np.float32),
                "mask_input": np.zeros((1, 1, 256, 256), np.float32),
                "has_mask_input": np.zeros(1, np.float32),
                "orig_im_size": np.array([height, width], np.float32),
            }
            masks, _, _ = decoder.run(None, feeds)
            box = None if case.box is None else tuple(scale * side for side in case.box)
            there = dataclasses.replace(case, points=tuple(moved[2 if box else 0 :]), box=box)
            lowest[case.kind] = min(lowest[case.kind], agreement(chosen(predictor, there), masks[0, 0] > 0))
    print(f"\nAnyLabeling's contract: {told(lowest)}")
    assert min(lowest.values()) >= SAME, lowest


class CvatPlugin:
    """What CVAT's browser plugin does with one frame: clicks in, a mask and its bounds out.

    Args:
        padded: send SAM's padding point, as the plugin did in 2023; later ones do not.
    """

    def __init__(self, decoder: Any, embedding: Any, size: tuple[int, int], padded: bool) -> None:
        self.decoder, self.embedding, self.size = decoder, embedding, size
        self.ends: Any = ([(0, 0)], [-1]) if padded else ([], [])
        self.names = [output.name for output in decoder.get_outputs()]

    def ask(self, points: Any, labels: Any, mask: Any = None) -> tuple[Mask, Any]:
        """A mask at the frame's size, and the logits that the next click is sent with."""
        height, width = self.size
        feeds = {
            "image_embeddings": self.embedding,
            "point_coords": np.array([[*points, *self.ends[0]]], np.float32) * np.float32(1024 / max(self.size)),
            "point_labels": np.array([[*labels, *self.ends[1]]], np.float32),
            "mask_input": np.zeros((1, 1, 256, 256), np.float32) if mask is None else mask,
            "has_mask_input": np.array([mask is not None], np.float32),
            "orig_im_size": np.array([height, width], np.float32),
        }
        found = dict(zip(self.names, self.decoder.run(None, feeds), strict=True))
        left, top, right, bottom = (int(found[name][0]) for name in ("xtl", "ytl", "xbr", "ybr"))
        rows, columns = found["masks"].shape[2:]
        assert (rows, columns) == (bottom - top + 1, right - left + 1)
        whole = np.zeros((height, width), bool)
        whole[top : bottom + 1, left : right + 1] = found["masks"].reshape(rows, columns) > 0
        return whole, found["low_res_masks"]


@pytest.mark.parametrize("padded", [True, False], ids=["with a padding point", "without a padding point"])
def test_cvats_contract_followed_literally_segments_as_the_reference(
    padded: bool, folder: Path, reference: Reference
) -> None:
    """Clicks only; a later click comes with the mask of the one before."""
    decoder = session(folder / "cvat" / "decoder.onnx")
    lowest = {"one click": 1.0, "three clicks": 1.0, "three clicks on a mask": 1.0}
    for photo in PHOTOS:
        predictor = reference.about(photo)
        assert predictor.original_size is not None
        plugin = CvatPlugin(decoder, predictor.image_embeddings, predictor.original_size, padded)
        one, mask = plugin.ask([photo.point], [1])
        single = Case(photo.name, PromptKind.POINT, (photo.point,), (1,))
        several = Case(photo.name, PromptKind.POINTS, photo.points, photo.labels)
        refined, _, _ = predictor.predict_every_mask(photo.points, photo.labels, mask_input=mask[0])
        found = {
            "one click": (chosen(predictor, single), one),
            "three clicks": (chosen(predictor, several), plugin.ask(photo.points, photo.labels)[0]),
            "three clicks on a mask": (refined[0], plugin.ask(photo.points, photo.labels, mask)[0]),
        }
        for kind, (expected, got) in found.items():
            lowest[kind] = min(lowest[kind], agreement(expected, got))
    print(f"\nCVAT's contract: {told(lowest)}")
    assert min(lowest.values()) >= SAME, lowest


def node_with_packages() -> str:
    """Node's path; the packages beside this file are installed once."""
    program, npm = shutil.which("node"), shutil.which("npm")
    if program is None or npm is None:
        pytest.skip("transformers.js runs in Node: node or npm is not installed")
    if not (HERE / "node_modules").exists():
        install = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        subprocess.run(install, cwd=HERE, check=True, capture_output=True)
    return program


def ask(place: str, model: Path, dtype: str | None, photos: Any, out: Path) -> list[dict[str, Any]]:
    """What transformers.js answers, in Node or in a page in Chromium; masks go to ``out``."""
    program = node_with_packages()
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None and place == "chromium":
        pytest.skip("the page needs a browser: chromium or google-chrome is not installed")
    request = out / "request.json"
    request.write_text(json.dumps({"model": str(model), "dtype": dtype, "out": str(out), "photos": photos}))
    done = subprocess.run(
        [program, str(HERE / f"in_{place}.mjs"), str(request)],
        cwd=HERE,
        env={**os.environ, "CHROMIUM": browser or ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "ignored" not in done.stdout + done.stderr  # every input that SamModel sends is one of the graph's
    answers: list[dict[str, Any]] = json.loads((out / "answers.json").read_text())
    return answers


def alternatives(predictor: Predictor, points: Any, labels: Any) -> tuple[Any, Any]:
    """The reference's three masks and predicted IoUs; the labels 2 and 3 are a box's corners."""
    corners = 2 if 2 in labels else 0
    clicks = {"point_coords": points[corners:], "point_labels": labels[corners:]} if len(labels) > corners else {}
    masks, iou, _ = predictor.predict(**clicks, box=points[:2].reshape(4) if corners else None)
    return masks, iou


def tiled(photo: Photo, times: int, directory: Path) -> Photo:
    """The photo many times beside and below itself, the prompts in the first: large, and as detailed as it was."""
    name = f"{photo.name} {times} times"
    Image.fromarray(np.tile(photo.read(), (times, times, 1))).save(directory / f"{name}.png")
    return dataclasses.replace(photo, file=f"{name}.png", directory=directory)


# Where, a dtype (without one, the configuration decides), how often photos are tiled, and how near the masks are to the
# reference's. Coffee three times is 1,800 x 1,200 pixels; four times, 2,400, is more than the graph takes.
WAYS = [
    ("node", None, 1, SAME),
    ("chromium", None, 1, SAME),
    ("node", None, 3, SAME),
    ("node", None, 4, SHRUNK),
    ("node", "fp16", 1, HALF),
    ("node", "q8", 1, INT8),
]


@pytest.mark.parametrize(("place", "dtype", "times", "least"), WAYS)
def test_transformersjs_segments_as_the_reference(
    place: str, dtype: str | None, times: int, least: float, folder: Path, reference: Reference, tmp_path: Path
) -> None:
    photos = PHOTOS if dtype is None and times == 1 else PHOTOS[1:2]
    # Written anew, so without a colour profile, which Node's decoder applies.
    photos = [tiled(photo, times, tmp_path) for photo in photos]
    asked: list[list[tuple[str, list[Any], list[Any]]]] = []  # kind, and for each prompt its points and labels
    for photo in photos:
        cases = [(case.kind.value, *sent(case)) for case in photo.cases() if case.kind in KINDS]
        beside = ("point beside an ignored slot", [[photo.point, (1, 1)]], [[1, -10]])
        pair = ("two prompts at once", [[photo.point, photo.points[0]], list(photo.points[:2])], [[1, 1], [1, 0]])
        asked.append([*((kind, [points], [labels]) for kind, points, labels in cases), beside, pair])
    request = [
        {
            "file": str(tmp_path / photo.file),
            "prompts": [{"input_points": [points], "input_labels": [labels]} for _, points, labels in prompts],
        }
        for photo, prompts in zip(photos, asked, strict=True)
    ]
    answers = ask(place, folder / "transformersjs", dtype, request, tmp_path)
    assert len(answers) == sum(map(len, asked))
    lowest: dict[str, float] = {}
    for answer in answers:
        i, j = answer["photo"], answer["prompt"]
        kind, points, labels = asked[i][j]
        height, width = photos[i].read().shape[:2]
        assert (answer["seen"] == [1, 3, height, width]) == (max(height, width) <= 2048)
        masks = np.fromfile(tmp_path / f"{i}-{j}.masks", np.uint8).astype(bool).reshape(answer["shape"])
        for prompt, got in enumerate(masks):
            there = np.array(labels[prompt]) != -10
            coords, kinds = np.array(points[prompt], np.float32)[there], np.array(labels[prompt], np.float32)[there]
            expected, iou = alternatives(reference.about(photos[i]), coords, kinds)
            found = min(agreement(one, other) for one, other in zip(expected, got, strict=True))
            lowest[kind] = min(lowest.get(kind, 1.0), found)
            scores = np.array(answer["iou"]).reshape(-1, 3)[prompt]
            assert np.abs(scores - iou).max() < 1 - least
    print(f"\ntransformers.js in {place}, dtype {dtype or 'by default'}, photos {times} times: {told(lowest)}")
    assert min(lowest.values()) >= least, lowest


def test_the_lines_of_the_documentation_run_as_they_stand(folder: Path, reference: Reference, tmp_path: Path) -> None:
    program = node_with_packages()
    page = (HERE.parents[1] / "docs" / "tools.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"^```js\n(.+?)^```$", page, re.DOTALL | re.MULTILINE)
    (tmp_path / "documented.mjs").write_text(lines, encoding="utf-8")
    (tmp_path / "node_modules").symlink_to(HERE / "node_modules")
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist" / "onnx").symlink_to(folder)
    coffee = next(photo for photo in PHOTOS if photo.name == "coffee")
    Image.fromarray(coffee.read()).save(tmp_path / "photo.jpg", "PNG")  # the decoder goes by the content
    done = subprocess.run([program, "documented.mjs"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    _, iou = alternatives(reference.about(coffee), np.array([[300, 150]], np.float32), np.array([1], np.float32))
    height, width = coffee.read().shape[:2]
    dims, scores = re.findall(r"-?\d+(?:\.\d+)?(?:e-?\d+)?", done.stdout)[:4], done.stdout.split("]", 1)[1]
    assert [int(side) for side in dims] == [1, 3, height, width]
    assert np.allclose([float(score) for score in re.findall(r"\d\.\d+", scores)], iou, atol=1e-3)
