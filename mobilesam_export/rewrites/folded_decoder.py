"""The weights of SAM's prompt encoder and mask decoder with every rewrite applied, independent of any target's layout.

The layout modules (``targets/*/decoder.py``) take their weights from here, so that what is folded, and how, is decided
once. They name their parts as SAM does: ``mask_downscaling``, ``layers`` of ``self_attn``,
``cross_attn_token_to_image``, ``mlp``, ``cross_attn_image_to_token`` and four norms, ``final_attn_token_to_image``,
``norm_final_attn``, ``output_upscaling``, ``output_hypernetworks_mlps``, ``iou_prediction_head``; and what embeds
points and labels ``point_embedding``. Between the parts go ``tokens`` with their positional encoding ``token_pe``, the
image with its own (``image``, ``image_pe``, and their sum ``image_with_pe``), and ``absent``, which is ``MASKED`` for
the slots that a prompt does not need and 0 for all other tokens.
"""

import copy
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from mobilesam_export.contract import MASK_COUNT
from mobilesam_export.rewrites.absorb_projections import (
    ImageToToken,
    TokenToImage,
    absorb_image_to_token,
    absorb_token_to_image,
)
from mobilesam_export.rewrites.linear import linear_with
from reference.layer_norm_2d import LayerNorm2d
from reference.mask_decoder import MLP
from reference.mobile_sam import MobileSam
from reference.two_way_transformer import Attention, TransformerMLP, TwoWayBlock

MASKED = -1e4  # added to the scores of absent tokens; its exponential is 0 in float32 and float16, which can hold it
LEARNED_TOKENS = 1 + MASK_COUNT  # the IoU token and the mask tokens stand before the prompt's

Layer = TypeVar("Layer", bound=nn.Module)


@dataclass(frozen=True)
class FoldedSelfAttention:
    """SAM's attention among tokens; ``q_proj`` has the scale of the scores in it."""

    heads: int
    q_proj: nn.Linear
    k_proj: nn.Linear
    v_proj: nn.Linear
    out_proj: nn.Linear


@dataclass(frozen=True)
class FoldedTwoWayBlock:
    """One block of the two-way transformer.

    Attributes:
        first: its self-attention has neither positional encoding nor residual.
        norms: ``norm1`` to ``norm4``: behind self-attention, token to image, MLP and image to token.
    """

    first: bool
    self_attn: FoldedSelfAttention
    cross_attn_token_to_image: TokenToImage
    mlp: TransformerMLP
    cross_attn_image_to_token: ImageToToken
    norms: tuple[nn.LayerNorm, nn.LayerNorm, nn.LayerNorm, nn.LayerNorm]


@dataclass(frozen=True)
class FoldedDecoder:
    """Prompt encoder and mask decoder; all layers are frozen copies.

    Attributes:
        image_size: S.
        gaussian: (2, C/2) of the positional encoding: the sine and cosine of 2 pi (2 x - 1) @ gaussian for x, y in
            [0, 1]. As it is in SAM: how it is scaled, and in which precision, is a layout's own choice.
        label_embeddings: (5, C) of the labels -1 (padding), 0, 1, 2 and 3.
        learned_tokens: (5, C), the IoU token and the four mask tokens.
        mask_downscaling: three convolutions, a norm and GELU behind each of the first two.
        no_mask: (C,), the dense embedding without a mask.
        output_upscaling: two transposed convolutions, a norm behind the first, GELU behind both.
    """

    image_size: int
    gaussian: Tensor
    label_embeddings: Tensor
    learned_tokens: Tensor
    mask_downscaling: tuple[nn.Conv2d, LayerNorm2d, nn.Conv2d, LayerNorm2d, nn.Conv2d]
    no_mask: Tensor
    layers: tuple[FoldedTwoWayBlock, ...]
    final_attn_token_to_image: TokenToImage
    norm_final_attn: nn.LayerNorm
    output_upscaling: tuple[nn.ConvTranspose2d, LayerNorm2d, nn.ConvTranspose2d]
    output_hypernetworks_mlps: nn.ModuleList
    iou_prediction_head: MLP

    @property
    def grid(self) -> int:
        """Side of the image embedding."""
        return self.image_size // 16


def fold_decoder(sam: MobileSam) -> FoldedDecoder:
    """Apply every rewrite to SAM's prompt encoder and mask decoder; the model passed in stays as it is.

    Raises:
        ValueError: from a rewrite that refuses.
    """
    prompt, decoder = sam.prompt_encoder, sam.mask_decoder
    transformer = decoder.transformer
    labels = [cast(nn.Embedding, embedding) for embedding in (prompt.not_a_point_embed, *prompt.point_embeddings)]
    conv1, norm1, _, conv2, norm2, _, conv3 = prompt.mask_downscaling
    up1, norm, _, up2, _ = decoder.output_upscaling
    return FoldedDecoder(
        image_size=sam.image_size,
        gaussian=prompt.pe_layer.positional_encoding_gaussian_matrix.detach().clone(),
        label_embeddings=torch.cat([embedding.weight for embedding in labels]).detach(),
        learned_tokens=torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight]).detach(),
        mask_downscaling=(
            _frozen(cast(nn.Conv2d, conv1)),
            _frozen(cast(LayerNorm2d, norm1)),
            _frozen(cast(nn.Conv2d, conv2)),
            _frozen(cast(LayerNorm2d, norm2)),
            _frozen(cast(nn.Conv2d, conv3)),
        ),
        no_mask=prompt.no_mask_embed.weight[0].detach().clone(),
        layers=tuple(_fold_block(cast(TwoWayBlock, block)) for block in transformer.layers),
        final_attn_token_to_image=absorb_token_to_image(transformer.final_attn_token_to_image),
        norm_final_attn=_frozen(transformer.norm_final_attn),
        output_upscaling=(
            _frozen(cast(nn.ConvTranspose2d, up1)),
            _frozen(cast(LayerNorm2d, norm)),
            _frozen(cast(nn.ConvTranspose2d, up2)),
        ),
        output_hypernetworks_mlps=_frozen(decoder.output_hypernetworks_mlps),
        iou_prediction_head=_frozen(decoder.iou_prediction_head),
    )


def _fold_block(block: TwoWayBlock) -> FoldedTwoWayBlock:
    return FoldedTwoWayBlock(
        first=block.first,
        self_attn=_fold_self_attention(block.self_attn),
        cross_attn_token_to_image=absorb_token_to_image(block.cross_attn_token_to_image),
        mlp=_frozen(block.mlp),
        cross_attn_image_to_token=absorb_image_to_token(block.cross_attn_image_to_token),
        norms=(_frozen(block.norm1), _frozen(block.norm2), _frozen(block.norm3), _frozen(block.norm4)),
    )


def _fold_self_attention(attention: Attention) -> FoldedSelfAttention:
    scale = (attention.q_proj.out_features // attention.heads) ** -0.5
    return FoldedSelfAttention(
        heads=attention.heads,
        q_proj=linear_with(attention.q_proj.weight * scale, attention.q_proj.bias * scale),
        k_proj=_frozen(attention.k_proj),
        v_proj=_frozen(attention.v_proj),
        out_proj=_frozen(attention.out_proj),
    )


def _frozen(layer: Layer) -> Layer:
    return copy.deepcopy(layer).requires_grad_(False)
