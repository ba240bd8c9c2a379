"""A ResNet's or HGNetV2's image encoder for ExecuTorch: channels-last, of XNNPACK's operators alone."""

import torch
from torch import Tensor, nn

from mobilesam_export import contract
from mobilesam_export.rewrites.conv_net import conv_net
from mobilesam_export.rewrites.folded_conv_net import fold_conv_net
from mobilesam_export.rewrites.layouts import ChannelsLast
from mobilesam_export.targets.executorch.layers import convolution, greatest, neck_of
from reference.mobile_sam import MobileSam


class ConvNetEncoderExecutorch(nn.Module):
    """Image to embedding, (1, S, S, 3) to (1, S/16, S/16, 256).

    Args:
        sam: the reference, in eval mode, with an image encoder of convolutions; it stays as it is.

    Raises:
        ExportError: another backbone.
    """

    pixel_mean: Tensor

    def __init__(self, sam: MobileSam) -> None:
        super().__init__()
        self.register_buffer("pixel_mean", torch.tensor(contract.PIXEL_MEAN))
        layout = ChannelsLast(convolution, greatest)
        self.stem, self.stages, self.neck = conv_net(fold_conv_net(sam), layout, neck_of)
        self.requires_grad_(False).eval()

    def forward(self, image: Tensor) -> Tensor:
        """Encode an image; argument and result as of ``ImageEncoderExecutorch``."""
        embeddings: Tensor = self.neck(self.stages(self.stem(image - self.pixel_mean)))
        return embeddings
