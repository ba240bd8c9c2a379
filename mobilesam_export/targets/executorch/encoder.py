"""The image encoder for ExecuTorch: channels-last, of XNNPACK's operators alone, so that all is one partition.

ExecuTorch's partitioner takes softmax over the last axis, batched products of three axes and reshapes; what the
official encoder has besides, LayerNorm first of all, leaves 311 of its operators outside and 55 islands inside. Every
linear layer is one here, on the last axis; windows are cut by a reshape to (rows of windows, window, columns of
windows, window * C) and one transpose.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mobilesam_export import contract
from mobilesam_export.rewrites.folded_encoder import FoldedBlock, fold_encoder
from mobilesam_export.rewrites.halve_hidden import LONG, Convolutions, halves
from mobilesam_export.rewrites.linear import linear_with
from mobilesam_export.targets.executorch.layers import LayerNorm, Normalise, convolution
from reference.mobile_sam import MobileSam


class PatchMergingExecutorch(nn.Module):
    """TinyViT's PatchMerging: expand, depthwise, project; the last one of MobileSAM has stride 1."""

    def __init__(self, convolutions: Convolutions) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = map(convolution, convolutions)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) to (B, H/2, W/2, C_out), or to the same H and W at stride 1."""
        y: Tensor = self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))
        return y


class MBConvExecutorch(PatchMergingExecutorch):
    """TinyViT's MBConv: the same at stride 1, and a residual sum.

    Args:
        convolutions: its three.
        halve: its hidden channels in two halves.
    """

    def __init__(self, convolutions: Convolutions, halve: bool) -> None:
        first, second = halves(convolutions) if halve else (convolutions, None)
        super().__init__(first)
        self.second_half = None if second is None else PatchMergingExecutorch(second)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) to the same shape."""
        y = super().forward(x) + x
        return F.gelu(y if self.second_half is None else y + self.second_half(x))


class MlpExecutorch(nn.Module):
    """Two linear layers, GELU between them."""

    def __init__(self, fc1: nn.Linear, fc2: nn.Linear) -> None:
        super().__init__()
        self.fc1, self.fc2 = fc1, fc2

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) to the same shape."""
        y: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return y


class TinyViTBlockExecutorch(nn.Module):
    """Window attention, local convolution and MLP on (1, H, W, C).

    Args:
        block: its weights.
        halve: the MLP's hidden channels in two halves, where they are many.
    """

    attention_bias: Tensor

    def __init__(self, block: FoldedBlock, halve: bool) -> None:
        super().__init__()
        self.heads, self.window = block.heads, block.window
        channels = block.proj_weight.shape[0]
        query, key, value = block.qkv_weight.chunk(3)
        self.norm1, self.norm2 = Normalise(channels, block.eps), Normalise(channels, block.eps)
        self.query, self.key, self.value = linear_with(query, block.query_bias), linear_with(key), linear_with(value)
        self.register_buffer("attention_bias", block.attention_bias[None])  # (1, heads, tokens, tokens)
        self.proj = linear_with(block.proj_weight, block.proj_bias)
        self.local_conv = convolution(block.local_conv)
        parts = 2 if halve and len(block.fc1_bias) >= LONG else 1
        weights1, weights2 = block.fc1_weight.chunk(parts), block.fc2_weight.chunk(parts, dim=1)
        biases = block.fc1_bias.chunk(parts)
        self.fc1, self.fc2 = linear_with(weights1[0], biases[0]), linear_with(weights2[0], block.fc2_bias)
        self.second_half = None
        if parts == 2:
            self.second_half = MlpExecutorch(linear_with(weights1[1], biases[1]), linear_with(weights2[1]))

    def split(self, x: Tensor, *order: int) -> Tensor:
        """(windows, tokens, heads * d) to (windows * heads, ...), its axes (window, token, head, d) in that order."""
        windows, tokens, _ = x.shape
        x = x.reshape(windows, tokens, self.heads, -1).permute(order)
        return x.reshape(windows * self.heads, x.shape[2], x.shape[3])

    def attend(self, x: Tensor) -> Tensor:
        """Cut normalised (1, H, W, C) into windows, attend, put them back; before the output projection."""
        _, height, width, channels = x.shape
        side, tokens = self.window, self.window**2
        # A padded token is zero: the rewrites moved LayerNorm's affine away, key and value have no bias.
        # Padding here costs less than padding all three projections, although they then run on padding too.
        x = F.pad(x, (0, 0, 0, -width % side, 0, -height % side))
        rows, columns = x.shape[1] // side, x.shape[2] // side
        windows = rows * columns
        x = x.reshape(rows, side, columns, side * channels).permute(0, 2, 1, 3)
        x = x.reshape(windows, tokens, channels)
        q, v = (self.split(project(x), 0, 2, 1, 3) for project in (self.query, self.value))
        k = self.split(self.key(x), 0, 2, 3, 1)  # transposed: (windows * heads, d, tokens)
        scores = torch.bmm(q, k).reshape(windows, self.heads, tokens, tokens) + self.attention_bias
        weights = torch.softmax(scores, dim=-1).reshape(windows * self.heads, tokens, tokens)
        x = torch.bmm(weights, v).reshape(windows, self.heads, tokens, -1).permute(0, 2, 1, 3)
        x = x.reshape(rows, columns, side, side * channels).permute(0, 2, 1, 3)
        x = x.reshape(1, rows * side, columns * side, channels)
        # A slice that cuts nothing off becomes a copy, which XNNPACK does not take.
        return x if x.shape[1:3] == (height, width) else x[:, :height, :width]

    def forward(self, x: Tensor) -> Tensor:
        """Map (1, H, W, C) to the same shape."""
        x = self.local_conv(x + self.proj(self.attend(self.norm1(x))))
        normalised = self.norm2(x)
        x = x + self.fc2(F.gelu(self.fc1(normalised)))
        return x if self.second_half is None else x + self.second_half(normalised)


class StageExecutorch(nn.Module):
    """One of TinyViT's stages of transformer blocks."""

    def __init__(self, downsample: Convolutions, blocks: tuple[FoldedBlock, ...], halve: bool) -> None:
        super().__init__()
        self.downsample = PatchMergingExecutorch(downsample)
        self.blocks = nn.Sequential(*(TinyViTBlockExecutorch(block, halve) for block in blocks))

    def forward(self, x: Tensor) -> Tensor:
        """Map (1, H, W, C) to (1, H/2, W/2, C_out), or to the same H and W."""
        mixed: Tensor = self.blocks(self.downsample(x))
        return mixed


class ImageEncoderExecutorch(nn.Module):
    """Image to embedding, (1, S, S, 3) to (1, S/16, S/16, 256).

    Args:
        sam: the reference, in eval mode, with a TinyViT encoder; it stays as it is.
        halve: long products in two halves, see ``rewrites.halve_hidden``; with 8-bit weights it gains nothing.

    Raises:
        ExportError: another backbone.
    """

    pixel_mean: Tensor

    def __init__(self, sam: MobileSam, halve: bool = True) -> None:
        super().__init__()
        encoder = fold_encoder(sam)
        self.register_buffer("pixel_mean", torch.tensor(contract.PIXEL_MEAN))
        conv1, conv2 = encoder.stem
        self.stem = nn.Sequential(convolution(conv1), nn.GELU(), convolution(conv2))
        self.mbconvs = nn.Sequential(*(MBConvExecutorch(convolutions, halve) for convolutions in encoder.mbconvs))
        stages = zip(encoder.mergings, encoder.stages, strict=True)
        self.stages = nn.Sequential(*(StageExecutorch(merging, blocks, halve) for merging, blocks in stages))
        conv1, norm1, conv2, norm2 = encoder.neck
        self.neck = nn.Sequential(convolution(conv1), LayerNorm(norm1), convolution(conv2), LayerNorm(norm2))
        self.requires_grad_(False).eval()

    def forward(self, image: Tensor) -> Tensor:
        """Encode an image.

        Args:
            image: (1, S, S, 3) RGB, 0 to 255, resized and padded by the host as the contract says.

        Returns:
            ``image_embeddings`` (1, S/16, S/16, 256).
        """
        embeddings: Tensor = self.neck(self.stages(self.mbconvs(self.stem(image - self.pixel_mean))))
        return embeddings
