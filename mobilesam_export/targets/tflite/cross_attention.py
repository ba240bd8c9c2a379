"""SAM's cross-attentions for LiteRT: one prompt, rank 4 at most; the image is never projected.

See ``absorb_projections`` for how. Every pass over (HW, C) numbers counts here, so an image may come without the
constant ``missing`` (C,) that the LayerNorm before it would have added. What it does, exactly: to a score of
token to image it adds the same at every position, which the softmax cancels; a weighted mean of the image it moves
by itself, which the output bias takes; to a score of image to token it adds missing . k, a bias of the column.
"""

import torch
from torch import Tensor, nn

from mobilesam_export.rewrites.absorb_projections import absorb_image_to_token, absorb_token_to_image
from mobilesam_export.rewrites.linear import linear_with
from reference.two_way_transformer import Attention


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(1, T, heads * d) to (heads, T, d)."""
    return x.reshape(x.shape[1], heads, -1).transpose(0, 1)


class TokensToImage(nn.Module):
    """Token queries attend to the image, which is both keys and values.

    Args:
        attention: the reference's.
        missing: (C,) what the image lacks.
    """

    key_weight: Tensor
    value_weight: Tensor

    def __init__(self, attention: Attention, missing: Tensor) -> None:
        super().__init__()
        weights = absorb_token_to_image(attention)
        self.heads = attention.heads
        self.query = linear_with(weights.query_weight, weights.query_bias)
        self.register_buffer("key_weight", weights.key_weight.float())  # (heads, d, C)
        self.register_buffer("value_weight", weights.value_weight.float().contiguous())  # (heads, C, d)
        seen = (missing.double() @ weights.value_weight).flatten()
        self.out = linear_with(weights.out_weight, weights.out_bias + weights.out_weight @ seen)

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
    """Image queries attend to tokens; the answer comes with ``missing`` added.

    Args:
        attention: the reference's.
        missing: (C,) what the image lacks.
    """

    query_weight: Tensor
    query_bias: Tensor
    out_weight: Tensor
    out_bias: Tensor

    def __init__(self, attention: Attention, missing: Tensor) -> None:
        super().__init__()
        weights = absorb_image_to_token(attention)
        self.heads = attention.heads
        self.key = linear_with(weights.key_weight, weights.key_bias)
        self.value = linear_with(weights.value_weight, weights.value_bias)
        self.register_buffer("query_weight", weights.query_weight.float())  # (heads, d, C)
        query_bias = weights.query_bias + weights.query_weight @ missing.double()
        self.register_buffer("query_bias", query_bias.float()[:, :, None])  # (heads, d, 1)
        self.register_buffer("out_weight", weights.out_weight.float().contiguous())  # (heads, d, C)
        # A head's weights sum to one, so a part added to all its values is added to the answer.
        self.register_buffer("out_bias", ((weights.out_bias + missing.double()) / self.heads).float())

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
        # Before the reshape: behind it, LiteRT's GPU accelerator (ai-edge-litert 2.3) adds wrong numbers.
        scores = columns @ located.transpose(1, 2) + offset.reshape(1, self.heads * tokens, 1)
        scores = scores.reshape(1, self.heads, tokens, cells)
        # A softmax over the few tokens, with the cells in a row: three times as fast as one over rows of T numbers.
        powers = torch.exp(scores - scores.amax(2, keepdim=True))
        weights = (powers / powers.sum(2, keepdim=True)).reshape(1, self.heads * tokens, cells)
        v = split_heads(self.value(values), self.heads) @ self.out_weight + self.out_bias  # (heads, T, C)
        return weights.transpose(1, 2) @ v.reshape(1, self.heads * tokens, channels)
