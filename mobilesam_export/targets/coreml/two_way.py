"""SAM's two-way transformer for Core ML, on (1, C, 1, T) tokens and a (1, 1, C, HW) image.

In this layout linear layers on tokens are 1x1 convolutions, and heads are split and joined by reshapes alone: not one
transpose remains once the converter has turned those before a product into its flags. The image is never projected
(``rewrites.absorb_projections``). Absent slots are masked out of every attention that reads tokens.

Where attention compares positions, a token's position must not be rounded to float16 before it is projected: a
projection may amplify exactly the small differences between neighbouring positions. So tokens carry their position as
a coarse and a fine part, each a float16 number, and the parts are projected apart and then added. Key biases add the
same to every score of a query and cancel in the softmax; left out, they cannot round either.
"""

import torch
from torch import Tensor, nn

from mobilesam_export.rewrites.absorb_projections import (
    ImageToToken,
    absorb_image_to_token,
    absorb_token_to_image,
)
from mobilesam_export.targets.coreml.channel_layer_norm import ChannelLayerNorm
from mobilesam_export.targets.coreml.encoder import pointwise
from reference.layer_norm_2d import LayerNorm2d
from reference.two_way_transformer import Attention, TwoWayBlock

Parts = tuple[Tensor, ...]  # tensors that stand for their sum


def linear(layer: nn.Linear) -> nn.Conv2d:
    """A linear layer as a 1x1 convolution."""
    return pointwise(layer.weight, layer.bias)


def channel_norm(norm: nn.Module) -> ChannelLayerNorm:
    """A LayerNorm's or LayerNorm2d's weights over the channel axis."""
    assert isinstance(norm, nn.LayerNorm | LayerNorm2d)
    return ChannelLayerNorm(norm.weight, norm.bias, norm.eps)


class PartsProjection(nn.Module):
    """A linear layer on a sum of (1, C, 1, T) parts that are not added before it.

    Args:
        weight: (out, C).
        bias: (out,), or None.
    """

    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight = pointwise(weight, None)
        self.register_buffer("bias", None if bias is None else bias.detach().float().reshape(1, -1, 1, 1))

    def forward(self, *parts: Tensor) -> Tensor:
        """Project the sum of the parts."""
        total: Tensor = self.weight(parts[0])
        for part in parts[1:]:
            total = total + self.weight(part)
        return total if self.bias is None else total + self.bias


class TokenSelfAttention(nn.Module):
    """Attention of tokens to tokens."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.heads = attention.heads
        scale = (attention.q_proj.out_features // self.heads) ** -0.5
        self.query = PartsProjection(attention.q_proj.weight * scale, attention.q_proj.bias * scale)
        self.key = PartsProjection(attention.k_proj.weight, None)
        self.value = PartsProjection(attention.v_proj.weight, attention.v_proj.bias)
        self.out = linear(attention.out_proj)

    def forward(self, q: Parts, v: Parts, absent: Tensor) -> Tensor:
        """Attend with (1, C, 1, T) queries (also the keys) and values, each the sum of its parts."""
        tokens = q[0].shape[-1]
        query, key, value = (
            projected.reshape(1, self.heads, -1, tokens) for projected in (self.query(*q), self.key(*q), self.value(*v))
        )
        weights = torch.softmax(query.transpose(-1, -2) @ key + absent, dim=-1)
        attended = value @ weights.transpose(-1, -2)
        mixed: Tensor = self.out(attended.reshape(1, -1, 1, tokens))
        return mixed


class TokenToImageAttention(nn.Module):
    """Attention of tokens to the image; see ``rewrites.absorb_projections``."""

    key_weight: Tensor
    value_weight: Tensor

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        weights = absorb_token_to_image(attention)
        self.heads = attention.heads
        self.query = PartsProjection(weights.query_weight, weights.query_bias)
        self.register_buffer("key_weight", weights.key_weight.float()[None])  # (1, heads, d, C)
        self.register_buffer("value_weight", weights.value_weight.float().mT.contiguous()[None])  # (1, heads, d, C)
        self.out = pointwise(weights.out_weight, weights.out_bias)

    def forward(self, q: Parts, placed_image: Tensor, image: Tensor) -> Tensor:
        """Attend with (1, C, 1, T) queries to (1, 1, C, HW) image tokens, with and without their position."""
        tokens, channels = q[0].shape[-1], image.shape[-2]
        query = self.query(*q).reshape(1, self.heads, -1, tokens)
        query = query.transpose(-1, -2) @ self.key_weight  # (1, heads, T, C)
        scores = query.reshape(1, 1, self.heads * tokens, channels) @ placed_image
        attended = torch.softmax(scores, dim=-1) @ image.transpose(-1, -2)
        attended = attended.reshape(1, self.heads, tokens, channels)
        attended = self.value_weight @ attended.transpose(-1, -2)  # (1, heads, d, T)
        mixed: Tensor = self.out(attended.reshape(1, -1, 1, tokens))
        return mixed


class CarriedKeys(nn.Module):
    """Tokens as keys, carried into image space; see ``rewrites.absorb_projections``.

    The sharpest comparison of the decoder: every pixel asks which token's position is nearest.
    """

    query_weight: Tensor
    query_bias: Tensor

    def __init__(self, weights: ImageToToken) -> None:
        super().__init__()
        self.heads = weights.query_weight.shape[0]
        self.key = pointwise(weights.key_weight, None)
        self.register_buffer("query_weight", weights.query_weight.float()[None])  # (1, heads, d, C)
        self.register_buffer("query_bias", weights.query_bias.float()[None, :, :, None])

    def forward(self, parts: Parts, absent: Tensor) -> tuple[Tensor, Tensor]:
        """Map (1, C, 1, T) parts to (1, heads, T, C) keys and the (1, heads, T, 1) rest of their scores."""
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        tokens = total.shape[-1]
        key = self.key(total).reshape(1, self.heads, -1, tokens).transpose(-1, -2)
        return key @ self.query_weight, key @ self.query_bias + absent.reshape(1, 1, tokens, 1)


class ImageToTokenAttention(nn.Module):
    """Attention of the image to tokens; see ``rewrites.absorb_projections``."""

    out_weight: Tensor
    out_bias: Tensor

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        weights = absorb_image_to_token(attention)
        self.heads = attention.heads
        self.carried_keys = CarriedKeys(weights)
        self.value = pointwise(weights.value_weight, weights.value_bias)
        self.register_buffer("out_weight", weights.out_weight.float()[None])  # (1, heads, d, C)
        self.register_buffer("out_bias", weights.out_bias.float().reshape(1, 1, -1, 1))

    def forward(self, placed_image: Tensor, k: Parts, v: Tensor, absent: Tensor) -> Tensor:
        """Attend from (1, 1, C, HW) to (1, C, 1, T) keys and values; returns (1, 1, C, HW)."""
        tokens, (channels, pixels) = v.shape[-1], placed_image.shape[-2:]
        rows = (1, 1, self.heads * tokens, channels)
        key, offset = self.carried_keys(k, absent)
        value = self.value(v).reshape(1, self.heads, -1, tokens)
        value = (value.transpose(-1, -2) @ self.out_weight).reshape(rows)
        scores = (key.reshape(rows) @ placed_image).reshape(1, self.heads, tokens, pixels) + offset
        weights = torch.softmax(scores, dim=2).reshape(1, 1, self.heads * tokens, pixels)
        mixed: Tensor = value.transpose(-1, -2) @ weights + self.out_bias
        return mixed


class TwoWayBlockCoreML(nn.Module):
    """Self-attention of tokens, tokens to image, MLP on tokens, image to tokens."""

    def __init__(self, block: TwoWayBlock) -> None:
        super().__init__()
        self.first = block.first
        self.self_attention = TokenSelfAttention(block.self_attn)
        self.token_to_image = TokenToImageAttention(block.cross_attn_token_to_image)
        self.image_to_token = ImageToTokenAttention(block.cross_attn_image_to_token)
        self.lin1, self.lin2 = linear(block.mlp.lin1), linear(block.mlp.lin2)
        norms = (block.norm1, block.norm2, block.norm3, block.norm4)
        self.norm1, self.norm2, self.norm3, self.norm4 = map(channel_norm, norms)

    def forward(
        self, tokens: Tensor, image: Tensor, token_pe: Parts, image_pe: Tensor, absent: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Update tokens and image; the first block's tokens are their positions, and are taken from there."""
        if self.first:
            tokens = self.self_attention(token_pe, token_pe, absent)
        else:
            tokens = tokens + self.self_attention((tokens, *token_pe), (tokens,), absent)
        tokens = self.norm1(tokens)
        placed_image = image + image_pe
        tokens = self.norm2(tokens + self.token_to_image((tokens, *token_pe), placed_image, image))
        tokens = self.norm3(tokens + self.lin2(torch.relu(self.lin1(tokens))))
        image = image + self.image_to_token(placed_image, (tokens, *token_pe), tokens, absent)
        channels, pixels = image.shape[-2:]
        image = self.norm4(image.reshape(1, channels, 1, pixels)).reshape(1, 1, channels, pixels)
        return tokens, image
