"""TinyViT on (1, H, W, C): its parts, but for attention, which each target cuts and multiplies in its own way.

A target says how a convolution is written (``Layer``); a linear layer is a 1x1 convolution to it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from mobilesam_export.rewrites.folded_encoder import FoldedBlock, FoldedEncoder
from mobilesam_export.rewrites.halve_hidden import LONG, Convolutions, halves
from mobilesam_export.rewrites.pointwise import pointwise

Layer = Callable[[nn.Conv2d], nn.Module]


class PatchMergingChannelsLast(nn.Module):
    """TinyViT's PatchMerging: expand, depthwise, project; the last one of MobileSAM has stride 1."""

    def __init__(self, convolutions: Convolutions, layer: Layer) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = map(layer, convolutions)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) to (B, H/2, W/2, C_out), or to the same H and W at stride 1."""
        y: Tensor = self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))
        return y


class MBConvChannelsLast(PatchMergingChannelsLast):
    """TinyViT's MBConv: the same at stride 1, and a residual sum.

    Args:
        convolutions: its three.
        layer: how one is written.
        halve: its hidden channels in two halves.
    """

    def __init__(self, convolutions: Convolutions, layer: Layer, halve: bool) -> None:
        first, second = halves(convolutions) if halve else (convolutions, None)
        super().__init__(first, layer)
        self.second_half = None if second is None else PatchMergingChannelsLast(second, layer)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) to the same shape."""
        y = super().forward(x) + x
        return F.gelu(y if self.second_half is None else y + self.second_half(x))


class MlpChannelsLast(nn.Module):
    """Two linear layers, GELU between them."""

    def __init__(self, fc1: nn.Module, fc2: nn.Module) -> None:
        super().__init__()
        self.fc1, self.fc2 = fc1, fc2

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) to the same shape."""
        y: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return y


class TinyViTBlockChannelsLast(nn.Module, ABC):
    """Window attention, local convolution and MLP on (1, H, W, C), both LayerNorms without their affine.

    Args:
        block: its weights.
        layer: how a convolution is written.
        norm1, norm2: LayerNorm over the last axis.
        halve: the MLP's hidden channels in two halves, where they are many.
    """

    attention_bias: Tensor

    def __init__(
        self,
        block: FoldedBlock,
        layer: Layer,
        norm1: Callable[[Tensor], Tensor],
        norm2: Callable[[Tensor], Tensor],
        halve: bool,
    ) -> None:
        super().__init__()
        self.heads, self.window = block.heads, block.window
        self.norm1, self.norm2 = norm1, norm2

        def linear(weight: Tensor, bias: Tensor | None = None) -> nn.Module:
            return layer(pointwise(weight, bias))

        query, key, value = block.qkv_weight.chunk(3)
        self.query, self.key, self.value = linear(query, block.query_bias), linear(key), linear(value)
        self.register_buffer("attention_bias", block.attention_bias[None])  # (1, heads, tokens, tokens)
        self.proj = linear(block.proj_weight, block.proj_bias)
        self.local_conv = layer(block.local_conv)
        parts = 2 if halve and len(block.fc1_bias) >= LONG else 1
        weights1, weights2 = block.fc1_weight.chunk(parts), block.fc2_weight.chunk(parts, dim=1)
        biases = block.fc1_bias.chunk(parts)
        self.fc1, self.fc2 = linear(weights1[0], biases[0]), linear(weights2[0], block.fc2_bias)
        self.second_half = None
        if parts == 2:
            self.second_half = MlpChannelsLast(linear(weights1[1], biases[1]), linear(weights2[1]))

    @abstractmethod
    def attend(self, x: Tensor) -> Tensor:
        """Cut normalised (1, H, W, C) into windows, attend, put them back; before the output projection."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (1, H, W, C) to the same shape."""
        x = self.local_conv(x + self.proj(self.attend(self.norm1(x))))
        normalised = self.norm2(x)
        x = x + self.fc2(F.gelu(self.fc1(normalised)))
        return x if self.second_half is None else x + self.second_half(normalised)


class StageChannelsLast(nn.Module):
    """One of TinyViT's stages of transformer blocks."""

    def __init__(self, downsample: nn.Module, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.downsample, self.blocks = downsample, nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Map (1, H, W, C) to (1, H/2, W/2, C_out), or to the same H and W."""
        mixed: Tensor = self.blocks(self.downsample(x))
        return mixed


def trunk_of(
    encoder: FoldedEncoder, layer: Layer, block: Callable[[FoldedBlock], nn.Module], halve: bool
) -> tuple[nn.Sequential, nn.Sequential, nn.Sequential]:
    """Stem, MBConvs and stages.

    Args:
        encoder: their weights.
        layer: how a convolution is written.
        block: how a transformer block is.
        halve: MBConvs' hidden channels in two halves.
    """
    conv1, conv2 = encoder.stem
    mbconvs = (MBConvChannelsLast(convolutions, layer, halve) for convolutions in encoder.mbconvs)
    stages = (
        StageChannelsLast(PatchMergingChannelsLast(merging, layer), [block(each) for each in blocks])
        for merging, blocks in zip(encoder.mergings, encoder.stages, strict=True)
    )
    return (
        nn.Sequential(layer(conv1), nn.GELU(), layer(conv2)), nn.Sequential(*mbconvs), nn.Sequential(*stages)
    )  # fmt: skip
