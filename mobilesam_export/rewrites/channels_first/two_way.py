"""SAM's two-way transformer, channels first, on (1, C, 1, T) tokens and a (1, 1, C, HW) image.

In this layout linear layers on tokens are 1x1 convolutions, and heads are split and joined by reshapes alone: not one
transpose remains once the converter has turned those before a product into its flags. The image is never projected
(``rewrites.absorb_projections``). Absent slots are masked out of every attention that reads tokens.

Where attention compares positions, a token's position must not be rounded to float16 before it is projected: a
projection may amplify exactly the small differences between neighbouring positions. So tokens carry their position as
a coarse and a fine part, each a float16 number, and the parts are projected apart and then added. Key biases add the
same to every score of a query and cancel in the softmax; left out, they cannot round either.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from mobilesam_export.rewrites.absorb_projections import ImageToToken, TokenToImage
from mobilesam_export.rewrites.channels_first.channel_layer_norm import ChannelLayerNorm
from mobilesam_export.rewrites.folded_decoder import FoldedSelfAttention, FoldedTwoWayBlock
from mobilesam_export.rewrites.pointwise import pointwise
from reference.layer_norm_2d import LayerNorm2d

Parts = tuple[Tensor, ...]  # tensors that stand for their sum


def channel_norm(norm: nn.LayerNorm | LayerNorm2d) -> ChannelLayerNorm:
    """A norm's weights over the channel axis."""
    return ChannelLayerNorm(norm.weight, norm.bias, norm.eps)


def perceptron(linears: Iterable[nn.Module]) -> nn.Sequential:
    """Linear layers as 1x1 convolutions, ReLU between them."""
    layers: list[nn.Module] = []
    for linear in linears:
        assert isinstance(linear, nn.Linear)
        layers += [pointwise(linear.weight, linear.bias), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class PartsProjection(nn.Module):
    """A linear layer on a sum of (1, C, 1, T) parts that are not added before it.

    Args:
        weight: (out, C).
        bias: (out,), or None.
    """

    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight = pointwise(weight)
        self.register_buffer("bias", None if bias is None else bias.detach().float().reshape(1, -1, 1, 1))

    def forward(self, *parts: Tensor) -> Tensor:
        """Project the sum of the parts."""
        total: Tensor = self.weight(parts[0])
        for part in parts[1:]:
            total = total + self.weight(part)
        return total if self.bias is None else total + self.bias


class SelfAttentionChannelsFirst(nn.Module):
    """Attention of tokens to tokens."""

    def __init__(self, folded: FoldedSelfAttention) -> None:
        super().__init__()
        self.heads = folded.heads
        self.q_proj = PartsProjection(folded.q_proj.weight, folded.q_proj.bias)
        self.k_proj = PartsProjection(folded.k_proj.weight, None)
        self.v_proj = PartsProjection(folded.v_proj.weight, folded.v_proj.bias)
        self.out_proj = pointwise(folded.out_proj.weight, folded.out_proj.bias)

    def forward(self, q: Parts, v: Parts, absent: Tensor) -> Tensor:
        """Attend with (1, C, 1, T) queries (also the keys) and values, each the sum of its parts."""
        tokens = q[0].shape[-1]
        projected = (self.q_proj(*q), self.k_proj(*q), self.v_proj(*v))
        query, key, value = (x.reshape(1, self.heads, -1, tokens) for x in projected)
        weights = torch.softmax(query.transpose(-1, -2) @ key + absent, dim=-1)
        attended = value @ weights.transpose(-1, -2)
        mixed: Tensor = self.out_proj(attended.reshape(1, -1, 1, tokens))
        return mixed


class TokenToImageChannelsFirst(nn.Module):
    """Attention of tokens to the image; see ``rewrites.absorb_projections``."""

    key_weight: Tensor
    value_weight: Tensor

    def __init__(self, folded: TokenToImage) -> None:
        super().__init__()
        self.heads = folded.heads
        self.q_proj = PartsProjection(folded.query_weight, folded.query_bias)
        self.register_buffer("key_weight", folded.key_weight.float()[None])  # (1, heads, d, C)
        self.register_buffer("value_weight", folded.value_weight.float().mT.contiguous()[None])  # (1, heads, d, C)
        self.out_proj = pointwise(folded.out_weight, folded.out_bias)

    def forward(self, tokens_with_pe: Parts, image_with_pe: Tensor, image: Tensor) -> Tensor:
        """Attend with (1, C, 1, T) tokens to a (1, 1, C, HW) image, with and without its position."""
        tokens, channels = tokens_with_pe[0].shape[-1], image.shape[-2]
        query = self.q_proj(*tokens_with_pe).reshape(1, self.heads, -1, tokens)
        query = query.transpose(-1, -2) @ self.key_weight  # (1, heads, T, C)
        scores = query.reshape(1, 1, self.heads * tokens, channels) @ image_with_pe
        attended = torch.softmax(scores, dim=-1) @ image.transpose(-1, -2)
        attended = attended.reshape(1, self.heads, tokens, channels)
        attended = self.value_weight @ attended.transpose(-1, -2)  # (1, heads, d, T)
        mixed: Tensor = self.out_proj(attended.reshape(1, -1, 1, tokens))
        return mixed


class CarriedKeys(nn.Module):
    """Tokens as keys, carried into image space; see ``rewrites.absorb_projections``.

    The sharpest comparison of the decoder: every pixel asks which token's position is nearest.
    """

    query_weight: Tensor
    query_bias: Tensor

    def __init__(self, folded: ImageToToken) -> None:
        super().__init__()
        self.heads = folded.heads
        self.k_proj = pointwise(folded.key_weight)
        self.register_buffer("query_weight", folded.query_weight.float()[None])  # (1, heads, d, C)
        self.register_buffer("query_bias", folded.query_bias.float()[None, :, :, None])

    def forward(self, parts: Parts, absent: Tensor) -> tuple[Tensor, Tensor]:
        """Map (1, C, 1, T) parts to (1, heads, T, C) keys and the (1, heads, T, 1) rest of their scores."""
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        tokens = total.shape[-1]
        key = self.k_proj(total).reshape(1, self.heads, -1, tokens).transpose(-1, -2)
        return key @ self.query_weight, key @ self.query_bias + absent.reshape(1, 1, tokens, 1)


class ImageToTokenChannelsFirst(nn.Module):
    """Attention of the image to tokens; see ``rewrites.absorb_projections``."""

    out_weight: Tensor
    out_bias: Tensor

    def __init__(self, folded: ImageToToken) -> None:
        super().__init__()
        self.heads = folded.heads
        self.carried_keys = CarriedKeys(folded)
        self.v_proj = pointwise(folded.value_weight, folded.value_bias)
        self.register_buffer("out_weight", folded.out_weight.float()[None])  # (1, heads, d, C)
        self.register_buffer("out_bias", folded.out_bias.float().reshape(1, 1, -1, 1))

    def forward(self, image_with_pe: Tensor, tokens_with_pe: Parts, tokens: Tensor, absent: Tensor) -> Tensor:
        """Attend from (1, 1, C, HW) to (1, C, 1, T) tokens, keys and values; returns (1, 1, C, HW)."""
        count, (channels, pixels) = tokens.shape[-1], image_with_pe.shape[-2:]
        rows = (1, 1, self.heads * count, channels)
        key, offset = self.carried_keys(tokens_with_pe, absent)
        value = self.v_proj(tokens).reshape(1, self.heads, -1, count)
        value = (value.transpose(-1, -2) @ self.out_weight).reshape(rows)
        scores = (key.reshape(rows) @ image_with_pe).reshape(1, self.heads, count, pixels) + offset
        weights = torch.softmax(scores, dim=2).reshape(1, 1, self.heads * count, pixels)
        mixed: Tensor = value.transpose(-1, -2) @ weights + self.out_bias
        return mixed


class TwoWayBlockChannelsFirst(nn.Module):
    """Self-attention of tokens, tokens to image, MLP on tokens, image to tokens."""

    def __init__(self, folded: FoldedTwoWayBlock) -> None:
        super().__init__()
        self.first = folded.first
        self.self_attn = SelfAttentionChannelsFirst(folded.self_attn)
        self.cross_attn_token_to_image = TokenToImageChannelsFirst(folded.cross_attn_token_to_image)
        self.cross_attn_image_to_token = ImageToTokenChannelsFirst(folded.cross_attn_image_to_token)
        self.mlp = perceptron([folded.mlp.lin1, folded.mlp.lin2])
        self.norm1, self.norm2, self.norm3, self.norm4 = map(channel_norm, folded.norms)

    def forward(
        self, tokens: Tensor, image: Tensor, token_pe: Parts, image_pe: Tensor, absent: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Update tokens and image; the first block's tokens are their positions, and are taken from there."""
        if self.first:
            tokens = self.self_attn(token_pe, token_pe, absent)
        else:
            tokens = tokens + self.self_attn((tokens, *token_pe), (tokens,), absent)
        tokens = self.norm1(tokens)
        image_with_pe = image + image_pe
        tokens = self.norm2(tokens + self.cross_attn_token_to_image((tokens, *token_pe), image_with_pe, image))
        tokens = self.norm3(tokens + self.mlp(tokens))
        image = image + self.cross_attn_image_to_token(image_with_pe, (tokens, *token_pe), tokens, absent)
        channels, pixels = image.shape[-2:]
        image = self.norm4(image.reshape(1, channels, 1, pixels)).reshape(1, 1, channels, pixels)
        return tokens, image
