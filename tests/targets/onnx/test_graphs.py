"""The graphs for ONNX Runtime equal the reference on weights that exercise everything."""

import pytest
import torch
from torch import Tensor

from mobilesam_export.contract import PAD_COLOUR, PAD_COLOUR_8BIT, PIXEL_STD
from mobilesam_export.rewrites.plain import PlainImageEncoder, PlainPromptDecoder
from mobilesam_export.targets.onnx import decoder
from mobilesam_export.targets.onnx.decoder import PromptDecoderOnnx
from mobilesam_export.targets.onnx.encoder import ImageEncoderOnnx
from reference.mobile_sam import MobileSam
from tests.randomised import randomised_sam

# Largest difference over the reference's standard deviation: float32 rounding through some 60 layers in another order.
EMBEDDING_TOLERANCE = 1e-5
LOGIT_TOLERANCE = 2e-5
SIZE = 224


@pytest.fixture(scope="module")
def sam() -> MobileSam:
    return randomised_sam(image_size=SIZE)


@pytest.mark.parametrize("image_size", [224, 320])  # windows without and with padding
@pytest.mark.parametrize("fused_attention", [True, False])
@pytest.mark.parametrize("linear", [False, True])
@torch.no_grad()
def test_the_encoder_graph_equals_the_reference(image_size: int, fused_attention: bool, linear: bool) -> None:
    sam = randomised_sam(image_size=image_size)
    image = torch.rand(1, 3, image_size, image_size, generator=torch.Generator().manual_seed(1)) * 255
    expected = sam.image_encoder(sam.normalise_and_pad(image))
    actual = ImageEncoderOnnx(sam, fused_attention, linear)(image)
    assert (actual - expected).abs().max() < EMBEDDING_TOLERANCE * expected.std()


@pytest.mark.parametrize("height,width", [(224, 130), (97, 224)])
@torch.no_grad()
def test_a_photo_padded_with_the_pad_colour_equals_the_reference(sam: MobileSam, height: int, width: int) -> None:
    photo = torch.randint(0, 256, (1, 3, height, width), generator=torch.Generator().manual_seed(2)).float()
    expected = sam.image_encoder(sam.normalise_and_pad(photo))
    graph = ImageEncoderOnnx(sam)

    def error(colour: tuple[float, ...]) -> float:
        padded = torch.tensor(colour).reshape(1, 3, 1, 1).expand(1, 3, SIZE, SIZE).clone()
        padded[..., :height, :width] = photo
        return float((graph(padded) - expected).abs().max() / expected.std())

    assert error(PAD_COLOUR) < EMBEDDING_TOLERANCE
    # The rounded colour is off by at most 0.47 levels of 57: 0.0082 of a std in the padding, seen nearly as such in
    # the padding's own cells; black padding is off by 2 std and must not pass.
    assert max(abs(a - b) / s for a, b, s in zip(PAD_COLOUR, PAD_COLOUR_8BIT, PIXEL_STD, strict=True)) < 0.0083
    assert error(tuple(map(float, PAD_COLOUR_8BIT))) < 0.1 < 0.5 < error((0.0, 0.0, 0.0))


Prompt = tuple[tuple[Tensor, Tensor] | None, Tensor | None, Tensor | None]


def prompts(kind: str, batch: int = 2) -> Prompt:
    """Reference prompts of one kind in the model frame: points, boxes, masks."""
    generator = torch.Generator().manual_seed(3)
    coords = torch.rand(batch, 2, 2, generator=generator) * SIZE
    labels = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])[:batch]
    boxes = (torch.rand(batch, 2, 2, generator=generator) * SIZE).sort(1).values.reshape(batch, 4)
    masks = 5 * torch.randn(batch, 1, SIZE // 4, SIZE // 4, generator=generator)
    points = (coords, labels)
    kinds: dict[str, Prompt] = {
        "points": (points, None, None),
        "box": (None, boxes, None),
        "box and points": (points, boxes, None),
        "points and mask": (points, None, masks),
        "mask": (None, None, masks),
    }
    return kinds[kind]


def slots(prompt: Prompt, absent: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The same prompts as the graph's inputs, with some absent slots full of arbitrary coordinates."""
    points, boxes, masks = prompt
    batch = next(len(item) for item in (points[0] if points else None, boxes, masks) if item is not None)
    coords, labels = points or (torch.zeros(batch, 0, 2), torch.zeros(batch, 0))
    if boxes is not None:
        coords = torch.cat([coords, boxes.reshape(batch, 2, 2)], dim=1)
        labels = torch.cat([labels, torch.tensor([[2.0, 3.0]]).expand(batch, -1)], dim=1)
    elif points is not None:
        coords = torch.cat([coords, torch.zeros(batch, 1, 2)], dim=1)
        labels = torch.cat([labels, -torch.ones(batch, 1)], dim=1)
    coords = torch.cat([coords, 77.0 * torch.ones(batch, absent, 2)], dim=1)
    labels = torch.cat([labels, -2 * torch.ones(batch, absent)], dim=1)
    mask_input = torch.zeros(batch, 1, SIZE // 4, SIZE // 4) if masks is None else masks
    return coords, labels, mask_input, torch.tensor([float(masks is not None)])


@pytest.fixture(scope="module")
def embedding() -> Tensor:
    return torch.randn(1, 256, SIZE // 16, SIZE // 16, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("kind", ["points", "box", "box and points", "points and mask", "mask"])
@pytest.mark.parametrize("absent", [0, 3])
@torch.no_grad()
def test_the_decoder_graph_equals_the_reference(sam: MobileSam, embedding: Tensor, kind: str, absent: int) -> None:
    prompt = prompts(kind)
    expected = sam.predict_masks(embedding, *prompt)
    actual = PromptDecoderOnnx(sam)(embedding, *slots(prompt, absent))
    for got, want in zip(actual, expected, strict=True):
        assert got.shape == want.shape
        assert (got - want).abs().max() < LOGIT_TOLERANCE * want.std()


@torch.no_grad()
def test_prompts_share_the_image_and_the_last_attention_is_of_the_learned_tokens(
    sam: MobileSam, embedding: Tensor
) -> None:
    graph = PromptDecoderOnnx(sam)
    met: dict[str, list[tuple[int, ...]]] = {}

    def meet(name: str) -> None:
        graph.get_submodule(name).register_forward_pre_hook(
            lambda _, inputs: met.update({name: [tuple(value.shape) for value in inputs[:3]]})
        )

    names = ["layers.0.cross_attn_token_to_image", "layers.0.cross_attn_image_to_token", "final_attn_token_to_image"]
    for name in names:
        meet(name)
    cells = (SIZE // 16) ** 2
    graph(embedding, *slots(prompts("points"), 3))
    assert met[names[0]] == [(2, 11, 256), (1, cells, 256), (1, cells, 256)]
    assert met[names[1]] == [(1, cells, 256), (2, 11, 256), (2, 11, 256)]
    assert met[names[2]] == [(2, 5, 256), (2, cells, 256), (2, cells, 256)]


@torch.no_grad()
def test_masks_drawn_by_parts_are_those_drawn_at_once(
    sam: MobileSam, embedding: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, inputs = PromptDecoderOnnx(sam), slots(prompts("points"), 0)
    drawn: list[int] = []
    graph.output_upscaling.register_forward_pre_hook(lambda _, image: drawn.append(image[0].shape[1]))
    whole = graph(embedding, *inputs)[0]
    monkeypatch.setattr(decoder, "CELLS_AT_ONCE", 80)
    parts = graph(embedding, *inputs)[0]
    assert drawn == [196, 80, 80, 36]
    assert (parts - whole).abs().max() < 1e-6 * whole.std()  # a product of fewer rows may be summed in another order


@torch.no_grad()
def test_a_padding_point_is_not_an_absent_slot(sam: MobileSam, embedding: Tensor) -> None:
    coords, labels, *mask = slots(prompts("points"), 0)
    graph = PromptDecoderOnnx(sam)
    exact = graph(embedding, coords, labels, *mask)[0]
    without = graph(embedding, coords[:, :-1], labels[:, :-1], *mask)[0]
    doubled = graph(embedding, torch.cat([coords, coords[:, -1:]], 1), torch.cat([labels, labels[:, -1:]], 1), *mask)[0]
    assert min((without - exact).abs().max(), (doubled - exact).abs().max()) > 0.05 * exact.std()


@torch.no_grad()
def test_the_plain_decoder_equals_the_reference(sam: MobileSam, embedding: Tensor) -> None:
    for kind in ("points", "box and points", "points and mask"):
        prompt = prompts(kind)
        got = PlainPromptDecoder(sam)(embedding, *slots(prompt, 0))[0]
        want = sam.predict_masks(embedding, *prompt)[0]
        assert (got - want).abs().max() < LOGIT_TOLERANCE * want.std()
    image = torch.rand(1, 3, SIZE, SIZE) * 255
    expected = sam.image_encoder(sam.normalise_and_pad(image))
    assert (PlainImageEncoder(sam)(image) - expected).abs().max() < EMBEDDING_TOLERANCE * expected.std()


@torch.no_grad()
def test_the_single_mask_is_the_one_the_official_wrapper_chooses(sam: MobileSam, embedding: Tensor) -> None:
    for kind, absent in (("points", 0), ("points", 4), ("box", 0), ("box", 4), ("box and points", 1)):
        inputs = slots(prompts(kind), absent)
        masks, iou = PromptDecoderOnnx(sam)(embedding, *inputs)
        one_mask, one_iou = PromptDecoderOnnx(sam, single_mask=True)(embedding, *inputs)
        count = (inputs[1] != -2).sum(1)
        for row in range(len(masks)):
            best = 0 if count[row] > 2 else int(iou[row, 1:].argmax()) + 1
            assert torch.equal(one_iou[row], iou[row, best : best + 1])
            assert torch.equal(one_mask[row], masks[row, best : best + 1])


def test_a_model_in_train_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="train mode"):
        ImageEncoderOnnx(randomised_sam(image_size=SIZE).train())
