"""TinyViT's weights with every rewrite applied, independent of any target's layout.

The layout modules (``targets/*/encoder.py``) take their weights from here, so that what is
folded, and how, is decided once.
"""

from dataclasses import dataclass
from typing import cast

from timm.models.tiny_vit import ConvLayer, ConvNorm, MBConv, PatchMerging, TinyVit, TinyVitBlock
from torch import Tensor, nn

from mobilesam_export.errors import ExportError
from mobilesam_export.rewrites.fold_batch_norm import fold_batch_norm
from mobilesam_export.rewrites.fold_layer_norm import fold_layer_norm
from mobilesam_export.rewrites.fold_normalisation import fold_normalisation
from mobilesam_export.rewrites.freeze_attention_bias import freeze_attention_bias
from mobilesam_export.rewrites.sam_neck import SamNeck, sam_neck
from mobilesam_export.rewrites.split_qkv import split_qkv
from reference.mobile_sam import MobileSam


@dataclass(frozen=True)
class FoldedBlock:
    """One TinyViT block; both LayerNorms are without affine, all weights float32.

    Attributes:
        window: side of the attention window in tokens; windows are padded with zeros after ``qkv``.
        eps: of both LayerNorms.
        qkv_weight: (3C, C) rows [Q | K | V], Q scaled.
        query_bias: (C,); keys and values need none.
        attention_bias: (heads, window**2, window**2), added to the scores.
        local_conv: depthwise 3x3 behind the attention's residual sum.
    """

    heads: int
    window: int
    eps: float
    qkv_weight: Tensor
    query_bias: Tensor
    attention_bias: Tensor
    proj_weight: Tensor
    proj_bias: Tensor
    local_conv: nn.Conv2d
    fc1_weight: Tensor
    fc1_bias: Tensor
    fc2_weight: Tensor
    fc2_bias: Tensor


@dataclass(frozen=True)
class FoldedEncoder:
    """The whole image encoder.

    Attributes:
        image_size: S.
        stem: two convolutions, GELU between them; they expect pixels minus the mean.
        mbconvs: of the first stage: three convolutions each; GELU after each, the last after the residual sum.
        mergings: before stages 1, 2 and 3: three convolutions each, GELU between them.
        stages: the blocks of stages 1, 2 and 3.
        neck: SAM's neck: two convolutions, a norm behind each; frozen copies.
    """

    image_size: int
    stem: tuple[nn.Conv2d, nn.Conv2d]
    mbconvs: tuple[tuple[nn.Conv2d, nn.Conv2d, nn.Conv2d], ...]
    mergings: tuple[tuple[nn.Conv2d, nn.Conv2d, nn.Conv2d], ...]
    stages: tuple[tuple[FoldedBlock, ...], ...]
    neck: SamNeck


def fold_encoder(sam: MobileSam) -> FoldedEncoder:
    """Apply every rewrite to a TinyViT image encoder; the model passed in stays as it is.

    Raises:
        ExportError: for another backbone.
        ValueError: from a rewrite that refuses, such as in train mode.
    """
    body = sam.image_encoder.body
    if not isinstance(body, TinyVit):
        raise ExportError(
            f"got the backbone {sam.image_encoder.backbone}, expected a TinyViT; see docs/encoders.md for the others"
        )
    stages = list(body.stages)
    assert isinstance(stages[0], ConvLayer)
    return FoldedEncoder(
        image_size=sam.image_size,
        stem=(fold_normalisation(_fold(body.patch_embed.conv1)), _fold(body.patch_embed.conv2)),
        mbconvs=tuple(_fold_convs(cast(MBConv, block)) for block in stages[0].blocks),
        mergings=tuple(_fold_convs(cast(PatchMerging, stage.downsample)) for stage in stages[1:]),
        stages=tuple(
            tuple(_fold_block(cast(TinyVitBlock, block)) for block in cast(nn.Sequential, stage.blocks))
            for stage in stages[1:]
        ),
        neck=sam_neck(sam.image_encoder),
    )


def _fold_convs(module: MBConv | PatchMerging) -> tuple[nn.Conv2d, nn.Conv2d, nn.Conv2d]:
    return _fold(module.conv1), _fold(module.conv2), _fold(module.conv3)


def _fold(layer: ConvNorm) -> nn.Conv2d:
    return fold_batch_norm(layer.conv, layer.bn)


def _fold_block(block: TinyVitBlock) -> FoldedBlock:
    attention, mlp = block.attn, block.mlp
    qkv = split_qkv(*fold_layer_norm(attention.norm, attention.qkv), attention.proj, attention.num_heads)
    fc1_weight, fc1_bias = fold_layer_norm(cast(nn.LayerNorm, mlp.norm), mlp.fc1)
    return FoldedBlock(
        heads=attention.num_heads,
        window=block.window_size,
        eps=attention.norm.eps,
        qkv_weight=qkv.weight.float(),
        query_bias=qkv.query_bias.float(),
        attention_bias=freeze_attention_bias(attention),
        proj_weight=qkv.proj_weight.float(),
        proj_bias=qkv.proj_bias.float(),
        local_conv=_fold(block.local_conv),
        fc1_weight=fc1_weight.float(),
        fc1_bias=fc1_bias.float(),
        fc2_weight=mlp.fc2.weight.detach().float().clone(),
        fc2_bias=mlp.fc2.bias.detach().float().clone(),
    )
