"""The image encoder for LiteRT: channels-last, rank 4 throughout, the reference's weights.

LiteRT's convolutions are NHWC, and its GPU delegate takes tensors of at most four axes. The official
encoder goes through six axes to cut windows, which leaves 702 of its 752 operations on the CPU. Here a
window is cut by a reshape to (rows of windows, window, columns of windows, window * C) and one transpose.
Every linear layer is a 1x1 convolution, so that no reshape surrounds it.

In float32 long products are taken in two halves, see ``rewrites.halve_hidden``. Whole they are for other precisions:
with 8-bit weights it gained nothing, and a GPU has two sums more to do.
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mobilesam_export import contract
from mobilesam_export.rewrites.channels_last.encoder import TinyViTBlockChannelsLast, trunk_of
from mobilesam_export.rewrites.folded_encoder import FoldedBlock, fold_encoder
from mobilesam_export.targets.tflite.channels_last import ConvNhwc, neck_of, normalise
from reference.mobile_sam import MobileSam


class TinyViTBlockTflite(TinyViTBlockChannelsLast):
    """See ``TinyViTBlockChannelsLast``."""

    def __init__(self, block: FoldedBlock, halve: bool) -> None:
        norm = partial(normalise, eps=block.eps)
        super().__init__(block, ConvNhwc, norm, norm, halve)

    def split(self, x: Tensor) -> Tensor:
        """(windows, ws, ws, heads * d) to (windows, heads, ws * ws, d)."""
        return x.reshape(x.shape[0], self.window**2, self.heads, -1).transpose(1, 2)

    def add_bias(self, scores: Tensor) -> Tensor:
        """Add the relative position bias to (windows, heads, tokens, tokens) scores."""
        if scores.shape[0] > 1:
            return scores + self.attention_bias
        # With one window the bias has the scores' whole shape, and LiteRT's GPU accelerator (ai-edge-litert 2.3) fuses
        # such an addition into the product before it with wrong results. A reshape between the two prevents that.
        shape = (self.heads, self.window**2, 1, self.window**2)
        return (scores.reshape(shape) + self.attention_bias.reshape(shape)).reshape(scores.shape)

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


class PixelsTflite(nn.Module):
    """What both image encoders do with their pixels.

    Args:
        eight_bit: the image comes as uint8, padded with ``PAD_COLOUR_8BIT``. Whole numbers cannot hold the mean
            colour, so pixels of exactly that colour count as the mean: padding is exact again, and a pixel of the
            photo that happens to have that colour moves by at most 0.0082 of a standard deviation.
    """

    pixel_mean: Tensor
    pad_colour: Tensor

    def __init__(self, eight_bit: bool) -> None:
        super().__init__()
        self.eight_bit = eight_bit
        self.register_buffer("pad_colour", torch.tensor(contract.PAD_COLOUR_8BIT, dtype=torch.float32))
        self.register_buffer("pixel_mean", torch.tensor(contract.PIXEL_MEAN))

    def centred(self, image: Tensor) -> Tensor:
        """(1, S, S, 3) RGB of 0 to 255 minus the mean; the stems expect no more."""
        pixels = image.float()
        x = pixels - self.pixel_mean
        if self.eight_bit:
            levels_away = (pixels - self.pad_colour).abs().sum(-1, keepdim=True)  # whole numbers
            x = x * (1 - torch.relu(1 - levels_away))  # times 0 or 1
        return x


class ImageEncoderTflite(PixelsTflite):
    """Image to embedding, (1, S, S, 3) to (1, S/16, S/16, 256).

    Args:
        sam: the reference, in eval mode, with a TinyViT encoder; it stays as it is.
        eight_bit: see ``PixelsTflite``.
        halve: long products in two halves, for a CPU that computes in float32.

    Raises:
        ExportError: another backbone.
    """

    def __init__(self, sam: MobileSam, eight_bit: bool = False, halve: bool = True) -> None:
        super().__init__(eight_bit)
        encoder = fold_encoder(sam)
        block = partial(TinyViTBlockTflite, halve=halve)
        self.stem, self.mbconvs, self.stages = trunk_of(encoder, ConvNhwc, block, halve)
        self.neck = neck_of(encoder.neck)
        self.requires_grad_(False).eval()

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Encode an image.

        Args:
            image: (1, S, S, 3) RGB, 0 to 255, float32 or uint8, resized and padded by the host as the contract says.

        Returns:
            ``image_embeddings`` (1, S/16, S/16, 256).
        """
        return {"image_embeddings": self.neck(self.stages(self.mbconvs(self.stem(self.centred(image)))))}
