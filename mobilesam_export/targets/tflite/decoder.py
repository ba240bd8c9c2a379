"""The prompt decoder for LiteRT: channels-last, rank 4 at most, one prompt, a fixed number of point slots.

Only T = 5 + N tokens meet 4096 image cells, so the image is never projected: ``cross_attention``
keeps every weight on the token side. Labels become a one-hot by arithmetic, because EQUAL and CAST would
split the delegate. Transposed convolutions are linear layers whose 2x2 outputs stay on the channel axis
until only the four masks are left to rearrange.

Half of the time goes into passes over 4096 x 256 numbers that do no matrix product. So LayerNorms take no mean
where weights can be centred instead, and the image carries no LayerNorm's beta: all who read it know.
"""

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mobilesam_export.contract import DEFAULT_MAX_POINTS, MASK_COUNT, PointLabel
from mobilesam_export.rewrites.linear import linear_with
from mobilesam_export.rewrites.transposed_conv_as_linear import transposed_conv_as_linear
from mobilesam_export.targets.tflite.channels_last import (
    ConvNhwc,
    LayerNormNhwc,
    centre_outputs,
    centred_conv,
    pointwise,
)
from mobilesam_export.targets.tflite.cross_attention import ImageToTokens, TokensToImage, split_heads
from reference.layer_norm_2d import LayerNorm2d
from reference.mobile_sam import MobileSam
from reference.prompt_encoder import PromptEncoder
from reference.two_way_transformer import Attention, TwoWayBlock

MASKED = -1e4  # additive; its exponential is 0 in float32, and float16 can hold it


class PointEmbedder(nn.Module):
    """Points and labels to (1, N, 256) tokens and the (1, N) additive mask of absent slots."""

    frequencies: Tensor
    phase: Tensor
    learned: Tensor
    labels: Tensor

    def __init__(self, encoder: PromptEncoder) -> None:
        super().__init__()
        gaussian = encoder.pe_layer.positional_encoding_gaussian_matrix.double()
        # ((xy + 0.5) / S * 2 - 1) G as one product of normalised coordinates; kept float32 in every precision.
        self.register_buffer("frequencies", (2 * gaussian).float())
        self.register_buffer("phase", ((1 / encoder.image_size - 1) * gaussian.sum(0)).float())
        self.pixel = 1 / encoder.image_size
        learned = [encoder.not_a_point_embed, *encoder.point_embeddings]
        rows = [embedding.weight for embedding in learned if isinstance(embedding, nn.Embedding)]
        self.register_buffer("learned", torch.cat(rows).detach())  # rows: labels -1, 0, 1, 2, 3
        self.register_buffer("labels", torch.arange(-1.0, 4.0))

    def forward(self, coords: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Embed (1, N, 2) x, y model-frame pixels with (1, N) labels."""
        turns = (coords * self.pixel) @ self.frequencies + self.phase
        # A GPU's sine is exact to 2^-11 between -pi and pi only (Vulkan, OpenGL ES); whole turns go first.
        angles = (turns - torch.floor(turns + 0.5)) * (2 * math.pi)
        positional = torch.cat([angles.sin(), angles.cos()], dim=-1)
        kind = labels[..., None]
        one_hot = torch.relu(1 - (kind - self.labels).abs())  # (1, N, 5); an absent slot is zero throughout
        located = torch.relu(1 - torch.relu(-kind))  # 1 for labels of 0 and above
        absent = torch.relu(1 - (labels - float(PointLabel.ABSENT)).abs())
        return positional * located + one_hot @ self.learned, absent * MASKED


class MaskEmbedder(nn.Module):
    """Mask logits to (1, S/16, S/16, 256), or the learned "no mask"."""

    no_mask: Tensor

    def __init__(self, encoder: PromptEncoder) -> None:
        super().__init__()
        layers = encoder.mask_downscaling
        first, second, last = (layer for layer in layers if isinstance(layer, nn.Conv2d))
        self.first, self.second, self.last = centred_conv(first), centred_conv(second), ConvNhwc(last)
        norms = (layer for layer in layers if isinstance(layer, LayerNorm2d))
        self.norm1, self.norm2 = (LayerNormNhwc(norm, centred=True) for norm in norms)
        assert last.bias is not None
        no_mask = encoder.no_mask_embed.weight.detach() - last.bias.detach()  # the convolution adds its bias either way
        self.register_buffer("no_mask", no_mask.reshape(1, 1, 1, -1))

    def forward(self, mask_input: Tensor, has_mask: Tensor) -> Tensor:
        """Embed (1, 1, S/4, S/4) logits; ``has_mask`` (1,) is 0 or 1."""
        side = mask_input.shape[-1]
        x = F.gelu(self.norm1(self.first(mask_input.reshape(1, side, side, 1))))
        given = has_mask.reshape(1, 1, 1, 1)
        x = F.gelu(self.norm2(self.second(x))) * given  # 16 channels; behind the convolution it would be 256
        embedded: Tensor = self.last(x) + self.no_mask * (1 - given)
        return embedded


class SelfAttention(nn.Module):
    """SAM's attention among tokens, with an additive mask and the scale in the query."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.heads = attention.heads
        scale = (attention.q_proj.out_features // attention.heads) ** -0.5
        self.query = linear_with(attention.q_proj.weight * scale, attention.q_proj.bias * scale)
        self.key, self.value, self.out = attention.k_proj, attention.v_proj, attention.out_proj

    def forward(self, q: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """Attend queries and keys ``q`` to values ``v``, both (1, T, 256), under a (1, T) mask of keys."""
        queries, keys, values = (
            split_heads(project(x), self.heads) for project, x in ((self.query, q), (self.key, q), (self.value, v))
        )
        weights = torch.softmax(queries @ keys.transpose(1, 2) + mask[:, None], dim=-1)
        output: Tensor = self.out((weights @ values).transpose(0, 1).reshape(v.shape))
        return output


class TwoWayBlockTflite(nn.Module):
    """SAM's two-way block with the image side never projected.

    Args:
        block: the reference's.
        missing: (C,) what the keys lack, see ``cross_attention``; those it returns lack ``norm4``'s beta.
    """

    def __init__(self, block: TwoWayBlock, missing: Tensor) -> None:
        super().__init__()
        self.first, self.mlp = block.first, block.mlp
        self.self_attention = SelfAttention(block.self_attn)
        self.tokens_to_image = TokensToImage(block.cross_attn_token_to_image, missing)
        self.image_to_tokens = ImageToTokens(block.cross_attn_image_to_token, missing)
        self.norm1, self.norm2, self.norm3 = (LayerNormNhwc(norm) for norm in (block.norm1, block.norm2, block.norm3))
        self.norm4 = LayerNormNhwc(block.norm4, shifted=False)

    def forward(
        self, queries: Tensor, keys: Tensor, query_pe: Tensor, key_pe: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Update (1, T, 256) queries and (1, HW, 256) keys; ``mask`` (1, T) hides absent tokens."""
        if self.first:
            queries = self.self_attention(queries, queries, mask)
        else:
            queries = queries + self.self_attention(queries + query_pe, queries, mask)
        queries = self.norm1(queries)
        located = keys + key_pe
        queries = self.norm2(queries + self.tokens_to_image(queries + query_pe, located, keys))
        queries = self.norm3(queries + self.mlp(queries))
        keys = self.norm4(keys + self.image_to_tokens(located, queries + query_pe, queries, mask))
        return queries, keys


class Upscaler(nn.Module):
    """Two transposed 2x2 convolutions and the dot product with the mask kernels, rearranged once at the end.

    Args:
        upscaling: the reference's.
        missing: (C,) what the image lacks.
    """

    def __init__(self, upscaling: nn.Sequential, missing: Tensor) -> None:
        super().__init__()
        first, second = (layer for layer in upscaling if isinstance(layer, nn.ConvTranspose2d))
        weight, bias = (tensor.double() for tensor in transposed_conv_as_linear(first))
        self.first = linear_with(*centre_outputs(weight, bias + weight @ missing.double(), groups=4))
        self.second = pointwise(*transposed_conv_as_linear(second))
        (norm,) = (layer for layer in upscaling if isinstance(layer, LayerNorm2d))
        self.norm = LayerNormNhwc(norm, centred=True)

    def forward(self, keys: Tensor, kernels: Tensor, side: int) -> Tensor:
        """(1, side^2, 256) image and (1, 4, 32) kernels to (1, 4, 4 side, 4 side) logits."""
        x = self.first(keys).reshape(1, side, side * 4, -1)
        x = F.gelu(self.second(F.gelu(self.norm(x)))).reshape(1, side * side * 16, -1)
        masks = x @ kernels.transpose(1, 2)  # rows ordered y, x, dy, dx, ey, ex
        masks = depth_to_space(masks.reshape(1, side, side, 16 * MASK_COUNT))
        return depth_to_space(masks).permute(0, 3, 1, 2)  # BHWC -> BCHW


def depth_to_space(x: Tensor) -> Tensor:
    """(1, H, W, (dy, dx, c)) to (1, 2H, 2W, c): the pattern the target replaces by DEPTH_TO_SPACE."""
    _, height, width, channels = x.shape
    x = x.reshape(1, height, width, 2, 2, channels // 4).permute(0, 1, 3, 2, 4, 5)
    return x.reshape(1, height * 2, width * 2, channels // 4)


class PromptDecoderTflite(nn.Module):
    """One prompt to four masks.

    Args:
        sam: the reference model.
        max_points: N, slots for points and box corners; the unused ones are labelled ABSENT.
    """

    image_pe: Tensor
    learned: Tensor
    present: Tensor

    def __init__(self, sam: MobileSam, max_points: int = DEFAULT_MAX_POINTS) -> None:
        super().__init__()
        sam = copy.deepcopy(sam)  # layers that need no change are taken as they are
        decoder = sam.mask_decoder
        self.grid, self.max_points = sam.image_size // 16, max_points
        self.points, self.masks = PointEmbedder(sam.prompt_encoder), MaskEmbedder(sam.prompt_encoder)
        image_pe = sam.prompt_encoder.image_pe().detach()
        self.register_buffer("image_pe", image_pe.flatten(2).transpose(1, 2).contiguous())  # (1, HW, 256)
        learned = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight]).detach()
        self.register_buffer("learned", learned[None].clone())  # (1, 5, 256)
        self.register_buffer("present", torch.zeros(1, len(learned)))
        transformer = decoder.transformer
        missing = torch.zeros(image_pe.shape[1])
        self.blocks = nn.ModuleList()
        for block in transformer.layers:
            assert isinstance(block, TwoWayBlock)
            self.blocks.append(TwoWayBlockTflite(block, missing))
            missing = block.norm4.bias.detach()
        self.final_attention = TokensToImage(transformer.final_attn_token_to_image, missing)
        self.final_norm = LayerNormNhwc(transformer.norm_final_attn)
        self.upscaler = Upscaler(decoder.output_upscaling, missing)
        self.kernels, self.quality = decoder.output_hypernetworks_mlps, decoder.iou_prediction_head
        self.requires_grad_(False).eval()

    def forward(
        self,
        image_embeddings: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
    ) -> dict[str, Tensor]:
        """Decode one prompt.

        Args:
            image_embeddings: (1, S/16, S/16, 256), as the encoder wrote them.
            point_coords: (1, N, 2) x, y in model-frame pixels.
            point_labels: (1, N) of ``contract.PointLabel``.
            mask_input: (1, 1, S/4, S/4) logits.
            has_mask_input: (1,) 0 or 1.

        Returns:
            ``low_res_masks`` (1, 4, S/4, S/4) logits and ``iou_predictions`` (1, 4).
        """
        sparse, absent = self.points(point_coords, point_labels)
        tokens = torch.cat([self.learned, sparse], dim=1)
        mask = torch.cat([self.present, absent], dim=1)
        keys = (image_embeddings + self.masks(mask_input, has_mask_input)).reshape(1, self.grid**2, -1)
        queries = tokens
        for block in self.blocks:
            queries, keys = block(queries, keys, tokens, self.image_pe, mask)
        queries = queries[:, : self.learned.shape[1]]  # nobody reads what the points have become
        attended = self.final_attention(queries + self.learned, keys + self.image_pe, keys)
        queries = self.final_norm(queries + attended)
        kernels = torch.cat([mlp(queries[:, i + 1 : i + 2]) for i, mlp in enumerate(self.kernels)], dim=1)
        return {
            "low_res_masks": self.upscaler(keys, kernels, self.grid),
            "iou_predictions": self.quality(queries[:, 0]),
        }
