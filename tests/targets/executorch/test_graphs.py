"""The ExecuTorch graphs equal the reference, before any conversion; the package is not needed for that."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mobilesam_export.contract import DEFAULT_MAX_POINTS, PointLabel
from mobilesam_export.targets.executorch.channels_first import ImageEncoderBetweenTransposes
from mobilesam_export.targets.executorch.cross_attention import ImageToTokenExecutorch
from mobilesam_export.targets.executorch.decoder import PromptDecoderExecutorch
from mobilesam_export.targets.executorch.encoder import ImageEncoderExecutorch
from reference.mobile_sam import MobileSam
from tests.randomised import randomised_repvit, randomised_sam, randomised_student
from tests.targets.prompts import Prompt, every_kind

KINDS = ("point", "points", "box", "box and points", "mask", "refinement")
SIZE = 224
# Both sides in float32, over the standard deviation: each is 1e-5 away from its own float64 result.
ROUNDING = 3e-5


def relative_error(got: Tensor, expected: Tensor) -> float:
    """Largest difference over the expected standard deviation."""
    return float((got - expected).abs().max() / expected.std())


@pytest.mark.parametrize("halve", [True, False])
@pytest.mark.parametrize("size", [64, 96, 224, 320])
def test_encoder_equals_the_reference_whether_or_not_windows_are_padded(size: int, halve: bool) -> None:
    sam = randomised_sam(seed=3, image_size=size)
    image = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)) * 255
    with torch.no_grad():
        expected = sam.image_encoder(sam.normalise_and_pad(image))
        got = ImageEncoderExecutorch(sam, halve)(image.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    assert relative_error(got, expected) < ROUNDING


@pytest.mark.parametrize(
    "make",
    [
        lambda: randomised_sam(3, 96),
        lambda: randomised_repvit(seed=3, image_size=96),
        lambda: randomised_student("resnet18", 3, 96),
    ],
    ids=["tinyvit", "repvit", "resnet"],
)
def test_the_encoder_for_other_delegates_equals_every_reference(make: Callable[[], MobileSam]) -> None:
    sam = make()
    image = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(0)) * 255
    with torch.no_grad():
        expected = sam.image_encoder(sam.normalise_and_pad(image))
        got = ImageEncoderBetweenTransposes(sam)(image.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    assert relative_error(got, expected) < ROUNDING


def test_encoder_pads_at_the_border_after_subtracting_the_mean() -> None:
    sam = randomised_sam(image_size=64)
    mean = sam.pixel_mean.reshape(1, 1, 1, 3).expand(1, 64, 64, 3)
    with torch.no_grad():
        expected = sam.image_encoder(torch.zeros(1, 3, 64, 64))
        got = ImageEncoderExecutorch(sam)(mean).permute(0, 3, 1, 2)
    assert relative_error(got, expected) < ROUNDING


def test_graphs_leave_the_reference_alone() -> None:
    sam = randomised_sam(image_size=64)
    before = {name: value.clone() for name, value in sam.state_dict().items()}
    sam.requires_grad_(True)
    for graph in (ImageEncoderExecutorch(sam), PromptDecoderExecutorch(sam)):
        for parameter in graph.parameters():
            parameter.data.zero_()
    assert all(torch.equal(value, before[name]) for name, value in sam.state_dict().items())
    assert all(parameter.requires_grad for parameter in sam.parameters())


@pytest.fixture(scope="module")
def sam() -> MobileSam:
    return randomised_sam(seed=0, image_size=SIZE)


@pytest.fixture(scope="module")
def decoder(sam: MobileSam) -> PromptDecoderExecutorch:
    return PromptDecoderExecutorch(sam)


@pytest.fixture(scope="module")
def embedding() -> Tensor:
    return torch.randn(1, 256, SIZE // 16, SIZE // 16, generator=torch.Generator().manual_seed(0))


def decode(
    graph: PromptDecoderExecutorch, embedding: Tensor, prompt: Prompt, slots: int = DEFAULT_MAX_POINTS
) -> tuple[Tensor, Tensor]:
    """Run the graph with the prompt in ``slots`` slots."""
    coords, labels = prompt.slots()
    missing = slots - coords.shape[1]
    coords = torch.cat([coords, torch.full((1, missing, 2), 77.0)], 1)  # an absent slot's coordinates mean nothing
    labels = torch.cat([labels, torch.full((1, missing), float(PointLabel.ABSENT))], 1)
    mask = torch.zeros(1, 1, SIZE // 4, SIZE // 4) if prompt.mask is None else prompt.mask
    given = torch.tensor([float(prompt.mask is not None)])
    with torch.no_grad():
        masks, quality = graph(embedding.permute(0, 2, 3, 1), coords, labels, mask, given)
    return masks, quality


@pytest.mark.parametrize("kind", KINDS)
def test_decoder_equals_the_reference(
    kind: str, sam: MobileSam, decoder: PromptDecoderExecutorch, embedding: Tensor
) -> None:
    prompt = every_kind(SIZE)[kind]
    with torch.no_grad():
        expected = sam.predict_masks(embedding, prompt.points, prompt.box, prompt.mask)
    for got, wanted in zip(decode(decoder, embedding, prompt), expected, strict=True):
        assert relative_error(got, wanted) < ROUNDING


def test_absent_slots_change_nothing(sam: MobileSam, decoder: PromptDecoderExecutorch, embedding: Tensor) -> None:
    prompt = every_kind(SIZE)["point"]
    exact = decode(PromptDecoderExecutorch(sam, max_points=2), embedding, prompt, 2)
    assert relative_error(decode(decoder, embedding, prompt)[0], exact[0]) < ROUNDING


def test_padding_labels_instead_of_absent_ones_change_the_masks(
    decoder: PromptDecoderExecutorch, embedding: Tensor
) -> None:
    prompt = every_kind(SIZE)["point"]
    coords, labels = prompt.slots()
    crowded = Prompt((torch.cat([coords, torch.zeros(1, 5, 2)], 1), torch.cat([labels, -torch.ones(1, 5)], 1)))
    assert relative_error(decode(decoder, embedding, crowded)[0], decode(decoder, embedding, prompt)[0]) > 0.01


def test_a_wrong_weight_shows(sam: MobileSam, decoder: PromptDecoderExecutorch, embedding: Tensor) -> None:
    broken = copy.deepcopy(decoder)
    attention = next(module for module in broken.modules() if isinstance(module, ImageToTokenExecutorch))
    attention.query_bias[0] += 0.5
    prompt = every_kind(SIZE)["points"]
    with torch.no_grad():
        masks, _ = sam.predict_masks(embedding, prompt.points)
    assert relative_error(decode(broken, embedding, prompt)[0], masks) > 10 * ROUNDING
