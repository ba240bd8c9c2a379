"""The image encoder shaped for ONNX Runtime's CPU kernels, with the reference's weights.

ONNX Runtime runs convolutions in a blocked layout of its own, where a convolution takes its bias and a residual
sum along; its matrix product does neither, and on AVX-512 reaches two thirds of the convolution's speed. So the map
stays (1, C, H, W), and the linear layers before and behind which no tokens are needed are 1x1 convolutions. Tokens
are there where a LayerNorm or an attention wants them: one transpose of the whole map, which the runtime fuses with
the change of layout that it has to do anyway. Windows and heads are sorted by one gather instead of by padding,
reshapes and transposes: into (window, head, token) order before an attention, and back behind it.

A convolution that is quantised leaves that layout and gains nothing; a linear layer gains. For 8 bits the blocks
therefore run on tokens, which become a map for the convolution in their middle only.
"""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mobilesam_export.contract import PIXEL_MEAN
from mobilesam_export.rewrites.folded_encoder import FoldedBlock, fold_encoder
from mobilesam_export.rewrites.linear import linear_with, token_norm
from mobilesam_export.rewrites.pointwise import pointwise
from reference.layer_norm_2d import LayerNorm2d
from reference.mobile_sam import MobileSam


class Convolutions(nn.Module):
    """Three convolutions with GELU between them: the body of an MBConv, or a merging.

    Args:
        convs: the folded convolutions.
    """

    def __init__(self, convs: tuple[nn.Conv2d, nn.Conv2d, nn.Conv2d]) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = convs

    def forward(self, x: Tensor) -> Tensor:
        """Map (1, C, H, W) to (1, C', H', W')."""
        output: Tensor = self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))
        return output


def window_order(grid: int, window: int, heads: int) -> tuple[Tensor, Tensor]:
    """Where a grid's tokens stand when they are sorted by attention windows and heads.

    Written into the file as they are, 1 MB of 28 at 1024: computed from smaller ones, OpenCV 4 does not take them.

    Args:
        grid: H and W of the token grid.
        window: side of a window; those at the right and bottom may reach beyond the grid.
        heads: of the attention.

    Returns:
        for each (window, head, token) its row among (H*W + 1, head) rows, the last of them for what is beyond the grid;
        and for each (H*W, head) its row among (window, head, token) rows.
    """
    per_side = -(-grid // window)
    side = torch.arange(per_side * window)
    token = side[:, None] * grid + side
    token[grid:] = token[:, grid:] = grid**2
    split = (per_side, window)
    tokens = token.unflatten(1, split).unflatten(0, split).transpose(1, 2).reshape(per_side**2, 1, window**2)
    into_windows = tokens * heads + torch.arange(heads)[:, None]
    of_window = (side // window)[:, None] * per_side + side // window
    within = (side % window)[:, None] * window + side % window
    first = (of_window * heads * window**2 + within)[:grid, :grid].reshape(-1, 1)  # row of a token's first head
    back = first + torch.arange(heads) * window**2
    return into_windows.flatten().int(), back.flatten().int()


class Block(nn.Module):
    """What both forms of a TinyViT block have in common.

    Args:
        block: its weights.
        grid: H and W, the side of the token grid.
        fused_attention: use ONNX's ``Attention`` operator (opset 23) instead of matmul and softmax.
        layer: makes the linear layers behind the attention, of a weight and a bias.
    """

    attention_bias: Tensor
    no_shift: Tensor

    def __init__(
        self, block: FoldedBlock, grid: int, fused_attention: bool, layer: Callable[[Tensor, Tensor], nn.Module]
    ) -> None:
        super().__init__()
        self.grid, self.window, self.heads = grid, block.window, block.heads
        self.eps = block.eps
        self.fused_attention = fused_attention
        query, key, value = block.qkv_weight.chunk(3)
        self.query, self.key, self.value = linear_with(query, block.query_bias), linear_with(key), linear_with(value)
        self.register_buffer("attention_bias", block.attention_bias[None])
        # ONNX Runtime 1.16 to 1.18 reads the bias of a LayerNormalization, there or not, and aborts where it is not.
        self.register_buffer("no_shift", torch.zeros(len(query)))
        self.proj = layer(block.proj_weight, block.proj_bias)
        self.local_conv = block.local_conv
        self.fc1 = layer(block.fc1_weight, block.fc1_bias)
        self.fc2 = layer(block.fc2_weight, block.fc2_bias)

    def _normalise(self, tokens: Tensor) -> Tensor:
        return F.layer_norm(tokens, self.no_shift.shape, bias=self.no_shift, eps=self.eps)

    def _attend(self, tokens: Tensor, into_windows: Tensor, back: Tensor) -> Tensor:
        """Attend within windows: (H*W, C) to the same; the scale is in the query already."""
        channels = tokens.shape[-1]
        if self.grid % self.window:
            # A row of zeros, whose key and value are zero too; OpenCV 4 misreads a Pad of rows and a shared constant.
            tokens = torch.cat([tokens, 0 * tokens[:1]])
        shape = (-1, self.heads, self.window**2, channels // self.heads)
        q, k, v = (
            layer(tokens).reshape(-1, shape[-1]).index_select(0, into_windows).reshape(shape)
            for layer in (self.query, self.key, self.value)
        )
        if self.fused_attention:
            attended = torch.onnx.ops.attention(q, k, v, self.attention_bias, scale=1.0)[0]
        else:
            attended = torch.softmax(q @ k.transpose(-2, -1) + self.attention_bias, dim=-1) @ v
        output: Tensor = attended.reshape(-1, shape[-1]).index_select(0, back).reshape(-1, channels)
        return output


class MapBlock(Block):
    """One TinyViT block on a (1, C, H, W) map, its linear layers as 1x1 convolutions."""

    def __init__(self, block: FoldedBlock, grid: int, fused_attention: bool) -> None:
        super().__init__(block, grid, fused_attention, pointwise)

    def forward(self, x: Tensor, into_windows: Tensor, back: Tensor) -> Tensor:
        """Map (1, C, H, W) to the same; the orders are ``window_order``'s."""
        attended = self._attend(self._normalise(to_tokens(x)), into_windows, back)
        x = self.local_conv(x + self.proj(to_map(attended, self.grid)))
        hidden = F.gelu(self.fc1(to_map(self._normalise(to_tokens(x)), self.grid)))
        output: Tensor = x + self.fc2(hidden)
        return output


class TokenBlock(Block):
    """One TinyViT block on (H*W, C) tokens, with linear layers, which the runtime can quantise on the fly."""

    def __init__(self, block: FoldedBlock, grid: int, fused_attention: bool) -> None:
        super().__init__(block, grid, fused_attention, linear_with)

    def forward(self, tokens: Tensor, into_windows: Tensor, back: Tensor) -> Tensor:
        """Map (H*W, C) to the same; the orders are ``window_order``'s."""
        tokens = tokens + self.proj(self._attend(self._normalise(tokens), into_windows, back))
        tokens = to_tokens(self.local_conv(to_map(tokens, self.grid)))
        output: Tensor = tokens + self.fc2(F.gelu(self.fc1(self._normalise(tokens))))
        return output


class Stage(nn.Module):
    """The blocks of one stage, which share their windows.

    Args:
        blocks: their weights.
        grid, fused_attention: see ``Block``.
        linear: ``TokenBlock`` instead of ``MapBlock``.
    """

    into_windows: Tensor
    back: Tensor

    def __init__(self, blocks: tuple[FoldedBlock, ...], grid: int, fused_attention: bool, linear: bool) -> None:
        super().__init__()
        into_windows, back = window_order(grid, blocks[0].window, blocks[0].heads)
        self.register_buffer("into_windows", into_windows)
        self.register_buffer("back", back)
        self.grid, self.linear = grid, linear
        form = TokenBlock if linear else MapBlock
        self.blocks = nn.ModuleList(form(block, grid, fused_attention) for block in blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Map (1, C, H, W) to the same."""
        x = to_tokens(x) if self.linear else x
        for block in self.blocks:
            x = block(x, self.into_windows, self.back)
        return to_map(x, self.grid) if self.linear else x


def to_tokens(x: Tensor) -> Tensor:
    """(1, C, H, W) to (H*W, C)."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])  # BCHW -> BHWC


def to_map(tokens: Tensor, grid: int) -> Tensor:
    """(H*W, C) to (1, C, H, W)."""
    return tokens.reshape(1, grid, grid, -1).permute(0, 3, 1, 2)  # BHWC -> BCHW


class ImageEncoderOnnx(nn.Module):
    """Pixels to embedding.

    Args:
        sam: the reference, in eval mode, with a TinyViT.
        fused_attention: see ``Block``.
        linear: see ``Stage``.
    """

    pixel_mean: Tensor

    def __init__(self, sam: MobileSam, fused_attention: bool = False, linear: bool = False) -> None:
        super().__init__()
        folded = fold_encoder(sam)
        self.register_buffer("pixel_mean", torch.tensor(PIXEL_MEAN).reshape(1, 3, 1, 1))
        self.stem = nn.Sequential(folded.stem[0], nn.GELU(), folded.stem[1])
        self.mbconvs = nn.ModuleList(Convolutions(convs) for convs in folded.mbconvs)
        self.mergings = nn.ModuleList(Convolutions(convs) for convs in folded.mergings)
        self.grid = folded.image_size // 16
        grids = (2 * self.grid, self.grid, self.grid)
        self.stages = nn.ModuleList(
            Stage(blocks, grid, fused_attention, linear) for blocks, grid in zip(folded.stages, grids, strict=True)
        )
        project, norm1, conv, norm2 = cast(tuple[nn.Conv2d, LayerNorm2d, nn.Conv2d, LayerNorm2d], tuple(folded.neck))
        self.neck_project = linear_with(project.weight[:, :, 0, 0])
        self.neck_conv = conv
        self.neck_norms = nn.ModuleList(token_norm(norm) for norm in (norm1, norm2))
        self.requires_grad_(False).eval()

    def forward(self, image: Tensor) -> Tensor:
        """Encode (1, 3, S, S) RGB of 0 to 255, padded with the pad colour, as (1, 256, S/16, S/16)."""
        x = self.stem(image - self.pixel_mean)
        for mbconv in self.mbconvs:
            x = F.gelu(x + mbconv(x))
        for merging, stage in zip(self.mergings, self.stages, strict=True):
            x = stage(merging(x))
        tokens = self.neck_norms[0](self.neck_project(to_tokens(x)))
        tokens = self.neck_norms[1](to_tokens(self.neck_conv(to_map(tokens, self.grid))))
        return to_map(tokens, self.grid)
