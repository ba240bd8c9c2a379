"""Every rewrite fires, refuses what it cannot do, and keeps what is computed."""

import copy

import pytest
import torch
from timm.models.tiny_vit import ConvNorm
from torch import nn
from torch.nn import functional as F

from mobilesam_export.contract import PIXEL_MEAN, PIXEL_STD
from mobilesam_export.rewrites.absorb_projections import absorb_image_to_token, absorb_token_to_image
from mobilesam_export.rewrites.fold_batch_norm import fold_batch_norm
from mobilesam_export.rewrites.fold_layer_norm import fold_layer_norm
from mobilesam_export.rewrites.fold_normalisation import fold_normalisation
from mobilesam_export.rewrites.freeze_attention_bias import freeze_attention_bias
from mobilesam_export.rewrites.split_qkv import split_qkv
from mobilesam_export.rewrites.transposed_conv_as_linear import transposed_conv_as_linear
from reference.mobile_sam import MobileSam
from reference.two_way_transformer import Attention
from tests.randomised import randomised_sam

EXACT = 1e-12  # everything here is compared in float64, whose rounding after a few hundred sums is below this
ROUNDED = 1e-5  # against weights that a rewrite rounds to float32 (relative 6e-8, summed over up to 576 products)


@pytest.fixture(scope="module")
def sam() -> MobileSam:
    return randomised_sam()


def conv_norm() -> ConvNorm:
    torch.manual_seed(0)
    module = ConvNorm(8, 12, 3, 2, 1)
    nn.init.normal_(module.bn.weight)
    nn.init.normal_(module.bn.bias)
    module.bn.running_mean.normal_()
    module.bn.running_var.uniform_(0.5, 2)
    return module.eval()


def test_a_batch_norm_folds_into_its_convolution() -> None:
    module = conv_norm()
    x = torch.randn(2, 8, 9, 9)
    folded = fold_batch_norm(module.conv, module.bn)
    assert folded.bias is not None and folded.stride == (2, 2)
    assert (folded(x) - module(x)).abs().max() < ROUNDED


def test_folding_leaves_the_module_passed_in_alone() -> None:
    module = conv_norm()
    before = copy.deepcopy(module.state_dict())
    fold_batch_norm(module.conv, module.bn)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_a_batch_norm_in_train_mode_is_refused() -> None:
    module = conv_norm().train()
    with pytest.raises(ValueError, match="train mode"):
        fold_batch_norm(module.conv, module.bn)


def test_a_batch_norm_without_statistics_is_refused() -> None:
    module = conv_norm()
    module.bn = nn.BatchNorm2d(12, track_running_stats=False).eval()
    with pytest.raises(ValueError, match="without running statistics"):
        fold_batch_norm(module.conv, module.bn)


def test_division_by_the_std_moves_into_the_first_convolution(sam: MobileSam) -> None:
    first = sam.image_encoder.body.patch_embed.conv1
    conv = fold_batch_norm(first.conv, first.bn)
    image = torch.rand(1, 3, 32, 32) * 255
    centred = image - torch.tensor(PIXEL_MEAN).reshape(3, 1, 1)
    expected = conv(centred / torch.tensor(PIXEL_STD).reshape(3, 1, 1))
    assert (fold_normalisation(conv)(centred) - expected).abs().max() < ROUNDED * expected.std()
    assert (conv(centred) - expected).abs().max() > 1  # it fires: the unfolded convolution gives something else


def test_normalisation_into_other_than_rgb_is_refused() -> None:
    with pytest.raises(ValueError, match="RGB"):
        fold_normalisation(nn.Conv2d(4, 8, 3))


def test_a_layer_norm_folds_into_the_linear_layer_behind_it(sam: MobileSam) -> None:
    mlp = sam.image_encoder.body.stages[1].blocks[0].mlp
    weight, bias = fold_layer_norm(mlp.norm, mlp.fc1)
    x = torch.randn(5, weight.shape[1], dtype=torch.float64)
    expected = copy.deepcopy(mlp.fc1).double()(copy.deepcopy(mlp.norm).double()(x))
    folded = F.layer_norm(x, x.shape[-1:], eps=mlp.norm.eps) @ weight.T + bias
    assert (folded - expected).abs().max() < EXACT
    assert (weight - mlp.fc1.weight).abs().max() > 0.01 and (bias - mlp.fc1.bias).abs().max() > 0.01


def test_a_layer_norm_over_another_dimension_is_refused() -> None:
    with pytest.raises(ValueError, match="same dimension"):
        fold_layer_norm(nn.LayerNorm(8), nn.Linear(16, 4))


def test_split_qkv_attends_as_the_interleaved_projection_does(sam: MobileSam) -> None:
    attention = copy.deepcopy(sam.image_encoder.body.stages[1].blocks[0].attn).double()
    attention.norm = nn.Identity()
    heads, channels = attention.num_heads, attention.proj.in_features
    split = split_qkv(attention.qkv.weight, attention.qkv.bias, attention.proj, heads)
    x = torch.randn(2, 49, channels, dtype=torch.float64)
    q, k, v = (x @ split.weight.T).chunk(3, dim=-1)
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q + split.query_bias, k, v))
    bias = freeze_attention_bias(sam.image_encoder.body.stages[1].blocks[0].attn).double()
    attended = (torch.softmax(q @ k.transpose(-2, -1) + bias, dim=-1) @ v).transpose(1, 2).flatten(2)
    assert (attended @ split.proj_weight.T + split.proj_bias - attention(x)).abs().max() < EXACT


def test_split_qkv_refuses_widths_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="divide into the heads"):
        split_qkv(torch.zeros(96, 32), torch.zeros(96), nn.Linear(30, 32), heads=4)


def test_the_attention_bias_is_gathered_from_the_weights_as_they_are_now() -> None:
    attention = randomised_sam().image_encoder.body.stages[1].blocks[0].attn
    before = freeze_attention_bias(attention)
    attention(torch.randn(1, 49, attention.norm.weight.shape[0]))  # a forward pass must not freeze the old weights
    with torch.no_grad():
        attention.attention_biases.add_(1)
    assert torch.equal(freeze_attention_bias(attention), before + 1)
    attention.train()
    with pytest.raises(ValueError, match="train mode"):
        freeze_attention_bias(attention)


def attention_inputs() -> tuple[Attention, torch.Tensor, torch.Tensor, torch.Tensor]:
    attention = copy.deepcopy(randomised_sam(1).mask_decoder.transformer.layers[1].cross_attn_token_to_image).double()
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(1, 7, 256, dtype=torch.float64, generator=generator)
    image, pe = torch.randn(2, 1, 50, 256, dtype=torch.float64, generator=generator)
    return attention, tokens, image, pe


def test_token_to_image_attention_needs_no_projection_of_the_image() -> None:
    attention, tokens, image, pe = attention_inputs()
    weights = absorb_token_to_image(attention)
    query = (tokens @ weights.query_weight.T + weights.query_bias).unflatten(-1, (8, -1)).transpose(1, 2)
    scores = (query @ weights.key_weight) @ (image + pe).transpose(1, 2)[:, None]
    values = (torch.softmax(scores, dim=-1) @ image[:, None]) @ weights.value_weight
    output = values.transpose(1, 2).flatten(2) @ weights.out_weight.T + weights.out_bias
    assert (output - attention(tokens, image + pe, image)).abs().max() < EXACT


def test_image_to_token_attention_needs_no_projection_of_the_image() -> None:
    attention, tokens, image, pe = attention_inputs()
    weights = absorb_image_to_token(attention)
    key = ((tokens + 1) @ weights.key_weight.T + weights.key_bias).unflatten(-1, (8, -1)).transpose(1, 2)
    value = (tokens @ weights.value_weight.T + weights.value_bias).unflatten(-1, (8, -1)).transpose(1, 2)
    offset = (key * weights.query_bias[:, None]).sum(-1)[:, :, None]
    scores = (image + pe)[:, None] @ (key @ weights.query_weight).transpose(-2, -1) + offset
    output = (torch.softmax(scores, dim=-1) @ (value @ weights.out_weight)).sum(1) + weights.out_bias
    assert (output - attention(image + pe, tokens + 1, tokens)).abs().max() < EXACT


def test_absorption_refuses_heads_that_do_not_divide() -> None:
    attention = Attention(256, 8)
    attention.heads = 7
    for absorb in (absorb_token_to_image, absorb_image_to_token):
        with pytest.raises(ValueError, match="divides"):
            absorb(attention)


def test_a_transposed_convolution_becomes_a_linear_layer() -> None:
    conv = nn.ConvTranspose2d(6, 5, 2, stride=2)
    weight, bias = transposed_conv_as_linear(conv)
    x = torch.randn(1, 6, 3, 4)
    pixels = x.flatten(2).transpose(1, 2) @ weight.T + bias  # (1, 12, dy dx channel)
    image = pixels.reshape(3, 4, 2, 2, 5).permute(4, 0, 2, 1, 3).reshape(1, 5, 6, 8)
    assert (image - conv(x)).abs().max() < ROUNDED


@pytest.mark.parametrize("options", [{"kernel_size": 3, "stride": 2}, {"kernel_size": 2, "stride": 2, "padding": 1}])
def test_overlapping_transposed_convolutions_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="2x2 kernel"):
        transposed_conv_as_linear(nn.ConvTranspose2d(4, 4, **options))
