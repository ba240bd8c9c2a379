"""The LiteRT graphs equal the reference, before any conversion."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from mobilesam_export.contract import DEFAULT_MAX_POINTS, PAD_COLOUR_8BIT, PointLabel
from mobilesam_export.rewrites.absorb_projections import absorb_image_to_token, absorb_token_to_image
from mobilesam_export.rewrites.centre_outputs import centre_outputs
from mobilesam_export.rewrites.folded_decoder import MASKED
from mobilesam_export.rewrites.omit_bias import image_to_token_without, token_to_image_without
from mobilesam_export.targets.tflite import write
from mobilesam_export.targets.tflite.cross_attention import ImageToTokenTflite, TokenToImageTflite
from mobilesam_export.targets.tflite.decoder import PromptDecoderTflite
from mobilesam_export.targets.tflite.encoder import ImageEncoderTflite
from reference.mobile_sam import MobileSam
from reference.prompt_encoder import RandomFourierEncoding
from reference.two_way_transformer import TwoWayBlock
from tests.randomised import randomised_sam
from tests.targets.prompts import Prompt, every_kind

KINDS = ("point", "points", "box", "box and points", "mask", "refinement")
SIZE = 224
# Both sides in float64; what is left are weights that the rewrites round to float32 once.
EXACT = 2e-6
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
    graph = ImageEncoderTflite(sam, halve=halve)
    with torch.no_grad():
        expected = sam.image_encoder(sam.normalise_and_pad(image))
        got = graph(image.permute(0, 2, 3, 1))["image_embeddings"].permute(0, 3, 1, 2)
    assert relative_error(got, expected) < ROUNDING


@pytest.mark.parametrize("precision", ["float32", "float16", "int8", "int8_dynamic"])
def test_long_products_are_taken_in_halves_in_float32_only(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Made(Exception):
        """Stops before the conversion."""

    def make(*arguments: Any, **options: Any) -> None:
        raise Made(ImageEncoderTflite(*arguments, **options))

    monkeypatch.setattr(write, "ImageEncoderTflite", make)
    with pytest.raises(Made) as made:
        write.draft(randomised_sam(image_size=64), precision=precision)
    convolutions = {
        name: module for name, module in made.value.args[0].named_modules() if isinstance(module, torch.nn.Conv2d)
    }
    longest = max(conv.in_channels for conv in convolutions.values() if conv.groups == 1)
    second = {name.split(".second_half")[0] for name in convolutions if "second_half" in name}
    if precision == "float32":
        assert longest == 640
        assert second == {"mbconvs.0", "mbconvs.1", "stages.2.blocks.0", "stages.2.blocks.1"}
    else:
        assert longest == 1280
        assert not second


def test_encoder_pads_at_the_border_after_subtracting_the_mean() -> None:
    sam = randomised_sam(image_size=64)
    mean = sam.pixel_mean.reshape(1, 1, 1, 3).expand(1, 64, 64, 3)
    with torch.no_grad():
        expected = sam.image_encoder(torch.zeros(1, 3, 64, 64))
        got = ImageEncoderTflite(sam)(mean)["image_embeddings"].permute(0, 3, 1, 2)
    assert relative_error(got, expected) < ROUNDING


def test_an_8_bit_image_is_padded_exactly() -> None:
    sam = randomised_sam(image_size=64)
    photo = torch.randint(0, 256, (1, 3, 64, 40), generator=torch.Generator().manual_seed(0))
    padded = torch.tensor(PAD_COLOUR_8BIT).reshape(1, 1, 1, 3).repeat(1, 64, 64, 1)
    padded[:, :, :40] = photo.permute(0, 2, 3, 1)
    with torch.no_grad():
        expected = sam.image_encoder(sam.normalise_and_pad(photo.float()))
        got = ImageEncoderTflite(sam, eight_bit=True)(padded.to(torch.uint8))["image_embeddings"].permute(0, 3, 1, 2)
        rounded = ImageEncoderTflite(sam)(padded.to(torch.uint8))["image_embeddings"].permute(0, 3, 1, 2)
    assert relative_error(got, expected) < ROUNDING
    assert relative_error(rounded, expected) > 30 * ROUNDING  # what the rounded pad colour costs


def test_graphs_leave_the_reference_alone() -> None:
    sam = randomised_sam(image_size=64)
    before = {name: value.clone() for name, value in sam.state_dict().items()}
    sam.requires_grad_(True)
    for graph in (ImageEncoderTflite(sam), PromptDecoderTflite(sam)):
        for parameter in graph.parameters():
            parameter.data.zero_()
    assert all(torch.equal(value, before[name]) for name, value in sam.state_dict().items())
    assert all(parameter.requires_grad for parameter in sam.parameters())


@pytest.fixture(scope="module")
def sam() -> MobileSam:
    return randomised_sam(seed=0, image_size=SIZE)


@pytest.fixture(scope="module")
def decoder(sam: MobileSam) -> PromptDecoderTflite:
    return PromptDecoderTflite(sam)


@pytest.fixture(scope="module")
def embedding() -> Tensor:
    return torch.randn(1, 256, SIZE // 16, SIZE // 16, generator=torch.Generator().manual_seed(0))


def decode(
    graph: PromptDecoderTflite, embedding: Tensor, prompt: Prompt, slots: int, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """Run the graph with the prompt in ``slots`` slots."""
    coords, labels = prompt.slots()
    missing = slots - coords.shape[1]
    coords = torch.cat([coords, torch.full((1, missing, 2), 77.0)], 1)  # an absent slot's coordinates mean nothing
    labels = torch.cat([labels, torch.full((1, missing), float(PointLabel.ABSENT))], 1)
    mask = torch.zeros(1, 1, SIZE // 4, SIZE // 4) if prompt.mask is None else prompt.mask
    given = torch.tensor([float(prompt.mask is not None)])
    inputs = (embedding.permute(0, 2, 3, 1), coords, labels, mask, given)
    with torch.no_grad():
        result: dict[str, Tensor] = graph(*(tensor.to(dtype) for tensor in inputs))
    return result


@pytest.mark.parametrize("kind", KINDS)
def test_decoder_equals_the_reference(
    kind: str, sam: MobileSam, decoder: PromptDecoderTflite, embedding: Tensor
) -> None:
    prompt = every_kind(SIZE)[kind]
    with torch.no_grad():
        masks, quality = sam.predict_masks(embedding, prompt.points, prompt.box, prompt.mask)
    got = decode(decoder, embedding, prompt, DEFAULT_MAX_POINTS)
    assert relative_error(got["low_res_masks"], masks) < ROUNDING
    assert relative_error(got["iou_predictions"], quality) < ROUNDING


def test_decoder_is_exact_but_for_rounding(
    sam: MobileSam, decoder: PromptDecoderTflite, embedding: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def encode(self: RandomFourierEncoding, unit: Tensor) -> Tensor:  # the reference insists on float32 here
        gaussian = self.positional_encoding_gaussian_matrix
        assert isinstance(gaussian, Tensor)
        angles = (2 * unit.double() - 1) @ gaussian.double() * (2 * math.pi)
        return torch.cat([angles.sin(), angles.cos()], dim=-1)

    monkeypatch.setattr(RandomFourierEncoding, "forward", encode)
    prompt = every_kind(SIZE)["point"]
    assert prompt.points is not None
    with torch.no_grad():
        points = (prompt.points[0].double(), prompt.points[1])
        expected = copy.deepcopy(sam).double().predict_masks(embedding.double(), points)[0]
    got = decode(copy.deepcopy(decoder).double(), embedding, prompt, DEFAULT_MAX_POINTS, torch.float64)
    assert relative_error(got["low_res_masks"], expected) < EXACT


def test_absent_slots_change_nothing(sam: MobileSam, decoder: PromptDecoderTflite, embedding: Tensor) -> None:
    prompt = every_kind(SIZE)["point"]
    exact = decode(PromptDecoderTflite(sam, max_points=2), embedding, prompt, 2)
    padded = decode(decoder, embedding, prompt, DEFAULT_MAX_POINTS)
    assert relative_error(padded["low_res_masks"], exact["low_res_masks"]) < ROUNDING


def test_padding_labels_instead_of_absent_ones_change_the_masks(
    decoder: PromptDecoderTflite, embedding: Tensor
) -> None:
    prompt = every_kind(SIZE)["point"]
    right = decode(decoder, embedding, prompt, DEFAULT_MAX_POINTS)["low_res_masks"]
    coords, labels = prompt.slots()
    assert prompt.points is not None
    crowded = Prompt((torch.cat([coords, torch.zeros(1, 5, 2)], 1), torch.cat([labels, -torch.ones(1, 5)], 1)))
    wrong = decode(decoder, embedding, crowded, DEFAULT_MAX_POINTS)["low_res_masks"]
    assert relative_error(wrong, right) > 0.01


def test_centred_outputs_are_the_outputs_less_their_mean() -> None:
    generator = torch.Generator().manual_seed(0)
    weight, bias, x = (torch.randn(*shape, generator=generator) for shape in ((12, 5), (12,), (7, 5)))
    expected = (x @ weight.T + bias + 3).unflatten(1, (4, 3))
    centred_weight, centred_bias = centre_outputs(weight, bias, groups=4)
    got = (x @ centred_weight.T + centred_bias).unflatten(1, (4, 3))
    torch.testing.assert_close(got, expected - expected.mean(2, keepdim=True))
    assert relative_error(got, expected) > 0.1  # the mean was not zero before


def test_attentions_make_up_for_the_bias_that_the_image_comes_without(sam: MobileSam) -> None:
    generator = torch.Generator().manual_seed(0)
    image, pe, tokens, token_pe = (torch.randn(1, rows, 256, generator=generator) for rows in (196, 196, 6, 6))
    omitted, absent = torch.randn(256, generator=generator), torch.tensor([[0.0, 0, 0, 0, MASKED, MASKED]])
    block = sam.mask_decoder.transformer.layers[0]
    assert isinstance(block, TwoWayBlock)
    to_image = absorb_token_to_image(block.cross_attn_token_to_image)
    to_tokens = absorb_image_to_token(block.cross_attn_image_to_token)
    without = token_to_image_without(to_image, omitted), image_to_token_without(to_tokens, omitted)
    whole = image + omitted
    with torch.no_grad():
        expected = TokenToImageTflite(to_image)(tokens, whole + pe, whole)
        assert relative_error(TokenToImageTflite(without[0])(tokens, image + pe, image), expected) < ROUNDING
        assert relative_error(TokenToImageTflite(to_image)(tokens, image + pe, image), expected) > 0.01
        expected = whole + ImageToTokenTflite(to_tokens)(whole + pe, tokens + token_pe, tokens, absent)
        got = image + ImageToTokenTflite(without[1])(image + pe, tokens + token_pe, tokens, absent)
        forgot = image + ImageToTokenTflite(to_tokens)(image + pe, tokens + token_pe, tokens, absent)
    assert relative_error(got, expected) < ROUNDING
    assert relative_error(forgot, expected) > 0.01


def test_a_wrong_weight_shows(sam: MobileSam, decoder: PromptDecoderTflite, embedding: Tensor) -> None:
    broken = copy.deepcopy(decoder)
    attention = next(module for module in broken.modules() if isinstance(module, ImageToTokenTflite))
    attention.query_bias[0] += 0.5
    prompt = every_kind(SIZE)["points"]
    with torch.no_grad():
        masks, _ = sam.predict_masks(embedding, prompt.points)
    assert relative_error(decode(broken, embedding, prompt, DEFAULT_MAX_POINTS)["low_res_masks"], masks) > 10 * ROUNDING
