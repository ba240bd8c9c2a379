"""The prompt decoder on (1, H, W, C), one prompt, a fixed number of point slots: the flow, and what needs no own form.

Only T = 5 + N tokens meet 4096 image cells, so the image is never projected: cross-attentions keep every weight on
the token side. LayerNorms take no mean where weights can be centred instead, and the LayerNorm of the image adds no
bias: the layers that read the image have this ``omitted_bias`` worked into their own weights. The parts have the names
of ``rewrites.folded_decoder``; how each computes is the target's own.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mobilesam_export.rewrites.absorb_projections import ImageToToken, TokenToImage
from mobilesam_export.rewrites.centre_outputs import centred
from mobilesam_export.rewrites.channels_last.encoder import Layer
from mobilesam_export.rewrites.folded_decoder import (
    LEARNED_TOKENS,
    FoldedDecoder,
    FoldedSelfAttention,
    fold_decoder,
)
from mobilesam_export.rewrites.omit_bias import image_to_token_without, token_to_image_without
from mobilesam_export.rewrites.two_way_block import TwoWayFlow
from reference.mobile_sam import MobileSam


@dataclass(frozen=True)
class DecoderParts:
    """How a target writes the parts.

    Attributes:
        layer: a convolution.
        norm: LayerNorm over the last axis, of (a norm, ``centred=False``, ``shifted=True``).
        point_embedding: points and labels to (1, N, 256) tokens and the (1, N) scores of absent slots.
        self_attention: among tokens.
        token_to_image, image_to_token: cross-attentions.
        output_upscaling: of the weights, and of the (C,) bias that the image comes without.
    """

    layer: Layer
    norm: Callable[..., nn.Module]
    point_embedding: Callable[[FoldedDecoder], nn.Module]
    self_attention: Callable[[FoldedSelfAttention], nn.Module]
    token_to_image: Callable[[TokenToImage], nn.Module]
    image_to_token: Callable[[ImageToToken], nn.Module]
    output_upscaling: Callable[[FoldedDecoder, Tensor], nn.Module]


class MaskDownscalingChannelsLast(nn.Module):
    """Mask logits to (1, S/16, S/16, 256), or the learned "no mask".

    Args:
        folded: its weights.
        parts: whose convolutions and norms it is written with.
    """

    no_mask: Tensor

    def __init__(self, folded: FoldedDecoder, parts: DecoderParts) -> None:
        super().__init__()
        layer, norm = parts.layer, parts.norm
        conv1, norm1, conv2, norm2, conv3 = folded.mask_downscaling
        self.conv1, self.conv2, self.conv3 = layer(centred(conv1)), layer(centred(conv2)), layer(conv3)
        self.norm1, self.norm2 = norm(norm1, centred=True), norm(norm2, centred=True)
        assert conv3.bias is not None
        no_mask = folded.no_mask - conv3.bias  # the convolution adds its bias either way
        self.register_buffer("no_mask", no_mask.reshape(1, 1, 1, -1))

    def forward(self, mask_input: Tensor, has_mask_input: Tensor) -> Tensor:
        """Embed (1, 1, S/4, S/4) logits; ``has_mask_input`` (1,) is 0 or 1, and less than 0 is 0."""
        side = mask_input.shape[-1]
        x = F.gelu(self.norm1(self.conv1(mask_input.reshape(1, side, side, 1))))
        # Between 0 and 1 without a clamp, which delegates lack; 1.0 and not 1, which XNNPACK's partition lacks.
        given = 1.0 - torch.relu(1.0 - torch.relu(has_mask_input.reshape(1, 1, 1, 1)))
        x = F.gelu(self.norm2(self.conv2(x))) * given  # 16 channels; behind the convolution it would be 256
        embedded: Tensor = self.conv3(x) + self.no_mask * (1.0 - given)
        return embedded


class PromptDecoderChannelsLast(nn.Module):
    """One prompt up to the masks' kernels; drawing them is the target's own.

    Args:
        sam: the reference model, in eval mode; it stays as it is.
        max_points: N, slots for points and box corners; the unused ones are labelled ABSENT.
        parts: the target's.
    """

    image_pe: Tensor
    learned_tokens: Tensor
    present: Tensor

    def __init__(self, sam: MobileSam, max_points: int, parts: DecoderParts) -> None:
        super().__init__()
        folded, norm = fold_decoder(sam), parts.norm
        self.grid, self.max_points = folded.grid, max_points
        self.point_embedding = parts.point_embedding(folded)
        self.mask_downscaling = MaskDownscalingChannelsLast(folded, parts)
        image_pe = sam.prompt_encoder.image_pe().detach()
        self.register_buffer("image_pe", image_pe.flatten(2).transpose(1, 2).contiguous())  # (1, HW, 256)
        self.register_buffer("learned_tokens", folded.learned_tokens[None])  # (1, 5, 256)
        self.register_buffer("present", torch.zeros(1, LEARNED_TOKENS))
        omitted_bias = torch.zeros(image_pe.shape[1])  # what the image comes without, see ``rewrites.omit_bias``
        self.layers = nn.ModuleList()
        for block in folded.layers:
            norm1, norm2, norm3, norm4 = block.norms
            self.layers.append(
                TwoWayFlow(
                    block.first,
                    parts.self_attention(block.self_attn),
                    parts.token_to_image(token_to_image_without(block.cross_attn_token_to_image, omitted_bias)),
                    block.mlp,
                    parts.image_to_token(image_to_token_without(block.cross_attn_image_to_token, omitted_bias)),
                    (norm(norm1), norm(norm2), norm(norm3), norm(norm4, shifted=False)),
                )
            )
            omitted_bias = norm4.bias
        final = token_to_image_without(folded.final_attn_token_to_image, omitted_bias)
        self.final_attn_token_to_image = parts.token_to_image(final)
        self.norm_final_attn = norm(folded.norm_final_attn)
        self.output_upscaling = parts.output_upscaling(folded, omitted_bias)
        self.output_hypernetworks_mlps = folded.output_hypernetworks_mlps
        self.iou_prediction_head = folded.iou_prediction_head
        self.requires_grad_(False).eval()

    def attend(
        self,
        image_embeddings: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The two-way transformer on one prompt.

        Args:
            image_embeddings: (1, S/16, S/16, 256), as the encoder wrote them.
            point_coords: (1, N, 2) x, y in model-frame pixels.
            point_labels: (1, N) of ``contract.PointLabel``.
            mask_input: (1, 1, S/4, S/4) logits.
            has_mask_input: (1,) 0 or 1.

        Returns:
            the (1, HW, 256) image, the (1, 5, 256) learned tokens and the masks' (1, 4, 32) kernels.
        """
        sparse, absent = self.point_embedding(point_coords, point_labels)
        token_pe = torch.cat([self.learned_tokens, sparse], dim=1)  # SAM's tokens are their own positional encoding
        absent = torch.cat([self.present, absent], dim=1)
        dense = self.mask_downscaling(mask_input, has_mask_input)
        image = (image_embeddings + dense).reshape(1, self.grid**2, -1)
        tokens = token_pe
        for layer in self.layers:
            tokens, image = layer(tokens, image, token_pe, self.image_pe, absent)
        tokens = tokens[:, :LEARNED_TOKENS]  # the heads read the learned tokens only
        attended = self.final_attn_token_to_image(tokens + self.learned_tokens, image + self.image_pe, image)
        tokens = self.norm_final_attn(tokens + attended)
        mlps = self.output_hypernetworks_mlps
        kernels = torch.cat([mlp(tokens[:, i + 1 : i + 2]) for i, mlp in enumerate(mlps)], dim=1)
        return image, tokens, kernels
