"""The image encoder for Apple's hardware: (1, C, H, W) from end to end, the reference's weights.

The form follows Apple's published principles for the Neural Engine (machinelearning.apple.com/research/
neural-engine-transformers): channels first, every linear layer a 1x1 convolution, LayerNorm over the
channel axis, few transposes, no tensor of more than four axes. A window of w x w is cut by
``pixel_unshuffle(w)``, which stacks its pixels into channels, and one transpose, and put back by one
transpose and ``pixel_shuffle(w)``: 2 transposes for each of the 10 attentions of TinyViT-5M, 20 in all.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mobilesam_export import contract
from mobilesam_export.rewrites.channels_first.channel_layer_norm import ChannelLayerNorm
from mobilesam_export.rewrites.folded_encoder import FoldedBlock, fold_encoder
from mobilesam_export.rewrites.pointwise import pointwise
from mobilesam_export.rewrites.sam_neck import SamNeck
from reference.mobile_sam import MobileSam

Convolutions = tuple[nn.Conv2d, nn.Conv2d, nn.Conv2d]


class PixelsChannelsFirst(nn.Module):
    """Pixels of 0 to 255 minus the mean; the std is already in the first convolution.

    An 8-bit image cannot hold the mean colour, and padding with the rounded one costs more than all of
    float16 (60 instead of 73 dB on a padded photo). So pixels of exactly that colour are set to the mean
    here: the padding becomes exact, and the few pixels of the photo that happen to have that colour move
    by at most 0.0082 of a standard deviation.
    """

    mean: Tensor
    pad_colour: Tensor

    def __init__(self, eight_bit: bool) -> None:
        super().__init__()
        self.eight_bit = eight_bit
        self.register_buffer("mean", torch.tensor(contract.PIXEL_MEAN).reshape(1, 3, 1, 1))
        pad_colour = torch.tensor(contract.PAD_COLOUR_8BIT, dtype=torch.float32)
        self.register_buffer("pad_colour", pad_colour.reshape(1, 3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Map (1, 3, S, S) to the same shape."""
        x = image - self.mean
        if self.eight_bit:
            levels_away = (image - self.pad_colour).abs().sum(dim=1, keepdim=True)  # whole numbers
            x = x * levels_away.clamp(0, 1)
        return x


class StemChannelsFirst(PixelsChannelsFirst):
    """Pixels of 0 to 255 to the first feature map."""

    def __init__(self, stem: tuple[nn.Conv2d, nn.Conv2d], eight_bit: bool) -> None:
        super().__init__(eight_bit)
        self.conv1, self.conv2 = stem

    def forward(self, image: Tensor) -> Tensor:
        """Map (1, 3, S, S) to (1, 64, S/4, S/4)."""
        embedded: Tensor = self.conv2(F.gelu(self.conv1(super().forward(image))))
        return embedded


class MBConvChannelsFirst(nn.Module):
    """TinyViT's MBConv: expand, depthwise, project."""

    def __init__(self, convolutions: Convolutions) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = convolutions

    def forward(self, x: Tensor) -> Tensor:
        """Map (1, C, H, W) to the same shape."""
        y = F.gelu(self.conv2(F.gelu(self.conv1(x))))
        return F.gelu(self.conv3(y) + x)


class PatchMergingChannelsFirst(nn.Module):
    """TinyViT's PatchMerging: expand, depthwise, project; the last one of MobileSAM has stride 1."""

    def __init__(self, convolutions: Convolutions) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = convolutions

    def forward(self, x: Tensor) -> Tensor:
        """Map (1, C, H, W) to (1, C', H/stride, W/stride)."""
        merged: Tensor = self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))
        return merged


class WindowAttentionChannelsFirst(nn.Module):
    """TinyViT's window attention, its relative position bias a constant.

    The map is padded to whole windows with zeros behind the affine-free LayerNorm: keys and values have no
    bias there, so a padded token counts exactly as in the official encoder (see rewrites/split_qkv.py).
    """

    attention_bias: Tensor

    def __init__(self, block: FoldedBlock) -> None:
        super().__init__()
        self.window, self.heads = block.window, block.heads
        channels = block.proj_weight.shape[0]
        self.width = channels // block.heads
        self.norm = ChannelLayerNorm(None, None, block.eps)
        self.qkv = pointwise(block.qkv_weight, torch.cat([block.query_bias, torch.zeros(2 * channels)]))
        self.proj = pointwise(block.proj_weight, block.proj_bias)
        self.register_buffer("attention_bias", block.attention_bias[None])

    def forward(self, x: Tensor) -> Tensor:
        """Map (1, C, H, W) to the same shape."""
        height, width = x.shape[-2:]
        below, right = -height % self.window, -width % self.window
        rows, columns = (height + below) // self.window, (width + right) // self.window
        pixels = self.window**2
        x = self.norm(x)
        if below or right:
            x = F.pad(x, (0, right, 0, below))
        x = F.pixel_unshuffle(self.qkv(x), self.window)  # (1, 3 * C * pixels, rows, columns)
        x = x.reshape(3 * self.heads, self.width, pixels, rows * columns).permute(3, 0, 1, 2)
        query, key, value = torch.split(x, self.heads, dim=1)  # (windows, heads, C / heads, pixels) each
        weights = torch.softmax(query.transpose(-1, -2) @ key + self.attention_bias, dim=-1)
        x = value @ weights.transpose(-1, -2)
        x = x.permute(1, 2, 3, 0).reshape(1, self.heads * self.width * pixels, rows, columns)
        x = F.pixel_shuffle(x, self.window)
        if below or right:
            x = x[:, :, :height, :width]
        projected: Tensor = self.proj(x)
        return projected


class TinyViTBlockChannelsFirst(nn.Module):
    """TinyViT's block: window attention, a depthwise convolution, an MLP."""

    def __init__(self, block: FoldedBlock) -> None:
        super().__init__()
        self.attn = WindowAttentionChannelsFirst(block)
        self.local_conv = block.local_conv
        self.norm = ChannelLayerNorm(None, None, block.eps)
        self.fc1 = pointwise(block.fc1_weight, block.fc1_bias)
        self.fc2 = pointwise(block.fc2_weight, block.fc2_bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (1, C, H, W) to the same shape."""
        x = self.local_conv(x + self.attn(x))
        mixed: Tensor = x + self.fc2(F.gelu(self.fc1(self.norm(x))))
        return mixed


class StageChannelsFirst(nn.Module):
    """One of TinyViT's stages of transformer blocks."""

    def __init__(self, downsample: Convolutions, blocks: tuple[FoldedBlock, ...]) -> None:
        super().__init__()
        self.downsample = PatchMergingChannelsFirst(downsample)
        self.blocks = nn.Sequential(*(TinyViTBlockChannelsFirst(block) for block in blocks))

    def forward(self, x: Tensor) -> Tensor:
        """Map (1, C, H, W) to (1, C', H/stride, W/stride)."""
        mixed: Tensor = self.blocks(self.downsample(x))
        return mixed


def neck_of(neck: SamNeck) -> nn.Sequential:
    """SAM's neck: (1, C, S/16, S/16) to the embedding."""
    conv1, norm1, conv2, norm2 = neck
    return nn.Sequential(
        pointwise(conv1.weight[:, :, 0, 0]),
        ChannelLayerNorm(norm1.weight, norm1.bias, norm1.eps),
        conv2,
        ChannelLayerNorm(norm2.weight, norm2.bias, norm2.eps),
    )


class ImageEncoderChannelsFirst(nn.Module):
    """Image to embedding.

    Args:
        sam: the reference, in eval mode; it stays as it is.
        eight_bit: images come as 8-bit pixels, padded with ``PAD_COLOUR_8BIT`` instead of the exact mean.

    Raises:
        ExportError: its backbone is not a TinyViT.
    """

    def __init__(self, sam: MobileSam, eight_bit: bool = False) -> None:
        super().__init__()
        encoder = fold_encoder(sam)
        self.image_size, self.eight_bit = encoder.image_size, eight_bit
        self.stem = StemChannelsFirst(encoder.stem, eight_bit)
        self.mbconvs = nn.Sequential(*(MBConvChannelsFirst(convolutions) for convolutions in encoder.mbconvs))
        self.stages = nn.Sequential(*map(StageChannelsFirst, encoder.mergings, encoder.stages))
        self.neck = neck_of(encoder.neck)
        self.eval()

    def forward(self, image: Tensor) -> Tensor:
        """Encode (1, 3, S, S) RGB pixels of 0 to 255, padded with the pad colour, as (1, 256, S/16, S/16)."""
        embeddings: Tensor = self.neck(self.stages(self.mbconvs(self.stem(image))))
        return embeddings
