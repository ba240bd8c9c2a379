"""SAM's two-way transformer (arXiv 2304.02643, appendix A; Apache-2.0): tokens and image attend to each other."""

import math

import torch
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head attention whose inner width may be smaller than the embedding.

    Args:
        embed_dim: width of queries, keys, values and output.
        heads: number of heads.
        downsample_rate: inner width is ``embed_dim // downsample_rate``.
    """

    def __init__(self, embed_dim: int, heads: int, downsample_rate: int = 1) -> None:
        super().__init__()
        inner = embed_dim // downsample_rate
        self.heads = heads
        self.q_proj = nn.Linear(embed_dim, inner)
        self.k_proj = nn.Linear(embed_dim, inner)
        self.v_proj = nn.Linear(embed_dim, inner)
        self.out_proj = nn.Linear(inner, embed_dim)

    def _split_heads(self, x: Tensor) -> Tensor:
        batch, count, channels = x.shape
        return x.reshape(batch, count, self.heads, channels // self.heads).transpose(1, 2)  # (B, heads, N, C/heads)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend (B, Nq, C) queries to (B, Nk, C) keys and values; returns (B, Nq, C)."""
        q = self._split_heads(self.q_proj(q))
        k = self._split_heads(self.k_proj(k))
        v = self._split_heads(self.v_proj(v))
        weights = torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1]), dim=-1)
        attended = (weights @ v).transpose(1, 2).flatten(2)
        output: Tensor = self.out_proj(attended)
        return output


class TransformerMLP(nn.Module):
    """Linear, ReLU, Linear."""

    def __init__(self, embed_dim: int, hidden: int) -> None:
        super().__init__()
        self.lin1 = nn.Linear(embed_dim, hidden)
        self.lin2 = nn.Linear(hidden, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to (..., C)."""
        output: Tensor = self.lin2(torch.relu(self.lin1(x)))
        return output


class TwoWayBlock(nn.Module):
    """Self-attention of tokens, tokens to image, MLP on tokens, image to tokens; post-norm throughout.

    Args:
        first: the first block's self-attention has neither positional encoding nor residual.
    """

    def __init__(self, embed_dim: int, heads: int, mlp_dim: int, first: bool) -> None:
        super().__init__()
        self.first = first
        self.self_attn = Attention(embed_dim, heads)
        self.norm1 = nn.LayerNorm(embed_dim)
        self.cross_attn_token_to_image = Attention(embed_dim, heads, downsample_rate=2)
        self.norm2 = nn.LayerNorm(embed_dim)
        self.mlp = TransformerMLP(embed_dim, mlp_dim)
        self.norm3 = nn.LayerNorm(embed_dim)
        self.norm4 = nn.LayerNorm(embed_dim)
        self.cross_attn_image_to_token = Attention(embed_dim, heads, downsample_rate=2)

    def forward(self, queries: Tensor, keys: Tensor, query_pe: Tensor, key_pe: Tensor) -> tuple[Tensor, Tensor]:
        """Update (B, T, C) token queries and (B, HW, C) image keys; encodings of the same shapes."""
        if self.first:
            queries = self.self_attn(queries, queries, queries)
        else:
            q = queries + query_pe
            queries = queries + self.self_attn(q, q, queries)
        queries = self.norm1(queries)
        queries = self.norm2(
            queries + self.cross_attn_token_to_image(queries + query_pe, keys + key_pe, keys),
        )
        queries = self.norm3(queries + self.mlp(queries))
        keys = self.norm4(
            keys + self.cross_attn_image_to_token(keys + key_pe, queries + query_pe, queries),
        )
        return queries, keys


class TwoWayTransformer(nn.Module):
    """Two-way blocks and a last attention of tokens to image."""

    def __init__(self, depth: int = 2, embed_dim: int = 256, heads: int = 8, mlp_dim: int = 2048) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TwoWayBlock(embed_dim, heads, mlp_dim, first=i == 0) for i in range(depth))
        self.final_attn_token_to_image = Attention(embed_dim, heads, downsample_rate=2)
        self.norm_final_attn = nn.LayerNorm(embed_dim)

    def forward(self, image: Tensor, image_pe: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Run tokens against an image.

        Args:
            image: (B, C, H, W) image plus dense prompt embeddings.
            image_pe: (B or 1, C, H, W).
            tokens: (B, T, C), which also serve as their own positional encoding.

        Returns:
            (B, T, C) tokens and (B, HW, C) image.
        """
        keys = image.flatten(2).transpose(1, 2)  # BCHW -> B HW C
        key_pe = image_pe.flatten(2).transpose(1, 2)
        queries = tokens
        for layer in self.layers:
            queries, keys = layer(queries, keys, tokens, key_pe)
        attended = self.final_attn_token_to_image(queries + tokens, keys + key_pe, keys)
        return self.norm_final_attn(queries + attended), keys
