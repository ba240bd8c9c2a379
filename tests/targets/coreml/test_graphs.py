"""The Core ML graphs compute what the reference computes, in PyTorch, before any conversion."""

import pytest
import torch
from torch import Tensor

from mobilesam_export.contract import PAD_COLOUR_8BIT, PIXEL_MEAN, PointLabel
from mobilesam_export.errors import ExportError
from mobilesam_export.targets.coreml.decoder import PromptDecoderCoreML
from mobilesam_export.targets.coreml.encoder import ImageEncoderCoreML
from tests.randomised import randomised_sam

# float32 sums in another order: over TinyViT's depth 5e-6 of the embedding's std and 7e-6 of the largest logit
# were measured; a wrong fold is off by more than 1e-2.
TOLERANCE = 1e-5
SIDE, SLOTS = 320, 8


def _relative_error(got: Tensor, expected: Tensor, scale: Tensor) -> float:
    return float((got - expected).abs().max() / scale)


@pytest.mark.parametrize("image_size", [224, 320])
def test_the_encoder_equals_the_reference_with_and_without_padded_windows(image_size: int) -> None:
    sam = randomised_sam(1, image_size).eval()
    image = torch.rand(1, 3, image_size, image_size, generator=torch.Generator().manual_seed(0)) * 255
    with torch.inference_mode():
        expected = sam.image_encoder((image - sam.pixel_mean) / sam.pixel_std)
        got = ImageEncoderCoreML(sam)(image)
    assert _relative_error(got, expected, expected.std()) < TOLERANCE


def test_pixels_of_the_8_bit_pad_colour_become_exact_padding() -> None:
    sam = randomised_sam(1, 224).eval()
    photo = torch.randint(0, 256, (1, 3, 150, 224), generator=torch.Generator().manual_seed(0)).float()
    exact, rounded = torch.empty(1, 3, 224, 224), torch.empty(1, 3, 224, 224)
    for padded, colour in ((exact, PIXEL_MEAN), (rounded, PAD_COLOUR_8BIT)):
        padded[:] = torch.tensor(colour, dtype=torch.float32).reshape(3, 1, 1)
        padded[:, :, :150] = photo
    with torch.inference_mode():
        expected = sam.image_encoder(sam.normalise_and_pad(photo))
        assert _relative_error(ImageEncoderCoreML(sam)(exact), expected, expected.std()) < TOLERANCE
        assert _relative_error(ImageEncoderCoreML(sam, eight_bit=True)(rounded), expected, expected.std()) < TOLERANCE
        # What it would cost otherwise; if this became small, the extra operations could go.
        assert _relative_error(ImageEncoderCoreML(sam)(rounded), expected, expected.std()) > 100 * TOLERANCE


def test_the_encoder_refuses_another_backbone() -> None:
    from reference.mobile_sam import MobileSam

    with pytest.raises(ExportError, match="expected a TinyViT"):
        ImageEncoderCoreML(MobileSam(backbone="resnet18", image_size=224).eval())


POINTS = torch.tensor([[[40.0, 60.0], [200.5, 30.0], [100.0, 250.0]]])
LABELS = torch.tensor([[1.0, 0.0, 1.0]])
BOX = torch.tensor([[20.0, 30.0, 200.0, 300.0]])
CORNER_LABELS = torch.tensor([[float(PointLabel.BOX_TOP_LEFT), float(PointLabel.BOX_BOTTOM_RIGHT)]])


def _prompt(points: int, box: bool) -> tuple[Tensor, Tensor]:
    """Coordinates and labels by the contract's rules, without absent slots."""
    coords, labels = POINTS[:, :points], LABELS[:, :points]
    if box:
        return torch.cat([coords, BOX.reshape(1, 2, 2)], 1), torch.cat([labels, CORNER_LABELS], 1)
    if points:
        coords = torch.cat([coords, torch.zeros(1, 1, 2)], 1)
        labels = torch.cat([labels, torch.full((1, 1), float(PointLabel.PADDING))], 1)
    return coords, labels


def _with_absent(coords: Tensor, labels: Tensor, slots: int) -> tuple[Tensor, Tensor]:
    absent = slots - labels.shape[1]
    return (
        torch.cat([coords, torch.full((1, absent, 2), 77.0)], 1),
        torch.cat([labels, torch.full((1, absent), float(PointLabel.ABSENT))], 1),
    )


@pytest.mark.parametrize(
    ("points", "box", "mask"),
    [(1, False, False), (3, False, False), (0, True, False), (3, True, True), (2, False, True), (0, False, True)],
)
def test_the_decoder_equals_the_reference_for_every_kind_of_prompt(points: int, box: bool, mask: bool) -> None:
    sam = randomised_sam(2, SIDE).eval()
    generator = torch.Generator().manual_seed(points)
    embeddings = torch.randn(1, 256, SIDE // 16, SIDE // 16, generator=generator)
    mask_input = torch.randn(1, 1, SIDE // 4, SIDE // 4, generator=generator) * 5
    coords, labels = _with_absent(*_prompt(points, box), SLOTS)
    with torch.inference_mode():
        expected, expected_iou = sam.predict_masks(
            embeddings,
            (POINTS[:, :points], LABELS[:, :points]) if points else None,
            BOX if box else None,
            mask_input if mask else None,
        )
        # Without a mask the graph must not look at the input, whatever lies there.
        given = mask_input if mask else torch.full_like(mask_input, float("nan"))
        got, got_iou = PromptDecoderCoreML(sam)(embeddings, coords, labels, given, torch.tensor([float(mask)]))
    assert _relative_error(got, expected, expected.abs().max()) < TOLERANCE
    assert _relative_error(got_iou, expected_iou, expected_iou.abs().max().clamp(min=1)) < TOLERANCE


def test_absent_slots_change_nothing() -> None:
    sam = randomised_sam(3, SIDE).eval()
    graph = PromptDecoderCoreML(sam)
    embeddings = torch.randn(1, 256, SIDE // 16, SIDE // 16, generator=torch.Generator().manual_seed(0))
    no_mask = torch.zeros(1, 1, SIDE // 4, SIDE // 4), torch.zeros(1)
    coords, labels = _prompt(2, False)
    with torch.inference_mode():
        alone, _ = graph(embeddings, coords, labels, *no_mask)
        padded, _ = graph(embeddings, *_with_absent(coords, labels, 16), *no_mask)
        as_padding_points = labels.new_full((1, 16), float(PointLabel.PADDING))
        as_padding_points[:, : labels.shape[1]] = labels
        unmasked, _ = graph(embeddings, _with_absent(coords, labels, 16)[0], as_padding_points, *no_mask)
    # The masked scores underflow to exactly zero; what is left is the order of the sums.
    assert _relative_error(padded, alone, alone.abs().max()) < TOLERANCE
    assert _relative_error(unmasked, alone, alone.abs().max()) > 1e-3


def test_making_the_graphs_leaves_the_reference_as_it_was() -> None:
    sam = randomised_sam(4, 224).eval()
    before = {name: value.clone() for name, value in sam.state_dict().items()}
    ImageEncoderCoreML(sam, eight_bit=True)
    PromptDecoderCoreML(sam)
    after = sam.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
