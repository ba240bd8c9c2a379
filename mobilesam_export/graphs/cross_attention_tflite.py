"""SAM's cross attentions without projecting the image: every weight acts on the T tokens' side.

What: softmax((q Wq)(k Wk)^T) v Wv Wo is regrouped so that the (HW, 256) image enters each attention
only as the factor of two products with (heads * T, 256) matrices.
When: T = 5 + N small against 4096 cells; up to about 12 points it costs less than projecting.
Exact: the key bias adds the same number to a whole softmax row and cancels; attention weights sum to
one, so the value bias can be added after them.
"""

import math

import torch
from torch import Tensor, nn

from reference.two_way_transformer import Attention


def heads_of(linear: nn.Linear, heads: int) -> Tensor:
    """A projection's (heads, d, in) weight."""
    return linear.weight.detach().unflatten(0, (heads, -1))


def split(x: Tensor, heads: int) -> Tensor:
    """(1, T, heads * d) to (heads, T, d)."""
    return x.reshape(x.shape[1], heads, -1).transpose(0, 1)


class TokensToImage(nn.Module):
    """Token queries attend to image keys and values."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.heads = attention.heads
        scale = 1 / math.sqrt(attention.q_proj.out_features // self.heads)
        self.query, self.out = attention.q_proj, nn.Linear(attention.out_proj.in_features, attention.out_proj.out_features)
        self.register_buffer("key_weight", heads_of(attention.k_proj, self.heads) * scale)  # (heads, d, C)
        self.register_buffer("value_weight", heads_of(attention.v_proj, self.heads).transpose(1, 2).contiguous())  # (heads, C, d)
        with torch.no_grad():
            self.out.weight.copy_(attention.out_proj.weight)
            self.out.bias.copy_(attention.out_proj(attention.v_proj.bias))

    def forward(self, queries: Tensor, located: Tensor, image: Tensor) -> Tensor:
        """Attend.

        Args:
            queries: (1, T, C) tokens with their encoding.
            located: (1, HW, C) image with its encoding, the keys.
            image: (1, HW, C), the values.

        Returns:
            (1, T, C).
        """
        tokens, channels = queries.shape[1:]
        q = split(self.query(queries), self.heads) @ self.key_weight  # (heads, T, C)
        weights = torch.softmax(q.reshape(1, self.heads * tokens, channels) @ located.transpose(1, 2), dim=-1)
        seen = (weights @ image).reshape(self.heads, tokens, channels) @ self.value_weight  # (heads, T, d)
        attended: Tensor = self.out(seen.transpose(0, 1).reshape(1, tokens, -1))
        return attended


class ImageToTokens(nn.Module):
    """Image queries attend to token keys and values."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.heads = attention.heads
        scale = 1 / math.sqrt(attention.q_proj.out_features // self.heads)
        self.key, self.value = attention.k_proj, attention.v_proj
        self.register_buffer("query_weight", heads_of(attention.q_proj, self.heads) * scale)  # (heads, d, C)
        bias = attention.q_proj.bias.detach().reshape(self.heads, -1, 1) * scale
        self.register_buffer("query_bias", bias)  # (heads, d, 1)
        out = attention.out_proj.weight.detach().unflatten(1, (self.heads, -1)).permute(1, 2, 0)
        self.register_buffer("out_weight", out.contiguous())  # (heads, d, C)
        self.register_buffer("out_bias", attention.out_proj.bias.detach().clone())

    def forward(self, located: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """Attend.

        Args:
            located: (1, HW, C) image with its encoding, the queries.
            keys: (1, T, C) tokens with their encoding.
            values: (1, T, C) tokens.
            mask: (1, T), very negative for absent tokens.

        Returns:
            (1, HW, C).
        """
        cells, tokens, channels = located.shape[1], keys.shape[1], keys.shape[2]
        k = split(self.key(keys), self.heads)  # (heads, T, d)
        columns = (k @ self.query_weight).reshape(1, self.heads * tokens, channels)
        offset = (k @ self.query_bias).reshape(1, self.heads, tokens) + mask[:, None]
        scores = located @ columns.transpose(1, 2) + offset.reshape(1, 1, self.heads * tokens)
        weights = torch.softmax(scores.reshape(1, cells, self.heads, tokens), dim=-1)
        v = split(self.value(values), self.heads) @ self.out_weight  # (heads, T, C)
        return weights.reshape(1, cells, -1) @ v.reshape(1, self.heads * tokens, channels) + self.out_bias
