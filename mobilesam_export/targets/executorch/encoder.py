"""The image encoder for ExecuTorch: channels-last, of XNNPACK's operators alone, so that all is one partition.

ExecuTorch's partitioner takes softmax over the last axis, batched products of three axes and reshapes; what the
official encoder has besides, LayerNorm first of all, leaves 311 of its operators outside and 55 islands inside. Every
linear layer is one here, on the last axis; windows are cut by a reshape to (rows of windows, window, columns of
windows, window * C) and one transpose.
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mobilesam_export import contract
from mobilesam_export.rewrites.channels_last.encoder import TinyViTBlockChannelsLast, trunk_of
from mobilesam_export.rewrites.folded_encoder import FoldedBlock, fold_encoder
from mobilesam_export.targets.executorch.layers import Normalise, convolution, neck_of
from reference.mobile_sam import MobileSam


class TinyViTBlockExecutorch(TinyViTBlockChannelsLast):
    """See ``TinyViTBlockChannelsLast``."""

    def __init__(self, block: FoldedBlock, halve: bool) -> None:
        channels = block.proj_weight.shape[0]
        norms = Normalise(channels, block.eps), Normalise(channels, block.eps)
        super().__init__(block, convolution, *norms, halve)

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
        block = partial(TinyViTBlockExecutorch, halve=halve)
        self.stem, self.mbconvs, self.stages = trunk_of(encoder, convolution, block, halve)
        self.neck = neck_of(encoder.neck)
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
