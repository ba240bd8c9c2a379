"""What becomes of a ResNet's, an HGNetV2's and NanoSAM's layers is the same layer."""

from collections.abc import Sequence

import pytest
import torch
from timm.models.hgnet import ConvBNAct
from torch import Tensor, nn
from torch.nn import functional as F

from mobilesam_export.errors import ExportError
from mobilesam_export.rewrites.absorb_affine import Cut, absorb_affine
from mobilesam_export.rewrites.conv_net import CutConv, Mix
from mobilesam_export.rewrites.folded_conv_net import fold_conv_net, is_conv_net
from mobilesam_export.rewrites.layouts import ChannelsFirst, ChannelsLast, Layout
from mobilesam_export.rewrites.transposed_conv_by_phases import transposed_conv_by_phases
from mobilesam_export.targets.onnx.conv_net import OnnxLayout
from mobilesam_export.targets.tflite.channels_last import ConvNhwc, greatest
from reference.image_encoder import ImageEncoder
from tests.randomised import randomised_sam

FIRST, LAST = ChannelsFirst(), ChannelsLast(ConvNhwc, greatest)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def to_last(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1)  # BCHW -> BHWC


def to_first(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2)  # BHWC -> BCHW


def upsampling(**geometry: int) -> nn.ConvTranspose2d:
    settings = {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1, **geometry}
    conv = nn.ConvTranspose2d(3, 5, **settings)  # type: ignore[arg-type]  # mypy mixes up the keywords' types
    assert conv.bias is not None
    conv.weight.data, conv.bias.data = normal(*conv.weight.shape), normal(5, seed=1)
    return conv


def test_a_transposed_convolution_is_four_pixels_of_each() -> None:
    conv, x = upsampling(), normal(1, 3, 4, 6, seed=2)
    before = conv.weight.clone()
    with torch.inference_mode():
        expected = conv(x)
        first = FIRST.interleave(transposed_conv_by_phases(conv, False)(FIRST.pad(x, 0, 1)))
        phases = LAST.layer(transposed_conv_by_phases(conv, True))
        last = to_first(LAST.interleave(phases(LAST.pad(to_last(x), 0, 1))))
    assert first.shape == last.shape == expected.shape == (1, 5, 8, 12)
    assert (first - expected).abs().max() < 1e-5  # twelve products a pixel, in another order
    assert (last - expected).abs().max() < 1e-5
    assert torch.equal(conv.weight, before)


@pytest.mark.parametrize("geometry", [{"kernel_size": 4}, {"stride": 3}, {"padding": 0}, {"output_padding": 0}])
def test_another_transposed_convolution_is_refused(geometry: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="expected a 3x3 kernel of stride 2, both paddings 1, with bias"):
        transposed_conv_by_phases(upsampling(**geometry), True)


@pytest.mark.parametrize(("scale", "shift"), [(1.3, -0.4), (0.6, 0.2), (-0.8, 0.3), (-0.5, -0.3), (0.0, 0.7)])
def test_a_scale_and_shift_behind_a_relu_goes_into_the_convolution(scale: float, shift: float) -> None:
    layer = ConvBNAct(3, 4, 3, use_lab=True).eval()
    norm = layer.bn
    norm.weight.data, norm.bias.data = 1 + 0.3 * normal(4), 0.5 * normal(4, seed=1)
    norm.running_mean, norm.running_var = normal(4, seed=2), 0.5 + normal(4, seed=3).abs()
    layer.lab.get_parameter("scale").data.fill_(scale)
    layer.lab.get_parameter("bias").data.fill_(shift)
    cut = CutConv(absorb_affine(layer), FIRST)
    x = normal(1, 3, 9, 9, seed=4)
    with torch.inference_mode():
        expected = layer(x)
        assert (cut(x) - expected).abs().max() < 1e-5  # 27 products a pixel, of weights rounded once more
    assert scale == 0 or expected.unique().numel() > 50, "a ReLU that lets nothing through shows nothing"
    with pytest.raises(ValueError, match="train mode"):
        absorb_affine(layer.train())


@pytest.mark.parametrize("layout", [FIRST, OnnxLayout(), LAST], ids=["first", "onnx", "last"])
@pytest.mark.parametrize(("before", "after"), [(0, 0), (0, 1), (1, 0)])
def test_padding_counts_as_zero_where_the_greatest_is_asked_for(layout: Layout, before: int, after: int) -> None:
    x = normal(1, 3, 8, 8) - 3  # most of it below zero
    expected = F.max_pool2d(F.pad(x, (before, after, before, after)), 2, 1)
    found = layout.greatest(to_last(x) if layout.channels_last else x, 2, 1, before, after)
    assert torch.equal(to_first(found) if layout.channels_last else found, expected)


@pytest.mark.parametrize("channels", [(2, 3), (1, 2, 3, 4), (1, 2, 1, 2, 1), (1, 2, 3, 4, 5, 6, 7)])
def test_maps_side_by_side_are_mixed_however_many(channels: Sequence[int]) -> None:
    maps = [normal(1, count, 2, 3, seed=index) for index, count in enumerate(channels)]
    conv = nn.Conv2d(sum(channels), 5, 1)
    with torch.inference_mode():
        expected = conv(torch.cat(maps, 1)).clamp(min=-0.1)
        first = Mix(Cut(conv, -0.1), channels, FIRST)(maps)
        last = to_first(Mix(Cut(conv, -0.1), channels, LAST)([to_last(x) for x in maps]))
    assert (first - expected).abs().max() < 1e-5  # at most 28 products a pixel, in another order
    assert (last - expected).abs().max() < 1e-5


def test_the_folded_form_is_of_convolutions_alone() -> None:
    with pytest.raises(
        ExportError, match="got the backbone tiny_vit_5m_224, expected a TinyViT, a RepViT-SAM, or one of resnet18"
    ):
        fold_conv_net(randomised_sam(image_size=64))
    forms = {
        "resnet18": True, "resnet50.a1_in1k": True, "hgnetv2_b2": True, "nanosam_hgnetv2_b0": True,
        "resnet18d": False, "hgnet_tiny": False, "resnext50_32x4d": False, "nanosam_mobilenetv4_conv_small": False,
    }  # fmt: skip
    with torch.device("meta"):
        assert {name: is_conv_net(ImageEncoder(name)) for name in forms} == forms
