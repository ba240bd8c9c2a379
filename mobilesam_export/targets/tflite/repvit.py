"""RepViT-SAM's image encoder for LiteRT: channels-last, rank 4 throughout."""

from torch import Tensor, nn

from mobilesam_export.rewrites.folded_repvit import fold_repvit
from mobilesam_export.rewrites.repvit_stages import repvit_stages
from mobilesam_export.targets.tflite.channels_last import ConvNhwc, neck_of
from mobilesam_export.targets.tflite.encoder import PixelsTflite
from reference.mobile_sam import MobileSam


def mean_over_map(x: Tensor) -> Tensor:
    """The mean over the rows and columns of (1, H, W, C)."""
    return x.mean((1, 2), keepdim=True)


class RepVitEncoderTflite(PixelsTflite):
    """Image to embedding, (1, S, S, 3) to (1, S/16, S/16, 256).

    Args:
        sam: the reference, in eval mode, with a RepViT-SAM's encoder; it stays as it is.
        eight_bit: see ``PixelsTflite``.

    Raises:
        ExportError: another backbone.
    """

    def __init__(self, sam: MobileSam, eight_bit: bool = False) -> None:
        super().__init__(eight_bit)
        folded = fold_repvit(sam)
        conv1, conv2 = folded.stem
        self.stem = nn.Sequential(ConvNhwc(conv1), nn.GELU(), ConvNhwc(conv2))
        self.stages = repvit_stages(folded, layer=ConvNhwc, mean=mean_over_map)
        self.neck = neck_of(folded.neck)
        self.requires_grad_(False).eval()

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Encode an image; arguments and result as of ``ImageEncoderTflite``."""
        return {"image_embeddings": self.neck(self.stages(self.stem(self.centred(image))))}
