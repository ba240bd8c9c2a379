"""RepViT-SAM's image encoder for ONNX Runtime's CPU kernels: convolutions in the runtime's blocked layout throughout.

The mean over the map is a ``GlobalAveragePool``, which that layout has, and a reduction is not.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mobilesam_export.contract import PIXEL_MEAN
from mobilesam_export.rewrites.folded_repvit import fold_repvit
from mobilesam_export.rewrites.repvit_stages import repvit_stages
from mobilesam_export.targets.onnx.neck import MapNeck
from reference.mobile_sam import MobileSam


class RepVitEncoderOnnx(nn.Module):
    """Pixels to embedding.

    Args:
        sam: the reference, in eval mode, with a RepViT-SAM's encoder.
    """

    pixel_mean: Tensor

    def __init__(self, sam: MobileSam) -> None:
        super().__init__()
        folded = fold_repvit(sam)
        self.register_buffer("pixel_mean", torch.tensor(PIXEL_MEAN).reshape(1, 3, 1, 1))
        self.stem = nn.Sequential(folded.stem[0], nn.GELU(), folded.stem[1])
        self.stages = repvit_stages(folded, layer=lambda conv: conv, mean=lambda x: F.adaptive_avg_pool2d(x, 1))
        self.neck = MapNeck(folded.neck, folded.image_size // 16)
        self.requires_grad_(False).eval()

    def forward(self, image: Tensor) -> Tensor:
        """Encode (1, 3, S, S) RGB of 0 to 255, padded with the pad colour, as (1, 256, S/16, S/16)."""
        embeddings: Tensor = self.neck(self.stages(self.stem(image - self.pixel_mean)))
        return embeddings
