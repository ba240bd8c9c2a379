"""RepViT-SAM's image encoder for ExecuTorch: channels-last, of XNNPACK's operators alone; beside ``encoder``."""

import torch
from torch import Tensor, nn

from mobilesam_export import contract
from mobilesam_export.rewrites.folded_repvit import fold_repvit
from mobilesam_export.rewrites.repvit_stages import repvit_stages
from mobilesam_export.targets.executorch.layers import convolution, neck_of
from reference.mobile_sam import MobileSam


def mean_over_map(x: Tensor) -> Tensor:
    """The mean over the rows and columns of (1, H, W, C); XNNPACK's partitioner takes that of (1, C, H, W) alone."""
    return x.permute(0, 3, 1, 2).mean((2, 3), keepdim=True).permute(0, 2, 3, 1)  # BHWC -> BCHW -> BHWC


class RepVitEncoderExecutorch(nn.Module):
    """Image to embedding, (1, S, S, 3) to (1, S/16, S/16, 256).

    Args:
        sam: the reference, in eval mode, with a RepViT-SAM's encoder; it stays as it is.

    Raises:
        ExportError: another backbone.
    """

    pixel_mean: Tensor

    def __init__(self, sam: MobileSam) -> None:
        super().__init__()
        folded = fold_repvit(sam)
        self.register_buffer("pixel_mean", torch.tensor(contract.PIXEL_MEAN))
        conv1, conv2 = folded.stem
        self.stem = nn.Sequential(convolution(conv1), nn.GELU(), convolution(conv2))
        self.stages = repvit_stages(folded, layer=convolution, mean=mean_over_map)
        self.neck = neck_of(folded.neck)
        self.requires_grad_(False).eval()

    def forward(self, image: Tensor) -> Tensor:
        """Encode an image; argument and result as of ``ImageEncoderExecutorch``."""
        embeddings: Tensor = self.neck(self.stages(self.stem(image - self.pixel_mean)))
        return embeddings
