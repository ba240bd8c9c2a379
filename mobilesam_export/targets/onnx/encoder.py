"""The image encoder shaped for ONNX Runtime's CPU kernels, with the reference's weights.

ONNX Runtime runs convolutions in a blocked NCHW layout and keeps it as long as everything between two
convolutions is elementwise: so the stem, the MBConvs and the mergings stay NCHW with plain ``Gelu``.
Everywhere else tokens are 2-D, (H*W, C), and every linear layer is one Gemm: on 3-D tensors the runtime
would fuse the residual sums into its slow SkipLayerNormalization.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mobilesam_export.contract import PIXEL_MEAN
from mobilesam_export.rewrites.folded_encoder import FoldedBlock, fold_encoder
from mobilesam_export.rewrites.linear import linear_with, token_norm
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


class TokenBlock(nn.Module):
    """One TinyViT block on (H*W, C) tokens.

    Args:
        block: its weights.
        grid: H and W, the side of the token grid.
        fused_attention: use ONNX's ``Attention`` operator (opset 23) instead of matmul and softmax.
    """

    attention_bias: Tensor

    def __init__(self, block: FoldedBlock, grid: int, fused_attention: bool) -> None:
        super().__init__()
        self.grid = grid
        self.heads = block.heads
        self.window = block.window
        self.windows = -(-grid // block.window)  # per side
        self.eps = block.eps
        self.fused_attention = fused_attention
        no_bias = torch.zeros_like(block.query_bias)
        self.qkv = linear_with(block.qkv_weight, torch.cat([block.query_bias, no_bias, no_bias]))
        self.register_buffer("attention_bias", block.attention_bias[None])
        self.proj = linear_with(block.proj_weight, block.proj_bias)
        self.local_conv = block.local_conv
        self.fc1 = linear_with(block.fc1_weight, block.fc1_bias)
        self.fc2 = linear_with(block.fc2_weight, block.fc2_bias)

    def _normalise(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, (x.shape[-1],), eps=self.eps)

    def _to_windows(self, x: Tensor) -> Tensor:
        """(H*W, C) to (windows, tokens of a window, C), padded with zeros at the right and bottom; rank 4 at most."""
        channels, side = x.shape[-1], self.window
        margin = self.windows * side - self.grid
        x = x.reshape(self.grid, self.grid, channels)
        if margin:
            x = F.pad(x, (0, 0, 0, margin, 0, margin))
        x = x.reshape(self.windows, side, self.windows, side * channels).transpose(1, 2)
        return x.reshape(self.windows**2, side * side, channels)

    def _from_windows(self, x: Tensor) -> Tensor:
        channels, side = x.shape[-1], self.window
        padded = self.windows * side
        x = x.reshape(self.windows, self.windows, side, side * channels).transpose(1, 2)
        x = x.reshape(padded, padded, channels)
        if padded > self.grid:
            x = x[: self.grid, : self.grid]
        return x.reshape(self.grid**2, channels)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend within windows: (windows, tokens, C) each; the scale is in q already."""
        if self.fused_attention:
            attended: Tensor = torch.onnx.ops.attention(
                q, k, v, self.attention_bias, q_num_heads=self.heads, kv_num_heads=self.heads, scale=1.0
            )[0]
            return attended
        q, k, v = (x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2) for x in (q, k, v))
        weights = torch.softmax(q @ k.transpose(-2, -1) + self.attention_bias, dim=-1)
        return (weights @ v).transpose(1, 2).flatten(2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (H*W, C) to the same."""
        q, k, v = self._to_windows(self.qkv(self._normalise(x))).chunk(3, dim=-1)
        x = x + self.proj(self._from_windows(self._attend(q, k, v)))
        image = x.T.reshape(1, -1, self.grid, self.grid)
        x = self.local_conv(image).reshape(-1, self.grid**2).T
        hidden: Tensor = self.fc2(F.gelu(self.fc1(self._normalise(x))))
        return x + hidden


class ImageEncoderOnnx(nn.Module):
    """Pixels to embedding.

    Args:
        sam: the reference, in eval mode, with a TinyViT.
        fused_attention: see ``TokenBlock``; off for runtimes before opset 23.
    """

    pixel_mean: Tensor

    def __init__(self, sam: MobileSam, fused_attention: bool = True) -> None:
        super().__init__()
        folded = fold_encoder(sam)
        self.register_buffer("pixel_mean", torch.tensor(PIXEL_MEAN).reshape(1, 3, 1, 1))
        self.stem = nn.Sequential(folded.stem[0], nn.GELU(), folded.stem[1])
        self.mbconvs = nn.ModuleList(Convolutions(convs) for convs in folded.mbconvs)
        self.mergings = nn.ModuleList(Convolutions(convs) for convs in folded.mergings)
        grids = (folded.image_size // 8, folded.image_size // 16, folded.image_size // 16)
        self.stages = nn.ModuleList(
            nn.Sequential(*(TokenBlock(block, grid, fused_attention) for block in blocks))
            for blocks, grid in zip(folded.stages, grids, strict=True)
        )
        self.grids = grids
        project, norm1, conv, norm2 = cast(tuple[nn.Conv2d, LayerNorm2d, nn.Conv2d, LayerNorm2d], tuple(folded.neck))
        self.neck_project = linear_with(project.weight[:, :, 0, 0], None)
        self.neck_conv = conv
        self.neck_norms = nn.ModuleList(token_norm(norm) for norm in (norm1, norm2))
        self.requires_grad_(False).eval()

    def forward(self, image: Tensor) -> Tensor:
        """Encode (1, 3, S, S) RGB of 0 to 255, padded with the pad colour, as (1, 256, S/16, S/16)."""
        x = self.stem(image - self.pixel_mean)
        for mbconv in self.mbconvs:
            x = F.gelu(x + mbconv(x))
        for merging, stage, grid in zip(self.mergings, self.stages, self.grids, strict=True):
            x = merging(x)
            tokens = stage(x.reshape(x.shape[1], -1).T)
            x = tokens.T.reshape(1, -1, grid, grid)
        tokens = self.neck_norms[0](self.neck_project(tokens))
        x = self.neck_conv(tokens.T.reshape(1, -1, grid, grid))
        tokens = self.neck_norms[1](x.reshape(x.shape[1], -1).T)
        embeddings: Tensor = tokens.T.reshape(1, -1, grid, grid)
        return embeddings
