"""The image encoder for LiteRT: channels-last, rank 4 throughout, the reference's weights.

LiteRT's convolutions are NHWC, and its GPU delegate takes tensors of at most four axes. The official
encoder goes through six axes to cut windows, which leaves 702 of its 752 operations on the CPU. Here a
window is cut by a reshape to (rows of windows, window, columns of windows, window * C) and one transpose.
Every linear layer is a 1x1 convolution, so that no reshape surrounds it.
"""

import torch
from timm.models.tiny_vit import ConvNorm, MBConv, PatchMerging, TinyVit, TinyVitBlock
from torch import Tensor, nn
from torch.nn import functional as F

from mobilesam_export import contract
from mobilesam_export.errors import ExportError
from mobilesam_export.graphs.rewrites.fold_batch_norm import fold_batch_norm
from mobilesam_export.graphs.rewrites.fold_layer_norm import fold_layer_norm
from reference.image_encoder import ImageEncoder
from reference.layer_norm_2d import LayerNorm2d


class ConvNhwc(nn.Module):
    """A convolution on (B, H, W, C); the converter absorbs both transposes into the operator's own layout.

    Args:
        conv: weights as PyTorch stores them (out, in / groups, kh, kw).
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C_in) to (B, H', W', C_out)."""
        x = self.conv(x.permute(0, 3, 1, 2))  # BHWC -> BCHW
        return x.permute(0, 2, 3, 1)  # BCHW -> BHWC


def pointwise(weight: Tensor, bias: Tensor | None) -> ConvNhwc:
    """A linear layer's (out, in) weight as a 1x1 convolution."""
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], 1, bias=bias is not None)
    conv.weight.data.copy_(weight[:, :, None, None])
    if bias is not None and conv.bias is not None:
        conv.bias.data.copy_(bias)
    return ConvNhwc(conv)


def folded(conv_norm: ConvNorm) -> ConvNhwc:
    """A timm convolution with its BatchNorm folded in."""
    return ConvNhwc(fold_batch_norm(conv_norm.conv, conv_norm.bn))


def normalise(x: Tensor, eps: float) -> Tensor:
    """LayerNorm over the last axis without its affine. The kept axis spares the reshapes of ``F.layer_norm``."""
    centred = x - x.mean(-1, keepdim=True)
    return centred * torch.rsqrt((centred * centred).mean(-1, keepdim=True) + eps)


class MBConvNhwc(nn.Module):
    """timm's MBConv with folded BatchNorms."""

    def __init__(self, block: MBConv) -> None:
        super().__init__()
        self.expand, self.depthwise, self.project = folded(block.conv1), folded(block.conv2), folded(block.conv3)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) to the same shape."""
        y = F.gelu(self.expand(x))
        y = F.gelu(self.depthwise(y))
        return F.gelu(self.project(y) + x)


class PatchMergingNhwc(nn.Module):
    """timm's PatchMerging with folded BatchNorms; the last one of MobileSAM has stride 1."""

    def __init__(self, merging: PatchMerging) -> None:
        super().__init__()
        self.expand, self.depthwise, self.project = folded(merging.conv1), folded(merging.conv2), folded(merging.conv3)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) to (B, H/2, W/2, C_out), or to the same H and W at stride 1."""
        return self.project(F.gelu(self.depthwise(F.gelu(self.expand(x)))))


class WindowAttentionNhwc(nn.Module):
    """Attention inside windows that lie one after the other on the batch axis; LayerNorm's affine is in the projections."""

    def __init__(self, block: TinyVitBlock) -> None:
        super().__init__()
        attention = block.attn
        self.heads, self.width = attention.num_heads, attention.key_dim
        linear = fold_layer_norm(attention.norm, attention.qkv)
        # timm's rows are q, k, v of head 0, then of head 1 ...; here all q, all k, all v.
        weight = linear.weight.detach().unflatten(0, (self.heads, 3, self.width))
        bias = linear.bias.detach().unflatten(0, (self.heads, 3, self.width))
        scales = (attention.scale, 1.0, 1.0)  # of q, k, v
        self.query, self.key, self.value = (
            pointwise(weight[:, i].flatten(0, 1) * scale, bias[:, i].flatten() * scale)
            for i, scale in enumerate(scales)
        )
        self.out = pointwise(attention.proj.weight.detach(), attention.proj.bias.detach())
        gathered = attention.attention_biases[:, attention.attention_bias_idxs].detach()
        self.register_buffer("bias", gathered[None].clone())  # (1, heads, tokens, tokens)

    def split(self, x: Tensor) -> Tensor:
        """(windows, ws, ws, heads * d) to (windows, heads, tokens, d)."""
        windows, side = x.shape[:2]
        return x.reshape(windows, side * side, self.heads, self.width).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (windows, ws, ws, C), normalised, to the same shape."""
        q, k, v = self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(x))
        weights = torch.softmax(q @ k.transpose(-2, -1) + self.bias, dim=-1)
        attended = (weights @ v).transpose(1, 2).reshape(x.shape)
        return self.out(attended)


class TinyVitBlockNhwc(nn.Module):
    """timm's TinyVitBlock on (1, H, W, C)."""

    def __init__(self, block: TinyVitBlock) -> None:
        super().__init__()
        self.window = block.window_size
        self.attention = WindowAttentionNhwc(block)
        self.local_conv = folded(block.local_conv)
        fc1 = fold_layer_norm(block.mlp.norm, block.mlp.fc1)
        self.fc1 = pointwise(fc1.weight.detach(), fc1.bias.detach())
        self.fc2 = pointwise(block.mlp.fc2.weight.detach(), block.mlp.fc2.bias.detach())
        self.attention_eps, self.mlp_eps = block.attn.norm.eps, block.mlp.norm.eps

    def attend(self, x: Tensor) -> Tensor:
        """Cut (1, H, W, C) into windows, attend, put them back."""
        _, height, width, channels = x.shape
        side = self.window
        # timm pads before LayerNorm, so its padded tokens become beta; beta is in the projections, zero is left here.
        x = F.pad(normalise(x, self.attention_eps), (0, 0, 0, -width % side, 0, -height % side))
        rows, columns = x.shape[1] // side, x.shape[2] // side
        x = x.reshape(rows, side, columns, side * channels).transpose(1, 2)
        x = self.attention(x.reshape(rows * columns, side, side, channels))
        x = x.reshape(rows, columns, side, side * channels).transpose(1, 2)
        return x.reshape(1, rows * side, columns * side, channels)[:, :height, :width]

    def forward(self, x: Tensor) -> Tensor:
        """Map (1, H, W, C) to the same shape."""
        x = self.local_conv(x + self.attend(x))
        return x + self.fc2(F.gelu(self.fc1(normalise(x, self.mlp_eps))))


class LayerNormNhwc(nn.Module):
    """SAM's LayerNorm2d over the last axis; its beta cannot go through the zero-padded 3x3 convolution after it."""

    def __init__(self, norm: LayerNorm2d) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = (
            nn.Parameter(norm.weight.detach()),
            nn.Parameter(norm.bias.detach()),
            norm.eps,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) to the same shape."""
        return normalise(x, self.eps) * self.weight + self.bias


class ImageEncoderTflite(nn.Module):
    """Image to embedding, (1, S, S, 3) to (1, S/16, S/16, 256).

    Args:
        encoder: the reference encoder; its body must be a TinyViT.

    Raises:
        ExportError: another backbone.
    """

    def __init__(self, encoder: ImageEncoder) -> None:
        super().__init__()
        if not isinstance(encoder.body, TinyVit):
            raise ExportError(f"got backbone {encoder.backbone!r}, expected a TinyViT; export it to ONNX instead")
        stem = encoder.body.patch_embed
        self.stem1, self.stem2 = folded(stem.conv1), folded(stem.conv2)
        # Dividing by std commutes with the zero-padded convolution, subtracting the mean does not.
        self.stem1.conv.weight.data /= torch.tensor(contract.PIXEL_STD)[None, :, None, None]
        self.register_buffer("pixel_mean", torch.tensor(contract.PIXEL_MEAN))
        stages: list[nn.Module] = [MBConvNhwc(block) for block in encoder.body.stages[0].blocks]
        for stage in encoder.body.stages[1:]:
            stages.append(PatchMergingNhwc(stage.downsample))
            stages.extend(TinyVitBlockNhwc(block) for block in stage.blocks)
        self.stages = nn.Sequential(*stages)
        self.neck = nn.Sequential(
            ConvNhwc(encoder.neck[0]),
            LayerNormNhwc(encoder.neck[1]),
            ConvNhwc(encoder.neck[2]),
            LayerNormNhwc(encoder.neck[3]),
        )

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Encode an image.

        Args:
            image: (1, S, S, 3) RGB, 0 to 255, float32 or uint8, resized and padded by the host as the contract says.

        Returns:
            ``image_embeddings`` (1, S/16, S/16, 256).
        """
        x = self.stem1(image.float() - self.pixel_mean)
        x = self.stem2(F.gelu(x))
        return {"image_embeddings": self.neck(self.stages(x))}
