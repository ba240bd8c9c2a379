"""SAM's cross-attentions for ExecuTorch: one prompt, three axes; the image is never projected.

See ``rewrites.absorb_projections`` for how. XNNPACK's batched product reads both sides as they lie, and packs the
second. So the image is the first wherever it can be: scores are (HW, heads * T), and only they are transposed.
"""

import torch
from torch import Tensor, nn

from mobilesam_export.rewrites.absorb_projections import ImageToToken, TokenToImage
from mobilesam_export.rewrites.linear import linear_with


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(1, T, heads * d) to (heads, T, d)."""
    return x.reshape(x.shape[1], heads, -1).permute(1, 0, 2)


class TokenToImageExecutorch(nn.Module):
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
        q = torch.bmm(split_heads(self.q_proj(tokens_with_pe), self.heads), self.key_weight)  # (heads, T, C)
        q = q.reshape(1, self.heads * tokens, channels).permute(0, 2, 1)
        scores = torch.bmm(image_with_pe, q).permute(0, 2, 1)  # (1, heads * T, HW)
        seen = torch.bmm(torch.softmax(scores, dim=-1), image).reshape(self.heads, tokens, channels)
        seen = torch.bmm(seen, self.value_weight).permute(1, 0, 2)  # (T, heads, d)
        attended: Tensor = self.out_proj(seen.reshape(1, tokens, -1))
        return attended


class ImageToTokenExecutorch(nn.Module):
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
        columns = torch.bmm(k, self.query_weight).reshape(1, self.heads * count, channels).permute(0, 2, 1)
        offset = torch.bmm(k, self.query_bias).reshape(self.heads, count) + absent
        scores = torch.bmm(image_with_pe, columns) + offset.reshape(1, 1, self.heads * count)
        weights = torch.softmax(scores.reshape(1, cells * self.heads, count), dim=-1)
        v = torch.bmm(split_heads(self.v_proj(tokens), self.heads), self.out_weight) + self.out_bias  # (heads, T, C)
        return torch.bmm(weights.reshape(1, cells, self.heads * count), v.reshape(1, self.heads * count, channels))
