"""RepViT-SAM's image encoder for Apple's hardware: (1, C, H, W) from end to end, no transpose."""

from torch import Tensor, nn

from mobilesam_export.rewrites.channels_first.encoder import StemChannelsFirst, neck_of
from mobilesam_export.rewrites.folded_repvit import FoldedRepVit, fold_repvit
from mobilesam_export.rewrites.repvit_stages import repvit_stages
from reference.mobile_sam import MobileSam


def mean_over_map(x: Tensor) -> Tensor:
    """The mean over H and W, one after the other.

    At once it is a sum over up to 65,536 values, which leaves float16's range where their mean is above 1. A sum over a
    row of at most 256 does so where it is above 255.
    """
    return x.mean(3, keepdim=True).mean(2, keepdim=True)


class RepVitEncoderChannelsFirst(nn.Module):
    """Image to embedding.

    Args:
        sam: the reference, in eval mode, with a RepViT-SAM's encoder; it stays as it is.
        eight_bit: images come as 8-bit pixels, padded with ``PAD_COLOUR_8BIT`` instead of the exact mean.

    Raises:
        ExportError: its backbone is another.
    """

    folded: FoldedRepVit

    def __init__(self, sam: MobileSam, eight_bit: bool = False) -> None:
        super().__init__()
        self.folded = fold_repvit(sam)
        self.image_size, self.eight_bit = self.folded.image_size, eight_bit
        self.stem = StemChannelsFirst(self.folded.stem, eight_bit)
        self.stages = repvit_stages(self.folded, layer=lambda conv: conv, mean=mean_over_map)
        self.neck = neck_of(self.folded.neck)
        self.eval()

    def forward(self, image: Tensor) -> Tensor:
        """Encode (1, 3, S, S) RGB pixels of 0 to 255, padded with the pad colour, as (1, 256, S/16, S/16)."""
        embeddings: Tensor = self.neck(self.stages(self.stem(image)))
        return embeddings
