"""RepViT-SAM's image encoder for ONNX Runtime's CPU kernels: convolutions in the runtime's blocked layout throughout.

The mean over the map is a ``GlobalAveragePool``, which that layout has, and a reduction is not. The neck's norms are on
tokens, as in ``encoder``.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mobilesam_export.contract import PIXEL_MEAN
from mobilesam_export.rewrites.folded_repvit import fold_repvit
from mobilesam_export.rewrites.linear import token_norm
from mobilesam_export.rewrites.repvit_stages import repvit_stages
from mobilesam_export.targets.onnx.encoder import to_map, to_tokens
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
        self.grid = folded.image_size // 16
        self.neck_project, norm1, self.neck_conv, norm2 = folded.neck
        self.neck_norms = nn.ModuleList(token_norm(norm) for norm in (norm1, norm2))
        self.requires_grad_(False).eval()

    def forward(self, image: Tensor) -> Tensor:
        """Encode (1, 3, S, S) RGB of 0 to 255, padded with the pad colour, as (1, 256, S/16, S/16)."""
        x = self.neck_project(self.stages(self.stem(image - self.pixel_mean)))
        x = self.neck_conv(to_map(self.neck_norms[0](to_tokens(x)), self.grid))
        return to_map(self.neck_norms[1](to_tokens(x)), self.grid)
