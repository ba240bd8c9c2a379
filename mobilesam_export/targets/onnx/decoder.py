"""The prompt decoder shaped for ONNX Runtime: prompt encoder and mask decoder in one graph, any number of prompts.

Few tokens (five learned ones and N prompt slots) meet 4096 image positions, so nothing projects the image
(``rewrites.absorb_projections``), transposed convolutions are linear layers on tokens, and pixels are put in
order once, on the four finished masks. Slots labelled ABSENT are masked out of every attention.
"""

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mobilesam_export.contract import MASK_COUNT, PointLabel
from mobilesam_export.rewrites.absorb_projections import absorb_image_to_token, absorb_token_to_image
from mobilesam_export.rewrites.linear import linear_with, token_norm
from mobilesam_export.rewrites.transposed_conv_as_linear import transposed_conv_as_linear
from reference.layer_norm_2d import LayerNorm2d
from reference.mask_decoder import MLP
from reference.mobile_sam import MobileSam
from reference.two_way_transformer import Attention, TwoWayBlock

MASKED = -1e4  # added to the scores of absent keys; exp() of it is zero in float32 and float16


class SelfAttention(nn.Module):
    """SAM's attention among tokens, with absent keys masked out and the scale in the query."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.heads = attention.heads
        scale = (attention.q_proj.out_features // attention.heads) ** -0.5
        self.q_proj = linear_with(attention.q_proj.weight * scale, attention.q_proj.bias * scale)
        self.k_proj = linear_with(attention.k_proj.weight, attention.k_proj.bias)
        self.v_proj = linear_with(attention.v_proj.weight, attention.v_proj.bias)
        self.out_proj = linear_with(attention.out_proj.weight, attention.out_proj.bias)

    def forward(self, q: Tensor, v: Tensor, absent: Tensor) -> Tensor:
        """Attend (B, T, C) queries, which are also the keys, to values; ``absent`` (B, 1, T) is added to scores."""
        heads = (self.heads, -1)
        query = self.q_proj(q).unflatten(-1, heads).transpose(1, 2)
        key = self.k_proj(q).unflatten(-1, heads).transpose(1, 2)
        value = self.v_proj(v).unflatten(-1, heads).transpose(1, 2)
        weights = torch.softmax(query @ key.transpose(-2, -1) + absent[:, None], dim=-1)
        output: Tensor = self.out_proj((weights @ value).transpose(1, 2).flatten(2))
        return output


class AbsorbedTokenToImage(nn.Module):
    """See ``rewrites.absorb_projections``; queries come from tokens, keys and values are the image itself."""

    key_weight: Tensor
    value_weight: Tensor

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        weights = absorb_token_to_image(attention)
        self.heads = attention.heads
        self.query = linear_with(weights.query_weight, weights.query_bias)
        self.register_buffer("key_weight", weights.key_weight.float())
        self.register_buffer("value_weight", weights.value_weight.float())
        self.out = linear_with(weights.out_weight, weights.out_bias)

    def forward(self, tokens: Tensor, image_with_pe: Tensor, image: Tensor) -> Tensor:
        """Attend (B, T, C) tokens to (B, HW, C) image positions; returns (B, T, C)."""
        batch, count, channels = tokens.shape
        query = self.query(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2) @ self.key_weight  # (B, h, T, C)
        scores = query.reshape(batch, self.heads * count, channels) @ image_with_pe.transpose(1, 2)  # (B, hT, HW)
        summed = torch.softmax(scores, dim=-1) @ image
        values = summed.reshape(batch, self.heads, count, channels) @ self.value_weight  # (B, h, T, d)
        output: Tensor = self.out(values.transpose(1, 2).flatten(2))
        return output


class AbsorbedImageToToken(nn.Module):
    """See ``rewrites.absorb_projections``; queries are the image itself, keys and values come from tokens."""

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
        self.register_buffer("query_weight", weights.query_weight.float())
        self.register_buffer("query_bias", weights.query_bias.float()[:, :, None])
        self.register_buffer("out_weight", weights.out_weight.float())
        # A head's weights sum to one: a bias spread over the heads comes out whole, without a pass over the image.
        self.register_buffer("out_bias", (weights.out_bias / self.heads).float())

    def forward(self, image_with_pe: Tensor, tokens_with_pe: Tensor, tokens: Tensor, absent: Tensor) -> Tensor:
        """Attend (B, HW, C) image positions to (B, T, C) tokens; returns (B, HW, C)."""
        batch, count, channels = tokens.shape
        heads = (self.heads, -1)
        key = self.key(tokens_with_pe).unflatten(-1, heads).transpose(1, 2)  # (B, h, T, d)
        value = self.value(tokens).unflatten(-1, heads).transpose(1, 2)
        columns = (key @ self.query_weight).reshape(batch, self.heads * count, channels)  # (B, hT, C)
        offset = (key @ self.query_bias).reshape(batch, self.heads * count, 1) + absent.transpose(1, 2).repeat(
            1, self.heads, 1
        )
        scores = (columns @ image_with_pe.transpose(1, 2) + offset).unflatten(1, (self.heads, count))  # (B, h, T, HW)
        # Softmax over few tokens by hand: the runtime's own kernel starts anew for each of HW * h rows of T numbers.
        exponentials = (scores - scores.amax(2, keepdim=True)).exp()
        weights = (exponentials / exponentials.sum(2, keepdim=True)).flatten(1, 2)  # (B, hT, HW)
        carried = (value @ self.out_weight + self.out_bias).reshape(batch, self.heads * count, channels)
        output: Tensor = weights.transpose(1, 2) @ carried
        return output


class AbsorbedBlock(nn.Module):
    """One two-way block; see ``reference.two_way_transformer.TwoWayBlock``."""

    def __init__(self, block: TwoWayBlock) -> None:
        super().__init__()
        self.first = block.first
        self.self_attn = SelfAttention(block.self_attn)
        self.token_to_image = AbsorbedTokenToImage(block.cross_attn_token_to_image)
        self.image_to_token = AbsorbedImageToToken(block.cross_attn_image_to_token)
        self.norm1, self.norm2, self.norm3, self.norm4 = block.norm1, block.norm2, block.norm3, block.norm4
        self.mlp = block.mlp

    def forward(
        self, queries: Tensor, keys: Tensor, query_pe: Tensor, key_pe: Tensor, absent: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Update (B, T, C) queries and (B, HW, C) keys."""
        if self.first:
            queries = self.self_attn(queries, queries, absent)
        else:
            queries = queries + self.self_attn(queries + query_pe, queries, absent)
        queries = self.norm1(queries)
        keys_with_pe = keys + key_pe
        queries = self.norm2(queries + self.token_to_image(queries + query_pe, keys_with_pe, keys))
        queries = self.norm3(queries + self.mlp(queries))
        keys = keys + self.image_to_token(keys_with_pe, queries + query_pe, queries, absent)
        batch, positions, channels = keys.shape
        keys = self.norm4(keys.reshape(-1, channels)).reshape(batch, positions, channels)  # 2-D, see the encoder's head
        return queries, keys


class PromptDecoderOnnx(nn.Module):
    """Prompts on an embedding to mask logits and predicted IoU.

    Args:
        sam: the reference, in eval mode.
        single_mask: return only the mask that the official ONNX wrapper's ``return_single_mask`` chooses.
    """

    gaussian: Tensor
    label_table: Tensor
    label_values: Tensor
    row_angles: Tensor
    column_angles: Tensor
    learned_tokens: Tensor

    def __init__(self, sam: MobileSam, single_mask: bool = False) -> None:
        super().__init__()
        prompt, decoder = sam.prompt_encoder, sam.mask_decoder
        self.image_size = sam.image_size
        self.grid = sam.image_size // 16
        self.single_mask = single_mask
        self.register_buffer("gaussian", prompt.pe_layer.positional_encoding_gaussian_matrix.detach() * (2 * math.pi))
        zero = torch.zeros_like(prompt.not_a_point_embed.weight)
        table = [
            zero,
            prompt.not_a_point_embed.weight,
            *(cast(nn.Embedding, embedding).weight for embedding in prompt.point_embeddings),
        ]
        self.register_buffer("label_table", torch.cat(table).detach().clone())
        self.register_buffer("label_values", torch.tensor([float(label) for label in PointLabel]))  # of its rows
        # The dense positional encoding is sin and cos of a row term plus a column term. The file holds the terms
        # (0.07 MB instead of 4.2 at 1024); the runtime folds the rest when it loads.
        centres = 2 * (torch.arange(self.grid) + 0.5) / self.grid - 1
        self.register_buffer("column_angles", centres[None, :, None] * self.gaussian[0])  # (1, W, C/2)
        self.register_buffer("row_angles", centres[:, None, None] * self.gaussian[1])  # (H, 1, C/2)
        self.mask_downscaling = prompt.mask_downscaling[:-1]
        project = cast(nn.Conv2d, prompt.mask_downscaling[-1])
        assert project.bias is not None
        no_mask = prompt.no_mask_embed.weight[0]
        mask_weight = torch.cat([project.weight[:, :, 0, 0], (project.bias - no_mask)[:, None]], dim=1)
        self.mask_project = linear_with(mask_weight, no_mask)  # see embed_mask
        self.register_buffer(
            "learned_tokens", torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight]).detach()[None]
        )
        self.layers = nn.ModuleList(AbsorbedBlock(cast(TwoWayBlock, layer)) for layer in decoder.transformer.layers)
        self.final_attention = AbsorbedTokenToImage(decoder.transformer.final_attn_token_to_image)
        self.final_norm = decoder.transformer.norm_final_attn
        up1, norm, _, up2, _ = decoder.output_upscaling
        assert isinstance(up1, nn.ConvTranspose2d) and isinstance(up2, nn.ConvTranspose2d)
        assert isinstance(norm, LayerNorm2d)
        self.upscale1 = linear_with(*transposed_conv_as_linear(up1))
        self.upscale_norm = token_norm(norm)
        self.upscale2 = linear_with(*transposed_conv_as_linear(up2))
        self.hypernetworks = decoder.output_hypernetworks_mlps
        self.iou_head: MLP = decoder.iou_prediction_head
        self.requires_grad_(False).eval()

    def embed_points(self, coords: Tensor, labels: Tensor) -> Tensor:
        """Embed (B, N, 2) model-frame pixels with (B, N) ``PointLabel`` values as (B, N, C), without branches."""
        unit = (coords + 0.5) / self.image_size  # pixel centres, in [0, 1]
        angles = (2 * unit - 1) @ self.gaussian
        encoded = torch.cat([angles.sin(), angles.cos()], dim=-1)
        real = (labels - PointLabel.PADDING).clamp(0, 1)[..., None]  # from background on
        # The label's row of the table as a product with 0, 0, 1, 0, ...: exact, and no engine lacks it.
        chosen = (1 - (labels[..., None] - self.label_values).abs()).clamp(min=0)
        return encoded * real + chosen @ self.label_table

    def image_pe(self) -> Tensor:
        """The (1, HW, C) positional encoding of the embedding grid."""
        angles = (self.row_angles + self.column_angles).reshape(1, self.grid**2, -1)
        return torch.cat([angles.sin(), angles.cos()], dim=-1)

    def embed_mask(self, mask_input: Tensor, has_mask_input: Tensor) -> Tensor:
        """Embed (B, 1, S/4, S/4) logits as (B, HW, C), or the learned "no mask" where ``has_mask_input`` is 0."""
        x = self.mask_downscaling(mask_input).permute(0, 2, 3, 1)  # BCHW -> BHWC
        # The choice is made on the small side of the last projection, not on (B, HW, C): its bias is "no mask", and a
        # channel of ones beside the others carries the difference to the real one. Without a mask all are zero.
        ones = 1 + 0 * x[..., :1]  # neither Pad nor Expand, which OpenCV 4 lacks in this form
        tokens = torch.cat([x, ones], dim=-1) * has_mask_input
        embedded: Tensor = self.mask_project(tokens.reshape(-1, tokens.shape[-1]))
        return embedded.reshape(x.shape[0], self.grid**2, -1)

    def forward(
        self,
        image_embeddings: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Decode B prompts; inputs and outputs as in ``contract.Contract``."""
        sparse = self.embed_points(point_coords, point_labels)
        learned = self.learned_tokens.expand(sparse.shape[0], -1, -1)
        tokens = torch.cat([learned, sparse], dim=1)
        absent = (PointLabel.PADDING - point_labels).clamp(0, 1)  # 1 in absent slots
        absent = torch.cat([0 * learned[..., 0], absent], dim=1)[:, None] * MASKED
        image = image_embeddings.flatten(2).transpose(1, 2) + self.embed_mask(mask_input, has_mask_input)
        image_pe = self.image_pe()
        queries = tokens
        for layer in self.layers:
            queries, image = layer(queries, image, tokens, image_pe, absent)
        queries = self.final_norm(queries + self.final_attention(queries + tokens, image + image_pe, image))
        low_res_masks = self.draw(image, queries[:, 1 : 1 + MASK_COUNT])
        iou_predictions = self.iou_head(queries[:, 0])
        if self.single_mask:
            present = (point_labels - PointLabel.ABSENT).clamp(0, 1).sum(1, keepdim=True)
            bonus = (present - 2.5) * torch.tensor([1000.0, 0.0, 0.0, 0.0])
            best = (iou_predictions + bonus).argmax(dim=1, keepdim=True)
            iou_predictions = iou_predictions.gather(1, best)
            low_res_masks = low_res_masks.gather(1, best[..., None, None].expand(-1, -1, *low_res_masks.shape[2:]))
        return low_res_masks, iou_predictions

    def draw(self, image: Tensor, mask_tokens: Tensor) -> Tensor:
        """Upscale (B, HW, C) and multiply by the kernels of (B, 4, C) mask tokens: (B, 4, S/4, S/4) logits."""
        batch, positions, channels = image.shape
        x = self.upscale1(image.reshape(-1, channels)).reshape(batch * positions * 4, -1)  # order: y, x, dy, dx
        x = F.gelu(self.upscale_norm(x))
        x = F.gelu(self.upscale2(x)).reshape(batch, positions * 16, -1)  # order: y, x, dy, dx, ey, ex
        kernels = torch.stack([mlp(mask_tokens[:, i]) for i, mlp in enumerate(self.hypernetworks)], dim=1)
        masks = kernels @ x.transpose(1, 2)  # (B, 4, HW * 16)
        masks = masks.reshape(batch * MASK_COUNT, self.grid, self.grid, 2, 2, 2, 2).permute(0, 1, 3, 5, 2, 4, 6)
        return masks.reshape(batch, MASK_COUNT, self.grid * 4, self.grid * 4)
