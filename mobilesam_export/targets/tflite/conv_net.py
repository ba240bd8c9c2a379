"""A ResNet's or HGNetV2's image encoder for LiteRT: channels-last, rank 4 throughout."""

from torch import Tensor

from mobilesam_export.rewrites.conv_net import conv_net
from mobilesam_export.rewrites.folded_conv_net import fold_conv_net
from mobilesam_export.rewrites.layouts import ChannelsLast
from mobilesam_export.targets.tflite.channels_last import ConvNhwc, greatest, neck_of
from mobilesam_export.targets.tflite.encoder import PixelsTflite
from reference.mobile_sam import MobileSam


class ConvNetEncoderTflite(PixelsTflite):
    """Image to embedding, (1, S, S, 3) to (1, S/16, S/16, 256).

    Args:
        sam: the reference, in eval mode, with an image encoder of convolutions; it stays as it is.
        eight_bit: see ``PixelsTflite``.

    Raises:
        ExportError: another backbone.
    """

    def __init__(self, sam: MobileSam, eight_bit: bool = False) -> None:
        super().__init__(eight_bit)
        layout = ChannelsLast(ConvNhwc, greatest)
        self.stem, self.stages, self.neck = conv_net(fold_conv_net(sam), layout, neck_of)
        self.requires_grad_(False).eval()

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Encode an image; arguments and result as of ``ImageEncoderTflite``."""
        return {"image_embeddings": self.neck(self.stages(self.stem(self.centred(image))))}
