"""The prompt decoder shaped for ONNX Runtime: prompt encoder and mask decoder in one graph, any number of prompts.

Few tokens (five learned ones and N prompt slots) meet 4096 image positions, so nothing projects the image
(``rewrites.absorb_projections``), transposed convolutions are linear layers on tokens, and pixels are put in
order once, on the four finished masks. All prompts meet the same image until the first block has written on it, so
that many prompts share what is computed of it. Slots labelled ABSENT are masked out of every attention. The parts have
the names of ``rewrites.folded_decoder``.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mobilesam_export.contract import MASK_COUNT, PointLabel
from mobilesam_export.rewrites.absorb_projections import ImageToToken, TokenToImage
from mobilesam_export.rewrites.folded_decoder import (
    LEARNED_TOKENS,
    MASKED,
    FoldedDecoder,
    FoldedSelfAttention,
    FoldedTwoWayBlock,
    fold_decoder,
)
from mobilesam_export.rewrites.linear import linear_with, token_norm
from mobilesam_export.rewrites.transposed_conv_as_linear import transposed_conv_as_linear
from mobilesam_export.rewrites.two_way_block import TwoWayFlow
from mobilesam_export.targets.onnx.two_steps import CELLS_AT_ONCE
from reference.mobile_sam import MobileSam


class PointEmbeddingOnnx(nn.Module):
    """Labelled points to tokens, without branches."""

    gaussian: Tensor
    label_table: Tensor
    label_values: Tensor

    def __init__(self, folded: FoldedDecoder) -> None:
        super().__init__()
        self.image_size = folded.image_size
        self.register_buffer("gaussian", folded.gaussian * (2 * math.pi))
        absent = torch.zeros_like(folded.label_embeddings[:1])
        self.register_buffer("label_table", torch.cat([absent, folded.label_embeddings]))
        self.register_buffer("label_values", torch.tensor([float(label) for label in PointLabel]))  # of its rows

    def forward(self, coords: Tensor, labels: Tensor) -> Tensor:
        """Embed (B, N, 2) model-frame pixels with (B, N) ``PointLabel`` values as (B, N, C)."""
        unit = (coords + 0.5) / self.image_size  # pixel centres, in [0, 1]
        angles = (2 * unit - 1) @ self.gaussian
        encoded = torch.cat([angles.sin(), angles.cos()], dim=-1)
        real = (labels - PointLabel.PADDING).clamp(0, 1)[..., None]  # from background on
        # The label's row of the table as a product with 0, 0, 1, 0, ...: exact, and no engine lacks it.
        chosen = (1 - (labels[..., None] - self.label_values).abs()).clamp(min=0)
        return encoded * real + chosen @ self.label_table


class ImagePeOnnx(nn.Module):
    """The dense positional encoding: sine and cosine of a row term plus a column term.

    The file holds the terms (0.07 MB instead of 4.2 at 1024); the runtime folds the rest when it loads.
    """

    row_angles: Tensor
    column_angles: Tensor

    def __init__(self, folded: FoldedDecoder) -> None:
        super().__init__()
        self.grid = folded.grid
        gaussian = folded.gaussian * (2 * math.pi)
        centres = 2 * (torch.arange(self.grid) + 0.5) / self.grid - 1
        self.register_buffer("column_angles", centres[None, :, None] * gaussian[0])  # (1, W, C/2)
        self.register_buffer("row_angles", centres[:, None, None] * gaussian[1])  # (H, 1, C/2)

    def forward(self) -> Tensor:
        """Give (1, HW, C)."""
        angles = (self.row_angles + self.column_angles).reshape(1, self.grid**2, -1)
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


class MaskDownscalingOnnx(nn.Module):
    """An earlier mask as 17 maps, which ``weight`` would make a dense prompt embedding of; without one, all are zero.

    The image is the same for all prompts until the first block has written on it, and this part of rank 17 is never
    multiplied out (see ``FirstBlockOnnx``): a pass over (B, HW, C) less, and one product for all prompts.
    """

    weight: Tensor

    def __init__(self, folded: FoldedDecoder) -> None:
        super().__init__()
        conv1, norm1, conv2, norm2, conv3 = folded.mask_downscaling
        self.layers = nn.Sequential(conv1, norm1, nn.GELU(), conv2, norm2, nn.GELU())
        assert conv3.bias is not None
        # A map of ones beside the others carries the difference between the convolution's bias and "no mask".
        weight = torch.cat([conv3.weight[:, :, 0, 0], (conv3.bias - folded.no_mask)[:, None]], dim=1)
        self.register_buffer("weight", weight.T.contiguous())  # (17, C)

    def forward(self, mask_input: Tensor, has_mask_input: Tensor) -> Tensor:
        """Map (B, 1, S/4, S/4) logits to (B, 17, HW)."""
        x = self.layers(mask_input).flatten(2)
        ones = 1 + 0 * x[:, :1]  # neither Pad nor Expand, which OpenCV 4 lacks in this form
        return torch.cat([x, ones], dim=1) * has_mask_input.clamp(0, 1)  # some hosts say -1 for "none"


class SelfAttentionOnnx(nn.Module):
    """SAM's attention among tokens, with absent keys masked out and the scale in the query."""

    def __init__(self, folded: FoldedSelfAttention) -> None:
        super().__init__()
        self.heads = folded.heads
        self.q_proj, self.k_proj = folded.q_proj, folded.k_proj
        self.v_proj, self.out_proj = folded.v_proj, folded.out_proj

    def forward(self, q: Tensor, v: Tensor, absent: Tensor) -> Tensor:
        """Attend (B, T, C) queries, which are also the keys, to values; ``absent`` (B, 1, T) is added to scores."""
        heads = (self.heads, -1)
        query = self.q_proj(q).unflatten(-1, heads).transpose(1, 2)
        key = self.k_proj(q).unflatten(-1, heads).transpose(1, 2)
        value = self.v_proj(v).unflatten(-1, heads).transpose(1, 2)
        weights = torch.softmax(query @ key.transpose(-2, -1) + absent[:, None], dim=-1)
        output: Tensor = self.out_proj((weights @ value).transpose(1, 2).flatten(2))
        return output


class EmbeddedMask(NamedTuple):
    """(B, 17, HW) maps and the (17, C) weight that makes the dense prompt embedding of them."""

    maps: Tensor
    weight: Tensor


class TokenToImageOnnx(nn.Module):
    """See ``rewrites.absorb_projections``; queries come from tokens, keys and values are the image itself.

    Args:
        folded: its weights.
        omitted_bias: (C,) what the image comes without: in the softmax it cancels, the output bias takes the rest.
    """

    key_weight: Tensor
    value_weight: Tensor

    def __init__(self, folded: TokenToImage, omitted_bias: Tensor | None = None) -> None:
        super().__init__()
        self.heads = folded.heads
        self.q_proj = linear_with(folded.query_weight, folded.query_bias)
        self.register_buffer("key_weight", folded.key_weight.float())
        self.register_buffer("value_weight", folded.value_weight.float())
        out_bias = folded.out_bias
        if omitted_bias is not None:
            out_bias = out_bias + folded.out_weight @ (omitted_bias.double() @ folded.value_weight).flatten()
        self.out_proj = linear_with(folded.out_weight, out_bias)

    def forward(
        self, tokens_with_pe: Tensor, image_with_pe: Tensor, image: Tensor, mask: EmbeddedMask | None = None
    ) -> Tensor:
        """Attend (B, T, C) tokens to (B or 1, HW, C) image positions; returns (B, T, C)."""
        batch, count, channels = tokens_with_pe.shape
        query = self.q_proj(tokens_with_pe).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        query = (query @ self.key_weight).reshape(batch, self.heads * count, channels)
        scores = query @ image_with_pe.transpose(1, 2)  # (B, hT, HW)
        if mask is not None:
            scores = scores + (query @ mask.weight.T) @ mask.maps
        weights = torch.softmax(scores, dim=-1)
        summed = weights @ image
        if mask is not None:
            summed = summed + (weights @ mask.maps.transpose(1, 2)) @ mask.weight
        values = summed.reshape(batch, self.heads, count, channels) @ self.value_weight  # (B, h, T, d)
        output: Tensor = self.out_proj(values.transpose(1, 2).flatten(2))
        return output


class ImageToTokenOnnx(nn.Module):
    """See ``rewrites.absorb_projections``; queries are the image itself, keys and values come from tokens.

    Args:
        folded: its weights.
        omitted_bias: (C,) what the image comes without; the answer comes with it.
    """

    query_weight: Tensor
    query_bias: Tensor
    out_weight: Tensor
    out_bias: Tensor

    def __init__(self, folded: ImageToToken, omitted_bias: Tensor | None = None) -> None:
        super().__init__()
        query_bias, out_bias = folded.query_bias, folded.out_bias
        if omitted_bias is not None:
            query_bias = query_bias + folded.query_weight @ omitted_bias.double()
            out_bias = out_bias + omitted_bias.double()
        self.heads = folded.heads
        self.k_proj = linear_with(folded.key_weight, folded.key_bias)
        self.v_proj = linear_with(folded.value_weight, folded.value_bias)
        self.register_buffer("query_weight", folded.query_weight.float())
        self.register_buffer("query_bias", query_bias.float()[:, :, None])
        self.register_buffer("out_weight", folded.out_weight.float())
        # A head's weights sum to one: a bias spread over the heads comes out whole, without a pass over the image.
        self.register_buffer("out_bias", (out_bias / self.heads).float())

    def forward(
        self,
        image_with_pe: Tensor,
        tokens_with_pe: Tensor,
        tokens: Tensor,
        absent: Tensor,
        mask: EmbeddedMask | None = None,
    ) -> Tensor:
        """Attend (B or 1, HW, C) image positions to (B, T, C) tokens; returns (B, HW, C), with the mask added."""
        batch, count, channels = tokens.shape
        heads = (self.heads, -1)
        key = self.k_proj(tokens_with_pe).unflatten(-1, heads).transpose(1, 2)  # (B, h, T, d)
        value = self.v_proj(tokens).unflatten(-1, heads).transpose(1, 2)
        columns = (key @ self.query_weight).reshape(batch, self.heads * count, channels)  # (B, hT, C)
        offset = (key @ self.query_bias).reshape(batch, self.heads * count, 1) + absent.transpose(1, 2).repeat(
            1, self.heads, 1
        )
        scores = columns @ image_with_pe.transpose(1, 2) + offset
        if mask is not None:
            scores = scores + (columns @ mask.weight.T) @ mask.maps
        scores = scores.unflatten(1, (self.heads, count))  # (B, h, T, HW)
        # Softmax over few tokens by hand: the runtime's own kernel starts anew for each of HW * h rows of T numbers.
        exponentials = (scores - scores.amax(2, keepdim=True)).exp()
        weights = (exponentials / exponentials.sum(2, keepdim=True)).flatten(1, 2)  # (B, hT, HW)
        carried = (value @ self.out_weight + self.out_bias).reshape(batch, self.heads * count, channels)
        if mask is not None:
            weights = torch.cat([weights, mask.maps], dim=1)
            carried = torch.cat([carried, mask.weight.expand(batch, -1, -1)], dim=1)
        output: Tensor = weights.transpose(1, 2) @ carried
        return output


class ImageNormOnnx(nn.Module):
    """A LayerNorm on 2-D tokens, for the reason that the encoder's tokens are 2-D."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, HW, C) to the same shape."""
        batch, positions, channels = image.shape
        normal: Tensor = self.norm(image.reshape(-1, channels))
        return normal.reshape(batch, positions, channels)


class FirstBlockOnnx(nn.Module):
    """The first block, where all prompts meet the same image: ``image`` is (1, HW, C), without mask embedding."""

    def __init__(self, folded: FoldedTwoWayBlock, no_mask: Tensor) -> None:
        super().__init__()
        assert folded.first
        self.self_attn, self.mlp = SelfAttentionOnnx(folded.self_attn), folded.mlp
        self.cross_attn_token_to_image = TokenToImageOnnx(folded.cross_attn_token_to_image, no_mask)
        self.cross_attn_image_to_token = ImageToTokenOnnx(folded.cross_attn_image_to_token, no_mask)
        self.norm1, self.norm2, self.norm3, norm4 = folded.norms
        self.norm4 = ImageNormOnnx(norm4)

    def forward(
        self, image: Tensor, mask: EmbeddedMask, token_pe: Tensor, image_pe: Tensor, absent: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Give (B, T, C) tokens and the (B, HW, C) image."""
        tokens = self.norm1(self.self_attn(token_pe, token_pe, absent))
        image_with_pe = image + image_pe
        tokens = self.norm2(tokens + self.cross_attn_token_to_image(tokens + token_pe, image_with_pe, image, mask))
        tokens = self.norm3(tokens + self.mlp(tokens))
        written = self.cross_attn_image_to_token(image_with_pe, tokens + token_pe, tokens, absent, mask)
        return tokens, self.norm4(image + written)


def later_block(folded: FoldedTwoWayBlock) -> TwoWayFlow:
    """One two-way block behind the first."""
    norm1, norm2, norm3, norm4 = folded.norms
    return TwoWayFlow(
        folded.first,
        SelfAttentionOnnx(folded.self_attn),
        TokenToImageOnnx(folded.cross_attn_token_to_image),
        folded.mlp,
        ImageToTokenOnnx(folded.cross_attn_image_to_token),
        (norm1, norm2, norm3, ImageNormOnnx(norm4)),
    )


class OutputUpscalingOnnx(nn.Module):
    """Two transposed convolutions as linear layers on tokens; pixels stay in the order of the linear layers."""

    def __init__(self, folded: FoldedDecoder) -> None:
        super().__init__()
        up1, norm, up2 = folded.output_upscaling
        self.up1 = linear_with(*transposed_conv_as_linear(up1))
        self.norm = token_norm(norm)
        self.up2 = linear_with(*transposed_conv_as_linear(up2))

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, HW, C) to (B, HW * 16, C/8), ordered y, x, dy, dx, ey, ex."""
        batch, positions, channels = image.shape
        x = self.up1(image.reshape(-1, channels)).reshape(batch * positions * 4, -1)  # order: y, x, dy, dx
        x = F.gelu(self.norm(x))
        return F.gelu(self.up2(x)).reshape(batch, positions * 16, -1)


class PromptDecoderOnnx(nn.Module):
    """Prompts on an embedding to mask logits and predicted IoU.

    Args:
        sam: the reference, in eval mode; it stays as it is.
        single_mask: return only the mask that the official ONNX wrapper's ``return_single_mask`` chooses.
    """

    learned_tokens: Tensor

    def __init__(self, sam: MobileSam, single_mask: bool = False) -> None:
        super().__init__()
        folded = fold_decoder(sam)
        self.grid = folded.grid
        self.single_mask = single_mask
        self.point_embedding = PointEmbeddingOnnx(folded)
        self.mask_downscaling = MaskDownscalingOnnx(folded)
        self.image_pe = ImagePeOnnx(folded)
        self.register_buffer("learned_tokens", folded.learned_tokens[None])
        first, *later = folded.layers
        self.layers = nn.ModuleList([FirstBlockOnnx(first, folded.no_mask), *map(later_block, later)])
        self.final_attn_token_to_image = TokenToImageOnnx(folded.final_attn_token_to_image)
        self.norm_final_attn = folded.norm_final_attn
        self.output_upscaling = OutputUpscalingOnnx(folded)
        self.output_hypernetworks_mlps = folded.output_hypernetworks_mlps
        self.iou_prediction_head = folded.iou_prediction_head
        self.requires_grad_(False).eval()

    def forward(
        self,
        image_embeddings: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Decode B prompts; inputs and outputs as in ``contract.Contract``."""
        sparse = self.point_embedding(point_coords, point_labels)
        learned = self.learned_tokens.expand(sparse.shape[0], -1, -1)
        token_pe = torch.cat([learned, sparse], dim=1)  # SAM's tokens are their own positional encoding
        absent = (PointLabel.PADDING - point_labels).clamp(0, 1)  # 1 in absent slots
        absent = torch.cat([0 * learned[..., 0], absent], dim=1)[:, None] * MASKED
        mask = EmbeddedMask(self.mask_downscaling(mask_input, has_mask_input), self.mask_downscaling.weight)
        image_pe = self.image_pe()
        first, *later = self.layers
        tokens, image = first(image_embeddings.flatten(2).transpose(1, 2), mask, token_pe, image_pe, absent)
        for layer in later:
            tokens, image = layer(tokens, image, token_pe, image_pe, absent)
        tokens = tokens[:, :LEARNED_TOKENS]  # the heads read the learned tokens only
        attended = self.final_attn_token_to_image(tokens + learned, image + image_pe, image)
        tokens = self.norm_final_attn(tokens + attended)
        low_res_masks = self.draw(image, tokens[:, 1:LEARNED_TOKENS])
        iou_predictions = self.iou_prediction_head(tokens[:, 0])
        if self.single_mask:
            present = (point_labels - PointLabel.ABSENT).clamp(0, 1).sum(1, keepdim=True)
            bonus = (present - 2.5) * torch.tensor([1000.0, 0.0, 0.0, 0.0])
            best = (iou_predictions + bonus).argmax(dim=1, keepdim=True)
            iou_predictions = iou_predictions.gather(1, best)
            low_res_masks = low_res_masks.gather(1, best[..., None, None].expand(-1, -1, *low_res_masks.shape[2:]))
        return low_res_masks, iou_predictions

    def draw(self, image: Tensor, mask_tokens: Tensor) -> Tensor:
        """Upscale (B, HW, C) and multiply by the kernels of (B, 4, C) mask tokens: (B, 4, S/4, S/4) logits."""
        batch = image.shape[0]
        mlps = self.output_hypernetworks_mlps
        kernels = torch.stack([mlp(mask_tokens[:, i]) for i, mlp in enumerate(mlps)], dim=1)
        # By parts, of which all that is in between stays in a core's cache.
        parts = [kernels @ self.output_upscaling(part).transpose(1, 2) for part in image.split(CELLS_AT_ONCE, dim=1)]
        masks = torch.cat(parts, dim=-1)  # (B, 4, HW * 16)
        masks = masks.reshape(batch * MASK_COUNT, self.grid, self.grid, 2, 2, 2, 2).permute(0, 1, 3, 5, 2, 4, 6)
        return masks.reshape(batch, MASK_COUNT, self.grid * 4, self.grid * 4)
