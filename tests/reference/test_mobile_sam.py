"""Rules of the model that need no recorded output: padding, float32 positions, decoding in batches."""

import numpy as np
import pytest
import torch
from torch import nn

from reference import MobileSam, Predictor
from reference.layer_norm_2d import LayerNorm2d
from reference.values import PIXEL_MEAN, PIXEL_STD


def test_padding_comes_after_normalising(small_sam: MobileSam) -> None:
    image = torch.rand(1, 3, 224, 100, generator=torch.Generator().manual_seed(0)) * 255
    padded = small_sam.normalise_and_pad(image)
    assert padded.shape == (1, 3, 224, 224)
    assert (padded[..., 100:] == 0).all()
    for channel in range(3):
        expected = (image[:, channel] - PIXEL_MEAN[channel]) / PIXEL_STD[channel]
        torch.testing.assert_close(padded[:, channel, :, :100], expected, rtol=0, atol=1e-6)
    assert (small_sam.normalise_and_pad(image.transpose(2, 3))[..., 100:, :] == 0).all()


def test_the_encoder_sees_rows_down_columns_right_and_red_first(small_predictor: Predictor) -> None:
    photo = np.random.default_rng(2).integers(0, 256, (224, 150, 3), np.uint8)
    image = torch.zeros(1, 3, 224, 224)
    for channel in range(3):
        pixels = torch.from_numpy(photo[:, :, channel].astype(np.float32))
        image[0, channel, :, :150] = (pixels - PIXEL_MEAN[channel]) / PIXEL_STD[channel]
    with torch.inference_mode():
        expected = small_predictor.sam.image_encoder(image).numpy()
    small_predictor.set_image(photo)
    embeddings = small_predictor.image_embeddings
    assert embeddings is not None
    np.testing.assert_allclose(embeddings, expected, rtol=0, atol=1e-4)  # std 1


def test_constants_are_sams() -> None:
    assert PIXEL_MEAN == (123.675, 116.28, 103.53)
    assert PIXEL_STD == (58.395, 57.12, 57.375)


def test_activations_are_exact_and_epsilons_are_sams(small_sam: MobileSam) -> None:
    # The tanh approximation of GELU in the mask embedding hides below the tolerance of the golden tests.
    activations = [module for module in small_sam.modules() if "GELU" in type(module).__name__]
    assert len(activations) > 20
    assert {type(module) for module in activations} == {nn.GELU}
    assert {module.approximate for module in activations if isinstance(module, nn.GELU)} == {"none"}
    assert {module.eps for module in small_sam.modules() if isinstance(module, nn.LayerNorm)} == {1e-5}
    assert {module.eps for module in small_sam.modules() if isinstance(module, LayerNorm2d)} == {1e-6}
    assert {module.eps for module in small_sam.modules() if isinstance(module, nn.BatchNorm2d)} == {1e-5}


def test_the_padding_looks_like_the_mean_colour(small_predictor: Predictor) -> None:
    photo = np.random.default_rng(1).integers(0, 256, (112, 224, 3), np.uint8)
    small_predictor.set_image(photo)
    padded_by_model = small_predictor.image_embeddings
    mean = np.round(PIXEL_MEAN).astype(np.uint8)
    small_predictor.set_image(np.concatenate([photo, np.full_like(photo, mean)]))
    padded_by_hand = small_predictor.image_embeddings
    small_predictor.set_image(np.concatenate([photo, np.zeros_like(photo)]))
    padded_with_black = small_predictor.image_embeddings
    assert padded_by_model is not None and padded_by_hand is not None and padded_with_black is not None
    # The mean colour rounded to whole levels is off by at most 0.0082 of a standard deviation.
    assert abs(padded_by_hand - padded_by_model).max() < 0.1 * abs(padded_with_black - padded_by_model).max()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_positions_stay_float32_in_every_precision(small_sam: MobileSam, dtype: torch.dtype) -> None:
    coords = torch.tensor([[[1023.0, 767.5], [1023.5, 767.0]]]) / 1024
    encode = small_sam.prompt_encoder.pe_layer
    expected = encode(coords)
    with torch.autocast("cpu", dtype):
        encoded = encode(coords)
    assert encoded.dtype == torch.float32
    assert torch.equal(encoded, expected)


def test_the_positional_grid_is_that_of_its_cell_centres(small_sam: MobileSam) -> None:
    grid = small_sam.prompt_encoder.image_pe()
    assert grid.shape == (1, 256, 14, 14)
    row, column = 3, 11
    centre = torch.tensor([[(column + 0.5) / 14, (row + 0.5) / 14]])  # x, y
    torch.testing.assert_close(grid[0, :, row, column][None], small_sam.prompt_encoder.pe_layer(centre))


def test_a_point_is_encoded_at_its_pixels_centre(small_sam: MobileSam) -> None:
    encoder = small_sam.prompt_encoder
    corner = encoder.embed_points(torch.tensor([[[31.5, 15.5]]]), torch.ones(1, 1), pad=False)
    expected = encoder.pe_layer(torch.tensor([[[32 / 224, 16 / 224]]])) + encoder.get_parameter(
        "point_embeddings.1.weight"
    )
    torch.testing.assert_close(corner, expected)


def test_labels_of_corners_get_no_embedding_as_points(small_sam: MobileSam) -> None:
    encoder, coords = small_sam.prompt_encoder, torch.tensor([[[31.5, 15.5]]])
    bare = encoder.embed_points(coords, torch.full((1, 1), 2.0), pad=False)
    torch.testing.assert_close(bare, encoder.pe_layer(torch.tensor([[[32 / 224, 16 / 224]]])))
    box = encoder.embed_boxes(torch.tensor([[31.5, 15.5, 100.0, 90.0]]))
    torch.testing.assert_close(box[:, :1], bare + encoder.get_parameter("point_embeddings.2.weight"))


def test_prompts_on_several_photos_decode_side_by_side(small_sam: MobileSam) -> None:
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(2, 256, 14, 14, generator=generator)
    points = (torch.rand(2, 3, 2, generator=generator) * 224, torch.tensor([[1.0, 0, 1], [0, 1, 1]]))
    with torch.inference_mode():
        together = small_sam.predict_masks(embeddings, points)
        for i in range(2):
            alone = small_sam.predict_masks(embeddings[i : i + 1], (points[0][i : i + 1], points[1][i : i + 1]))
            for a, b in zip(together, alone, strict=True):
                torch.testing.assert_close(a[i : i + 1], b, rtol=1e-4, atol=1e-3)
