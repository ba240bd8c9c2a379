"""The image's positional encoding from tables of rows and of columns, instead of a constant of the image's size.

Each channel is a sine or cosine of a row angle plus a column angle, so it is a sum of two products, exact in float32:
sin(r + c) = sin r cos c + cos r sin c and cos(r + c) = cos r cos c - sin r sin c. At 1024 the four tables take 0.13 MB
and the encoding 2.1 MB in float16.
"""

import math

import torch
from torch import Tensor, nn

from mobilesam_export.rewrites.folded_decoder import FoldedDecoder

OPERATOR_NAME = "mobilesam_export::unfolded"


@torch.library.custom_op(OPERATOR_NAME, mutates_args=())
def unfolded(x: Tensor) -> Tensor:
    """``x`` itself. A target may map it to something that its converter cannot compute beforehand.

    Without it the tables would be multiplied out at conversion, and the large constant stored after all.
    """
    return x.clone()


@unfolded.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


class ImagePositions(nn.Module):
    """SAM's dense positional encoding; targets compute it in float32 and round once."""

    row_sines: Tensor
    row_cosines: Tensor
    column_sines: Tensor
    column_cosines: Tensor

    def __init__(self, folded: FoldedDecoder) -> None:
        super().__init__()
        grid = folded.grid
        gaussian = folded.gaussian.double() * (2 * math.pi)  # (2, C/2)
        centres = 2 * (torch.arange(grid, dtype=torch.float64) + 0.5) / grid - 1
        for name, frequencies, shape in (
            ("column", gaussian[0], (1, -1, 1, grid)),
            ("row", gaussian[1], (1, -1, grid, 1)),
        ):
            angles = frequencies[:, None] * centres
            self.register_buffer(f"{name}_sines", angles.sin().float().reshape(shape))
            self.register_buffer(f"{name}_cosines", angles.cos().float().reshape(shape))

    def forward(self) -> Tensor:
        """Give (1, C, H, W)."""
        row_sines, row_cosines = unfolded(self.row_sines), unfolded(self.row_cosines)
        sines = row_sines * self.column_cosines + row_cosines * self.column_sines
        cosines = row_cosines * self.column_cosines - row_sines * self.column_sines
        return torch.cat([sines, cosines], dim=1)
