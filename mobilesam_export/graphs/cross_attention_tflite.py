"""SAM's cross-attentions for LiteRT: one prompt, rank 3; the image is never projected, see ``absorb_projections``."""

import torch
from torch import Tensor, nn

from mobilesam_export.graphs.linear import linear_with
from mobilesam_export.graphs.rewrites.absorb_projections import absorb_image_to_token, absorb_token_to_image
from reference.two_way_transformer import Attention


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(1, T, heads * d) to (heads, T, d)."""
    return x.reshape(x.shape[1], heads, -1).transpose(0, 1)


class TokensToImage(nn.Module):
    """Token queries attend to the image, which is both keys and values."""

    key_weight: Tensor
    value_weight: Tensor

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        weights = absorb_token_to_image(attention)
        self.heads = attention.heads
        self.query = linear_with(weights.query_weight, weights.query_bias)
        self.register_buffer("key_weight", weights.key_weight.float())  # (heads, d, C)
        self.register_buffer("value_weight", weights.value_weight.float().contiguous())  # (heads, C, d)
        self.out = linear_with(weights.out_weight, weights.out_bias)

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
        q = split_heads(self.query(queries), self.heads) @ self.key_weight  # (heads, T, C)
        weights = torch.softmax(q.reshape(1, self.heads * tokens, channels) @ located.transpose(1, 2), dim=-1)
        seen = (weights @ image).reshape(self.heads, tokens, channels) @ self.value_weight  # (heads, T, d)
        attended: Tensor = self.out(seen.transpose(0, 1).reshape(1, tokens, -1))
        return attended


class ImageToTokens(nn.Module):
    """Image queries attend to tokens."""

    query_weight: Tensor
    query_bias: Tensor
    out_weight: Tensor
    out_bias: Tensor

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        weights = absorb_image_to_token(attention)
        self.heads = attention.heads
        self.key = linear_with(weights.key_weight, weights.key_bias)
        self.value = linear_with(weights.value_weight, weights.value_bias)
        self.register_buffer("query_weight", weights.query_weight.float())  # (heads, d, C)
        self.register_buffer("query_bias", weights.query_bias.float()[:, :, None])  # (heads, d, 1)
        self.register_buffer("out_weight", weights.out_weight.float().contiguous())  # (heads, d, C)
        self.register_buffer("out_bias", weights.out_bias.float())

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
        k = split_heads(self.key(keys), self.heads)  # (heads, T, d)
        columns = (k @ self.query_weight).reshape(1, self.heads * tokens, channels)
        offset = (k @ self.query_bias).reshape(1, self.heads, tokens) + mask[:, None]
        scores = located @ columns.transpose(1, 2) + offset.reshape(1, 1, self.heads * tokens)
        weights = torch.softmax(scores.reshape(1, cells, self.heads, tokens), dim=-1)
        v = split_heads(self.value(values), self.heads) @ self.out_weight  # (heads, T, C)
        return weights.reshape(1, cells, -1) @ v.reshape(1, self.heads * tokens, channels) + self.out_bias
