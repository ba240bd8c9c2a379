"""A ResNet's or HGNetV2's image encoder for ONNX Runtime's CPU kernels: its own blocked layout throughout."""

import torch
from torch import Tensor, nn

from mobilesam_export.contract import PIXEL_MEAN
from mobilesam_export.rewrites.conv_net import conv_net
from mobilesam_export.rewrites.folded_conv_net import fold_conv_net
from mobilesam_export.rewrites.layouts import ChannelsFirst
from mobilesam_export.targets.onnx.neck import MapNeck
from reference.mobile_sam import MobileSam


class OnnxLayout(ChannelsFirst):
    """``ChannelsFirst``, but zeros behind a map are joined to it where the greatest value is asked for.

    ONNX Runtime (1.31, ``PadFusion``) takes a padding with zeros into the ``MaxPool`` behind it, whose own padding is
    below all values. In front of a ResNet's map, behind a ReLU, that is the same; HGNetV2's may be negative.
    """

    def greatest(self, x: Tensor, side: int, stride: int = 1, before: int = 0, after: int = 0) -> Tensor:
        """See ``Layout``."""
        for axis in (2, 3) if after else ():
            zeros = x.new_zeros([after if at == axis else size for at, size in enumerate(x.shape)])
            x = torch.cat([x, zeros], axis)
        return super().greatest(x, side, stride, before)


class ConvNetEncoderOnnx(nn.Module):
    """Pixels to embedding.

    Args:
        sam: the reference, in eval mode, with an image encoder of convolutions.

    Raises:
        ExportError: another backbone.
    """

    pixel_mean: Tensor

    def __init__(self, sam: MobileSam) -> None:
        super().__init__()
        folded = fold_conv_net(sam)
        self.register_buffer("pixel_mean", torch.tensor(PIXEL_MEAN).reshape(1, 3, 1, 1))
        self.stem, self.stages, self.neck = conv_net(
            folded, OnnxLayout(), lambda neck: MapNeck(neck, folded.image_size // 16)
        )
        self.requires_grad_(False).eval()

    def forward(self, image: Tensor) -> Tensor:
        """Encode (1, 3, S, S) RGB of 0 to 255, padded with the pad colour, as (1, 256, S/16, S/16)."""
        embeddings: Tensor = self.neck(self.stages(self.stem(image - self.pixel_mean)))
        return embeddings
