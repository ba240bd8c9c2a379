"""The image encoder for LiteRT: channels-last, rank 4 throughout, the reference's weights.

LiteRT's convolutions are NHWC, and its GPU delegate takes tensors of at most four axes. The official
encoder goes through six axes to cut windows, which leaves 702 of its 752 operations on the CPU. Here a
window is cut by a reshape to (rows of windows, window, columns of windows, window * C) and one transpose.
Every linear layer is a 1x1 convolution, so that no reshape surrounds it.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mobilesam_export import contract
from mobilesam_export.rewrites.folded_encoder import FoldedBlock, fold_encoder
from mobilesam_export.targets.tflite.channels_last import ConvNhwc, LayerNormNhwc, normalise, pointwise
from reference.layer_norm_2d import LayerNorm2d
from reference.mobile_sam import MobileSam

Convs = tuple[nn.Conv2d, nn.Conv2d, nn.Conv2d]


class MBConvNhwc(nn.Module):
    """TinyViT's first stage: expand, depthwise, project, residual."""

    def __init__(self, convs: Convs) -> None:
        super().__init__()
        self.expand, self.depthwise, self.project = (ConvNhwc(conv) for conv in convs)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) to the same shape."""
        y = F.gelu(self.depthwise(F.gelu(self.expand(x))))
        return F.gelu(self.project(y) + x)


class PatchMergingNhwc(nn.Module):
    """TinyViT's downsampling; the last one of MobileSAM has stride 1."""

    def __init__(self, convs: Convs) -> None:
        super().__init__()
        self.expand, self.depthwise, self.project = (ConvNhwc(conv) for conv in convs)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) to (B, H/2, W/2, C_out), or to the same H and W at stride 1."""
        y: Tensor = self.project(F.gelu(self.depthwise(F.gelu(self.expand(x)))))
        return y


class TinyViTBlockNhwc(nn.Module):
    """Window attention, local convolution and MLP on (1, H, W, C)."""

    bias: Tensor

    def __init__(self, block: FoldedBlock) -> None:
        super().__init__()
        self.heads, self.window, self.eps = block.heads, block.window, block.eps
        query, key, value = block.qkv_weight.chunk(3)
        self.query, self.key, self.value = pointwise(query, block.query_bias), pointwise(key), pointwise(value)
        self.register_buffer("bias", block.attention_bias[None])  # (1, heads, tokens, tokens)
        self.out = pointwise(block.proj_weight, block.proj_bias)
        self.local_conv = ConvNhwc(block.local_conv)
        self.fc1, self.fc2 = pointwise(block.fc1_weight, block.fc1_bias), pointwise(block.fc2_weight, block.fc2_bias)

    def split(self, x: Tensor) -> Tensor:
        """(windows, ws, ws, heads * d) to (windows, heads, ws * ws, d)."""
        return x.reshape(x.shape[0], self.window**2, self.heads, -1).transpose(1, 2)

    def add_bias(self, scores: Tensor) -> Tensor:
        """Add the relative position bias to (windows, heads, tokens, tokens) scores."""
        if scores.shape[0] > 1:
            return scores + self.bias
        # With one window the bias has the scores' whole shape, and LiteRT's GPU accelerator (ai-edge-litert 2.3) fuses
        # such an addition into the product before it with wrong results. A reshape between the two prevents that.
        shape = (self.heads, self.window**2, 1, self.window**2)
        return (scores.reshape(shape) + self.bias.reshape(shape)).reshape(scores.shape)

    def attend(self, x: Tensor) -> Tensor:
        """Cut normalised (1, H, W, C) into windows, attend, put them back; before the output projection."""
        _, height, width, channels = x.shape
        side = self.window
        # A padded token is zero: the rewrites moved LayerNorm's affine away, key and value have no bias.
        # Padding here costs less than padding all three projections, although they then run on padding too.
        x = F.pad(x, (0, 0, 0, -width % side, 0, -height % side))
        rows, columns = x.shape[1] // side, x.shape[2] // side
        x = x.reshape(rows, side, columns, side * channels).transpose(1, 2)
        x = x.reshape(rows * columns, side, side, channels)
        q, k, v = self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(x))
        weights = torch.softmax(self.add_bias(q @ k.transpose(-2, -1)), dim=-1)
        x = (weights @ v).transpose(1, 2)  # (windows, ws * ws, heads, d)
        x = x.reshape(rows, columns, side, side * channels).transpose(1, 2)
        return x.reshape(1, rows * side, columns * side, channels)[:, :height, :width]

    def forward(self, x: Tensor) -> Tensor:
        """Map (1, H, W, C) to the same shape."""
        x = self.local_conv(x + self.out(self.attend(normalise(x, self.eps))))
        y: Tensor = self.fc2(F.gelu(self.fc1(normalise(x, self.eps))))
        return x + y


class ImageEncoderTflite(nn.Module):
    """Image to embedding, (1, S, S, 3) to (1, S/16, S/16, 256).

    Args:
        sam: the reference, in eval mode, with a TinyViT encoder.
        eight_bit: the image comes as uint8, padded with ``PAD_COLOUR_8BIT``. Whole numbers cannot hold the mean
            colour, so pixels of exactly that colour count as the mean: padding is exact again, and a pixel of the
            photo that happens to have that colour moves by at most 0.0082 of a standard deviation.

    Raises:
        ExportError: another backbone.
    """

    pixel_mean: Tensor
    pad_colour: Tensor

    def __init__(self, sam: MobileSam, eight_bit: bool = False) -> None:
        super().__init__()
        self.eight_bit = eight_bit
        self.register_buffer("pad_colour", torch.tensor(contract.PAD_COLOUR_8BIT, dtype=torch.float32))
        encoder = fold_encoder(copy.deepcopy(sam))  # the neck is taken as it is
        self.register_buffer("pixel_mean", torch.tensor(contract.PIXEL_MEAN))
        self.stem1, self.stem2 = (ConvNhwc(conv) for conv in encoder.stem)
        body: list[nn.Module] = [MBConvNhwc(convs) for convs in encoder.mbconvs]
        for convs, blocks in zip(encoder.mergings, encoder.stages, strict=True):
            body.append(PatchMergingNhwc(convs))
            body.extend(TinyViTBlockNhwc(block) for block in blocks)
        self.body = nn.Sequential(*body)
        conv1, conv2 = (ConvNhwc(layer) for layer in encoder.neck if isinstance(layer, nn.Conv2d))
        norm1, norm2 = (LayerNormNhwc(layer) for layer in encoder.neck if isinstance(layer, LayerNorm2d))
        self.neck = nn.Sequential(conv1, norm1, conv2, norm2)
        self.requires_grad_(False).eval()

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Encode an image.

        Args:
            image: (1, S, S, 3) RGB, 0 to 255, float32 or uint8, resized and padded by the host as the contract says.

        Returns:
            ``image_embeddings`` (1, S/16, S/16, 256).
        """
        pixels = image.float()
        x = pixels - self.pixel_mean
        if self.eight_bit:
            levels_away = (pixels - self.pad_colour).abs().sum(-1, keepdim=True)  # whole numbers
            x = x * (1 - torch.relu(1 - levels_away))  # times 0 or 1
        x = self.stem2(F.gelu(self.stem1(x)))
        return {"image_embeddings": self.neck(self.body(x))}
