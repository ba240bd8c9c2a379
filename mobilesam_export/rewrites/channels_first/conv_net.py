"""A ResNet's or HGNetV2's image encoder for Apple's hardware: (1, C, H, W) from end to end, no transpose."""

from torch import Tensor, nn

from mobilesam_export.rewrites.channels_first.encoder import PixelsChannelsFirst, neck_of
from mobilesam_export.rewrites.conv_net import conv_net
from mobilesam_export.rewrites.folded_conv_net import FoldedConvNet, fold_conv_net
from mobilesam_export.rewrites.layouts import ChannelsFirst
from reference.mobile_sam import MobileSam


class ConvNetEncoderChannelsFirst(nn.Module):
    """Image to embedding.

    Args:
        sam: the reference, in eval mode, with an image encoder of convolutions; it stays as it is.
        eight_bit: images come as 8-bit pixels, padded with ``PAD_COLOUR_8BIT`` instead of the exact mean.

    Raises:
        ExportError: its backbone is another.
    """

    folded: FoldedConvNet

    def __init__(self, sam: MobileSam, eight_bit: bool = False) -> None:
        super().__init__()
        self.folded = fold_conv_net(sam)
        self.image_size, self.eight_bit = self.folded.image_size, eight_bit
        self.pixels = PixelsChannelsFirst(eight_bit)
        self.stem, self.stages, self.neck = conv_net(self.folded, ChannelsFirst(), neck_of)
        self.eval()

    def forward(self, image: Tensor) -> Tensor:
        """Encode (1, 3, S, S) RGB pixels of 0 to 255, padded with the pad colour, as (1, 256, S/16, S/16)."""
        embeddings: Tensor = self.neck(self.stages(self.stem(self.pixels(image))))
        return embeddings
