"""The prompt decoder for Core ML: SAM's prompt encoder and mask decoder for one prompt with a fixed number of slots.

Tokens are (1, C, 1, T) and the image is (1, 1, C, HW), so that linear layers on tokens are 1x1 convolutions
and heads are split and joined by reshapes alone. The image tokens are never projected ("absorbed"
projections): with T = 5 + N tokens it is cheaper to move a projection to the other side of a product,

    token to image   (Wq t + bq) . (Wk i + bk) = (Wk' (Wq t + bq)) . i + constant   cancels in the softmax
                     sum_i a_i (Wv i + bv)     = Wv (sum_i a_i i) + bv              the weights sum to one
    image to token   (Wq i + bq) . k           = i . (Wq' k) + bq . k               kept: differs by token
                     Wo (sum_t a_t v_t)        = sum_t a_t (Wo v_t)

An absent slot (label -2) is masked out of every attention that reads tokens, so the result is that of the
shorter prompt.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mobilesam_export.contract import MASK_COUNT, PointLabel
from mobilesam_export.graphs.channel_layer_norm import ChannelLayerNorm
from mobilesam_export.graphs.image_encoder_coreml import pointwise
from reference.layer_norm_2d import LayerNorm2d
from reference.mask_decoder import MLP, MaskDecoder
from reference.mobile_sam import MobileSam
from reference.prompt_encoder import PromptEncoder
from reference.two_way_transformer import Attention, TwoWayBlock

ABSENT_SCORE = -1e4  # added to the scores of absent slots; exp underflows to zero in float16 and in float32
LEARNED_TOKENS = 1 + MASK_COUNT  # the IoU token and the mask tokens stand before the prompt's


def linear(layer: nn.Linear) -> nn.Conv2d:
    """A linear layer as a 1x1 convolution."""
    return pointwise(layer.weight, layer.bias)


def channel_norm(norm: nn.LayerNorm | LayerNorm2d) -> ChannelLayerNorm:
    """A LayerNorm's weights over the channel axis."""
    return ChannelLayerNorm(norm.weight, norm.bias, norm.eps)


class PointEmbedding(nn.Module):
    """Labelled points to tokens, in float32 whatever the artifact's precision.

    float16 would move a point by half a pixel.
    """

    def __init__(self, encoder: PromptEncoder) -> None:
        super().__init__()
        gaussian = encoder.pe_layer.positional_encoding_gaussian_matrix
        self.image_size = encoder.image_size
        self.register_buffer("frequencies", (gaussian.double().T * 2 * math.pi).float()[None])  # (1, 128, 2)
        kinds = [PointLabel.PADDING, *(label for label in PointLabel if label >= PointLabel.BACKGROUND)]
        self.register_buffer("kinds", torch.tensor(kinds, dtype=torch.float32).reshape(1, 1, -1, 1))
        learned = torch.cat([encoder.not_a_point_embed.weight, *(point.weight for point in encoder.point_embeddings)])
        self.register_buffer("learned", learned.detach().T[None, None].clone())  # (1, 1, 256, 5)

    def forward(self, point_coords: Tensor, point_labels: Tensor) -> Tensor:
        """Map (1, N, 2) coordinates and (1, N) labels to (1, 256, 1, N)."""
        slots = point_labels.shape[1]
        centred = (point_coords + 0.5) * (2 / self.image_size) - 1
        angles = self.frequencies @ centred.transpose(1, 2)  # (1, 128, N)
        encoded = torch.cat([angles.sin(), angles.cos()], dim=1).reshape(1, 1, -1, slots)
        labels = point_labels.reshape(1, 1, 1, slots)
        placed = (labels > PointLabel.PADDING + 0.5).float()  # neither padding nor absent
        chosen = (labels == self.kinds).float()  # (1, 1, 5, N)
        embedded = encoded * placed + self.learned @ chosen
        return embedded.reshape(1, -1, 1, slots)


class AbsentScores(nn.Module):
    """What to add to the attention score of each token; float32 like the labels it reads."""

    def forward(self, point_labels: Tensor) -> Tensor:
        """Map (1, N) labels to (1, 1, 1, 5 + N)."""
        absent = (point_labels < PointLabel.PADDING - 0.5).float().reshape(1, 1, 1, -1)
        return F.pad(absent * ABSENT_SCORE, (LEARNED_TOKENS, 0))


class MaskEmbedding(nn.Module):
    """An earlier mask to the dense prompt embedding; without one, SAM's learned constant."""

    def __init__(self, encoder: PromptEncoder) -> None:
        super().__init__()
        conv1, norm1, _, conv2, norm2, _, conv3 = encoder.mask_downscaling
        self.conv1, self.conv2, self.conv3 = conv1, conv2, conv3
        self.norm1, self.norm2 = channel_norm(norm1), channel_norm(norm2)
        self.register_buffer("no_mask", encoder.no_mask_embed.weight.detach().reshape(1, -1, 1, 1).clone())

    def forward(self, mask_input: Tensor, has_mask_input: Tensor) -> Tensor:
        """Map (1, 1, S/4, S/4) logits and (1,) 0 or 1 to (1, 256, S/16, S/16)."""
        given = has_mask_input.reshape(1, 1, 1, 1)
        logits = torch.where(given > 0.5, mask_input, torch.zeros_like(mask_input))  # whatever lies there, NaN included
        x = F.gelu(self.norm1(self.conv1(logits)))
        x = self.conv3(F.gelu(self.norm2(self.conv2(x))))
        return given * x + (1 - given) * self.no_mask


class TokenSelfAttention(nn.Module):
    """Attention of tokens to tokens."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.heads = attention.heads
        scale = (attention.q_proj.out_features // self.heads) ** -0.5
        self.query = pointwise(attention.q_proj.weight * scale, attention.q_proj.bias * scale)
        self.key, self.value = linear(attention.k_proj), linear(attention.v_proj)
        self.out = linear(attention.out_proj)

    def forward(self, q: Tensor, v: Tensor, absent: Tensor) -> Tensor:
        """Attend with (1, C, 1, T) queries (also the keys) and values."""
        tokens = q.shape[-1]
        query, key, value = (
            projected.reshape(1, self.heads, -1, tokens) for projected in (self.query(q), self.key(q), self.value(v))
        )
        weights = torch.softmax(query.transpose(-1, -2) @ key + absent, dim=-1)
        attended = value @ weights.transpose(-1, -2)
        mixed: Tensor = self.out(attended.reshape(1, -1, 1, tokens))
        return mixed


class TokenToImageAttention(nn.Module):
    """Attention of tokens to the image; its projections of the image are absorbed (see the module's head)."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.heads = attention.heads
        scale = (attention.q_proj.out_features // self.heads) ** -0.5
        self.query = pointwise(attention.q_proj.weight * scale, attention.q_proj.bias * scale)
        per_head = (1, self.heads, -1, attention.k_proj.in_features)
        self.register_buffer("key_weight", attention.k_proj.weight.detach().reshape(per_head).clone())
        self.register_buffer("value_weight", attention.v_proj.weight.detach().reshape(per_head).clone())
        out = attention.out_proj
        self.out = pointwise(out.weight, out.bias.double() + out.weight.double() @ attention.v_proj.bias.double())

    def forward(self, q: Tensor, placed_image: Tensor, image: Tensor) -> Tensor:
        """Attend with (1, C, 1, T) queries to (1, 1, C, HW) image tokens, with and without their position."""
        tokens, channels = q.shape[-1], image.shape[-2]
        query = self.query(q).reshape(1, self.heads, -1, tokens)
        query = query.transpose(-1, -2) @ self.key_weight  # (1, heads, T, C)
        scores = query.reshape(1, 1, self.heads * tokens, channels) @ placed_image
        attended = torch.softmax(scores, dim=-1) @ image.transpose(-1, -2)
        attended = attended.reshape(1, self.heads, tokens, channels)
        attended = self.value_weight @ attended.transpose(-1, -2)  # (1, heads, C / 2 heads, T)
        mixed: Tensor = self.out(attended.reshape(1, -1, 1, tokens))
        return mixed


class ImageToTokenAttention(nn.Module):
    """Attention of the image to tokens; its projections of the image are absorbed (see the module's head)."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.heads = attention.heads
        width = attention.q_proj.out_features // self.heads
        scale = width**-0.5
        self.key = pointwise(attention.k_proj.weight * scale, attention.k_proj.bias * scale)
        self.value = linear(attention.v_proj)
        query, out = attention.q_proj, attention.out_proj
        self.register_buffer("query_weight", query.weight.detach().reshape(1, self.heads, width, -1).clone())
        self.register_buffer("query_bias", query.bias.detach().reshape(1, self.heads, width, 1).clone())
        self.register_buffer("out_weight", out.weight.detach().T.reshape(1, self.heads, width, -1).clone())
        self.register_buffer("out_bias", out.bias.detach().reshape(1, 1, -1, 1).clone())

    def forward(self, placed_image: Tensor, k: Tensor, v: Tensor, absent: Tensor) -> Tensor:
        """Attend from (1, 1, C, HW) to (1, C, 1, T) keys and values; returns (1, 1, C, HW)."""
        tokens, (channels, pixels) = k.shape[-1], placed_image.shape[-2:]
        rows = (1, 1, self.heads * tokens, channels)
        key = self.key(k).reshape(1, self.heads, -1, tokens)
        value = self.value(v).reshape(1, self.heads, -1, tokens)
        offset = key.transpose(-1, -2) @ self.query_bias + absent.reshape(1, 1, tokens, 1)  # (1, heads, T, 1)
        key = (key.transpose(-1, -2) @ self.query_weight).reshape(rows)
        value = (value.transpose(-1, -2) @ self.out_weight).reshape(rows)
        scores = (key @ placed_image).reshape(1, self.heads, tokens, pixels) + offset
        weights = torch.softmax(scores, dim=2).reshape(1, 1, self.heads * tokens, pixels)
        mixed: Tensor = value.transpose(-1, -2) @ weights + self.out_bias
        return mixed


class Block(nn.Module):
    """SAM's two-way block on (1, C, 1, T) tokens and a (1, 1, C, HW) image."""

    def __init__(self, block: TwoWayBlock) -> None:
        super().__init__()
        self.first = block.first
        self.self_attention = TokenSelfAttention(block.self_attn)
        self.token_to_image = TokenToImageAttention(block.cross_attn_token_to_image)
        self.image_to_token = ImageToTokenAttention(block.cross_attn_image_to_token)
        self.lin1, self.lin2 = linear(block.mlp.lin1), linear(block.mlp.lin2)
        norms = (block.norm1, block.norm2, block.norm3, block.norm4)
        self.norm1, self.norm2, self.norm3, self.norm4 = (channel_norm(norm) for norm in norms)

    def forward(
        self, tokens: Tensor, image: Tensor, token_pe: Tensor, image_pe: Tensor, absent: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Update tokens and image."""
        if self.first:
            tokens = self.self_attention(tokens, tokens, absent)
        else:
            tokens = tokens + self.self_attention(tokens + token_pe, tokens, absent)
        tokens = self.norm1(tokens)
        placed_image = image + image_pe
        tokens = self.norm2(tokens + self.token_to_image(tokens + token_pe, placed_image, image))
        tokens = self.norm3(tokens + self.lin2(torch.relu(self.lin1(tokens))))
        image = image + self.image_to_token(placed_image, tokens + token_pe, tokens, absent)
        channels, pixels = image.shape[-2:]
        image = self.norm4(image.reshape(1, channels, 1, pixels)).reshape(1, 1, channels, pixels)
        return tokens, image


class Hypernetworks(nn.Module):
    """The four mask tokens' own MLPs as three grouped 1x1 convolutions, one group a token."""

    def __init__(self, mlps: nn.ModuleList) -> None:
        super().__init__()
        self.layers = nn.ModuleList(self._grouped([mlp.layers[depth] for mlp in mlps]) for depth in range(3))

    @staticmethod
    def _grouped(layers: list[nn.Linear]) -> nn.Conv2d:
        first, groups = layers[0], len(layers)
        conv = nn.Conv2d(first.in_features * groups, first.out_features * groups, 1, groups=groups)
        conv.weight.data.copy_(torch.cat([layer.weight.detach() for layer in layers])[:, :, None, None])
        assert conv.bias is not None
        conv.bias.data.copy_(torch.cat([layer.bias.detach() for layer in layers]))
        return conv

    def forward(self, mask_tokens: Tensor) -> Tensor:
        """Map (1, 256, 1, 4) tokens to (1, 1, 4, 32) kernels."""
        x = mask_tokens.permute(0, 3, 1, 2).reshape(1, -1, 1, 1)  # one token's channels after the other's
        for layer in self.layers[:-1]:
            x = torch.relu(layer(x))
        kernels: Tensor = self.layers[-1](x)
        return kernels.reshape(1, 1, MASK_COUNT, -1)


def perceptron(mlp: MLP) -> nn.Sequential:
    """A reference MLP as 1x1 convolutions."""
    layers: list[nn.Module] = []
    for layer in mlp.layers:
        layers += [linear(layer), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class MaskHead(nn.Module):
    """Upscaled image and mask tokens to logits, the IoU token to predictions."""

    def __init__(self, decoder: MaskDecoder) -> None:
        super().__init__()
        up1, norm, _, up2, _ = decoder.output_upscaling
        self.up1, self.norm, self.up2 = up1, channel_norm(norm), up2
        self.hypernetworks = Hypernetworks(decoder.output_hypernetworks_mlps)
        self.iou_prediction = perceptron(decoder.iou_prediction_head)

    def forward(self, tokens: Tensor, image: Tensor, grid: int) -> tuple[Tensor, Tensor]:
        """Map (1, 256, 1, T) and (1, 1, 256, HW) to (1, 4, 4H, 4W) and (1, 4)."""
        x = image.reshape(1, -1, grid, grid)
        x = F.gelu(self.up2(F.gelu(self.norm(self.up1(x)))))
        side = x.shape[-1]
        kernels = self.hypernetworks(tokens[:, :, :, 1:LEARNED_TOKENS])
        masks = kernels @ x.reshape(1, 1, -1, side * side)
        iou = self.iou_prediction(tokens[:, :, :, :1])
        return masks.reshape(1, MASK_COUNT, side, side), iou.reshape(1, MASK_COUNT)


class PromptDecoderCoreML(nn.Module):
    """One prompt to four masks in Core ML's preferred form; inputs and outputs as in the contract, B = 1.

    Args:
        sam: the reference, in eval mode; it stays as it is.
    """

    def __init__(self, sam: MobileSam) -> None:
        super().__init__()
        encoder, decoder = sam.prompt_encoder, sam.mask_decoder
        transformer = decoder.transformer
        self.grid = encoder.grid_size
        self.points, self.absent, self.mask = PointEmbedding(encoder), AbsentScores(), MaskEmbedding(encoder)
        self.blocks = nn.ModuleList(Block(block) for block in transformer.layers)
        self.final_attention = TokenToImageAttention(transformer.final_attn_token_to_image)
        self.final_norm = channel_norm(transformer.norm_final_attn)
        self.head = MaskHead(decoder)
        learned = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight]).detach()
        self.register_buffer("learned_tokens", learned.T.reshape(1, -1, 1, LEARNED_TOKENS).clone())
        image_pe = encoder.image_pe().detach()
        self.register_buffer("image_pe", image_pe.reshape(1, 1, image_pe.shape[1], -1).clone())
        self.eval()

    def forward(
        self,
        image_embeddings: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Decode one prompt of N slots; returns ``low_res_masks`` (1, 4, S/4, S/4) and ``iou_predictions`` (1, 4)."""
        absent = self.absent(point_labels)
        token_pe = torch.cat([self.learned_tokens, self.points(point_coords, point_labels)], dim=-1)
        image = image_embeddings + self.mask(mask_input, has_mask_input)
        image = image.reshape(1, 1, -1, self.grid**2)
        tokens = token_pe
        for block in self.blocks:
            tokens, image = block(tokens, image, token_pe, self.image_pe, absent)
        attended = self.final_attention(tokens + token_pe, image + self.image_pe, image)
        masks, iou = self.head(self.final_norm(tokens + attended), image, self.grid)
        return masks, iou
