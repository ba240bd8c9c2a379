"""SAM's cross-attentions for LiteRT: one prompt, rank 4 at most; the image is never projected.

See ``rewrites.absorb_projections`` for how.
"""

import torch
from torch import Tensor, nn

from mobilesam_export.rewrites.absorb_projections import ImageToToken, TokenToImage
from mobilesam_export.rewrites.linear import linear_with


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(1, T, heads * d) to (heads, T, d)."""
    return x.reshape(x.shape[1], heads, -1).transpose(0, 1)


class TokenToImageTflite(nn.Module):
    """Token queries attend to the image, which is both keys and values."""

    key_weight: Tensor
    value_weight: Tensor

    def __init__(self, folded: TokenToImage) -> None:
        super().__init__()
        self.heads = folded.heads
        self.q_proj = linear_with(folded.query_weight, folded.query_bias)
        self.register_buffer("key_weight", folded.key_weight.float())  # (heads, d, C)
        self.register_buffer("value_weight", folded.value_weight.float().contiguous())  # (heads, C, d)
        self.out_proj = linear_with(folded.out_weight, folded.out_bias)

    def forward(self, tokens_with_pe: Tensor, image_with_pe: Tensor, image: Tensor) -> Tensor:
        """Attend (1, T, C) tokens to (1, HW, C) image positions; returns (1, T, C)."""
        tokens, channels = tokens_with_pe.shape[1:]
        q = split_heads(self.q_proj(tokens_with_pe), self.heads) @ self.key_weight  # (heads, T, C)
        weights = torch.softmax(q.reshape(1, self.heads * tokens, channels) @ image_with_pe.transpose(1, 2), dim=-1)
        seen = (weights @ image).reshape(self.heads, tokens, channels) @ self.value_weight  # (heads, T, d)
        attended: Tensor = self.out_proj(seen.transpose(0, 1).reshape(1, tokens, -1))
        return attended


class ImageToTokenTflite(nn.Module):
    """Image queries attend to tokens."""

    query_weight: Tensor
    query_bias: Tensor
    out_weight: Tensor
    out_bias: Tensor

    def __init__(self, folded: ImageToToken) -> None:
        super().__init__()
        self.heads = folded.heads
        self.k_proj = linear_with(folded.key_weight, folded.key_bias)
        self.v_proj = linear_with(folded.value_weight, folded.value_bias)
        self.register_buffer("query_weight", folded.query_weight.float())  # (heads, d, C)
        self.register_buffer("query_bias", folded.query_bias.float()[:, :, None])  # (heads, d, 1)
        self.register_buffer("out_weight", folded.out_weight.float().contiguous())  # (heads, d, C)
        # A head's weights sum to one, so a part added to all its values is added to the answer.
        self.register_buffer("out_bias", (folded.out_bias / self.heads).float())

    def forward(self, image_with_pe: Tensor, tokens_with_pe: Tensor, tokens: Tensor, absent: Tensor) -> Tensor:
        """Attend (1, HW, C) image positions to (1, T, C) tokens; ``absent`` (1, T). Returns (1, HW, C)."""
        cells, (count, channels) = image_with_pe.shape[1], tokens.shape[1:]
        k = split_heads(self.k_proj(tokens_with_pe), self.heads)  # (heads, T, d)
        columns = (k @ self.query_weight).reshape(1, self.heads * count, channels)
        offset = (k @ self.query_bias).reshape(1, self.heads, count) + absent[:, None]
        # Before the reshape: behind it, LiteRT's GPU accelerator (ai-edge-litert 2.3) adds wrong numbers.
        scores = columns @ image_with_pe.transpose(1, 2) + offset.reshape(1, self.heads * count, 1)
        scores = scores.reshape(1, self.heads, count, cells)
        # A softmax over the few tokens, with the cells in a row: three times as fast as one over rows of T numbers.
        powers = torch.exp(scores - scores.amax(2, keepdim=True))
        weights = (powers / powers.sum(2, keepdim=True)).reshape(1, self.heads * count, cells)
        v = split_heads(self.v_proj(tokens), self.heads) @ self.out_weight + self.out_bias  # (heads, T, C)
        return weights.transpose(1, 2) @ v.reshape(1, self.heads * count, channels)
