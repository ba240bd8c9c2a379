"""SAM's neck on a map: convolutions in ONNX Runtime's blocked layout, norms on tokens, as in ``encoder``."""

from torch import Tensor, nn

from mobilesam_export.rewrites.linear import token_norm
from mobilesam_export.rewrites.sam_neck import SamNeck
from mobilesam_export.targets.onnx.encoder import to_map, to_tokens


class MapNeck(nn.Module):
    """SAM's neck.

    Args:
        neck: its two convolutions, a norm behind each.
        grid: H and W of the map.
    """

    def __init__(self, neck: SamNeck, grid: int) -> None:
        super().__init__()
        self.project, norm1, self.conv, norm2 = neck
        self.norms = nn.ModuleList(token_norm(norm) for norm in (norm1, norm2))
        self.grid = grid

    def forward(self, x: Tensor) -> Tensor:
        """Map (1, C, H, W) to (1, 256, H, W)."""
        x = self.conv(to_map(self.norms[0](to_tokens(self.project(x))), self.grid))
        return to_map(self.norms[1](to_tokens(x)), self.grid)
