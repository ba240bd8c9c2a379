"""The prompt decoder for ExecuTorch: channels-last, one prompt, a fixed number of point slots, one XNNPACK partition.

Only T = 5 + N tokens meet 4096 image cells, so the image is never projected: ``cross_attention`` keeps every weight on
the token side. Labels become a one-hot by arithmetic and points are embedded by XNNPACK's own sine and cosine, so that
nothing stays outside the partition. Transposed convolutions are linear layers whose 2x2 outputs stay on the channel
axis until only the four masks are left to rearrange. The parts have the names of ``rewrites.folded_decoder``.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mobilesam_export.contract import DEFAULT_MAX_POINTS, MASK_COUNT, PointLabel
from mobilesam_export.rewrites.centre_outputs import centre_outputs
from mobilesam_export.rewrites.channels_last.decoder import DecoderParts, PromptDecoderChannelsLast
from mobilesam_export.rewrites.folded_decoder import (
    MASKED,
    FoldedDecoder,
    FoldedSelfAttention,
)
from mobilesam_export.rewrites.linear import linear_with
from mobilesam_export.rewrites.transposed_conv_as_linear import transposed_conv_as_linear
from mobilesam_export.targets.executorch.cross_attention import (
    ImageToTokenExecutorch,
    TokenToImageExecutorch,
    split_heads,
)
from mobilesam_export.targets.executorch.layers import LayerNorm, convolution
from reference.mobile_sam import MobileSam


def nearest_by_floor(x: Tensor) -> Tensor:
    """The nearest whole number: XNNPACK's partitioner has no ``round``, as Vulkan's has no ``floor``."""
    return torch.floor(x + 0.5)


class PointEmbeddingExecutorch(nn.Module):
    """Points and labels to (1, N, 256) tokens and the (1, N) scores of absent slots.

    Args:
        folded: its weights.
        nearest: the nearest whole number, by an operator that the delegate has.
    """

    frequencies: Tensor
    phase: Tensor
    label_embeddings: Tensor
    labels: Tensor

    def __init__(self, folded: FoldedDecoder, nearest: Callable[[Tensor], Tensor] = nearest_by_floor) -> None:
        super().__init__()
        self.nearest = nearest
        gaussian = folded.gaussian.double()
        # ((xy + 0.5) / S * 2 - 1) G as one product of normalised coordinates; kept float32 in every precision.
        self.register_buffer("frequencies", (2 * gaussian).float()[None])  # (1, 2, 128)
        self.register_buffer("phase", ((1 / folded.image_size - 1) * gaussian.sum(0)).float())
        self.pixel = 1 / folded.image_size
        self.register_buffer("label_embeddings", folded.label_embeddings[None])  # (1, 5, 256)
        self.register_buffer("labels", torch.arange(-1.0, 4.0))  # of its rows

    def forward(self, coords: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Embed (1, N, 2) x, y model-frame pixels with (1, N) labels."""
        turns = torch.bmm(coords * self.pixel, self.frequencies) + self.phase
        # XNNPACK's sine is a polynomial that is best between -pi and pi, and Vulkan promises nothing of its own beyond;
        # whole turns go first.
        angles = (turns - self.nearest(turns)) * (2 * math.pi)
        positional = torch.cat([angles.sin(), angles.cos()], dim=-1)
        kind = labels.reshape(1, -1, 1)
        one_hot = torch.relu(1.0 - (kind - self.labels).abs())  # (1, N, 5); an absent slot is zero throughout
        placed = torch.relu(1.0 - torch.relu(-kind))  # 1 for labels of 0 and above
        absent = torch.relu(1.0 - (labels - float(PointLabel.ABSENT)).abs())
        return positional * placed + torch.bmm(one_hot, self.label_embeddings), absent * MASKED


class SelfAttentionExecutorch(nn.Module):
    """SAM's attention among tokens, with absent ones masked out and the scale in the query."""

    def __init__(self, folded: FoldedSelfAttention) -> None:
        super().__init__()
        self.heads = folded.heads
        self.q_proj, self.k_proj = folded.q_proj, folded.k_proj
        self.v_proj, self.out_proj = folded.v_proj, folded.out_proj

    def forward(self, q: Tensor, v: Tensor, absent: Tensor) -> Tensor:
        """Attend queries and keys ``q`` to values ``v``, both (1, T, 256); ``absent`` (1, T) is added to scores."""
        query, key, value = (
            split_heads(project(x), self.heads) for project, x in ((self.q_proj, q), (self.k_proj, q), (self.v_proj, v))
        )
        tokens = q.shape[1]
        weights = torch.softmax(torch.bmm(query, key.permute(0, 2, 1)) + absent.reshape(1, 1, tokens), dim=-1)
        output: Tensor = self.out_proj(torch.bmm(weights, value).permute(1, 0, 2).reshape(1, tokens, -1))
        return output


class OutputUpscalingExecutorch(nn.Module):
    """Two transposed 2x2 convolutions as linear layers; pixels stay in their order.

    Args:
        folded: its weights.
        omitted_bias: (C,) what the image comes without.
    """

    def __init__(self, folded: FoldedDecoder, omitted_bias: Tensor) -> None:
        super().__init__()
        up1, norm, up2 = folded.output_upscaling
        weight, bias = (tensor.double() for tensor in transposed_conv_as_linear(up1))
        self.up1 = linear_with(*centre_outputs(weight, bias + weight @ omitted_bias.double(), groups=4))
        self.norm = LayerNorm(norm, centred=True)
        self.up2 = linear_with(*transposed_conv_as_linear(up2))

    def forward(self, image: Tensor) -> Tensor:
        """Map (1, HW, 256) to (1, HW * 16, 32), ordered y, x, dy, dx, ey, ex."""
        cells = image.shape[1]
        x = self.up1(image).reshape(1, cells * 4, -1)
        return F.gelu(self.up2(F.gelu(self.norm(x)))).reshape(1, cells * 16, -1)


def depth_to_space(x: Tensor, side: int) -> Tensor:
    """(1, side * side, (dy, dx, c)) pixels to (1, (2 * side)^2, c)."""
    x = x.reshape(side, side, 2, 2, -1).permute(0, 2, 1, 3, 4)
    return x.reshape(1, (2 * side) ** 2, x.shape[-1])


class PromptDecoderExecutorch(PromptDecoderChannelsLast):
    """One prompt to four masks.

    Args:
        sam: the reference model, in eval mode; it stays as it is.
        max_points: N, slots for points and box corners; the unused ones are labelled ABSENT.
        nearest: see ``PointEmbeddingExecutorch``.
    """

    def __init__(
        self,
        sam: MobileSam,
        max_points: int = DEFAULT_MAX_POINTS,
        nearest: Callable[[Tensor], Tensor] = nearest_by_floor,
    ) -> None:
        parts = DecoderParts(
            layer=convolution,
            norm=LayerNorm,
            point_embedding=partial(PointEmbeddingExecutorch, nearest=nearest),
            self_attention=SelfAttentionExecutorch,
            token_to_image=TokenToImageExecutorch,
            image_to_token=ImageToTokenExecutorch,
            output_upscaling=OutputUpscalingExecutorch,
        )
        super().__init__(sam, max_points, parts)

    def forward(
        self,
        image_embeddings: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Decode one prompt, arguments as for ``attend``.

        Returns:
            ``low_res_masks`` (1, 4, S/4, S/4) logits and ``iou_predictions`` (1, 4).
        """
        image, tokens, kernels = self.attend(image_embeddings, point_coords, point_labels, mask_input, has_mask_input)
        return self.draw(image, kernels), self.iou_prediction_head(tokens[:, :1]).reshape(1, -1)

    def draw(self, image: Tensor, kernels: Tensor) -> Tensor:
        """Upscale (1, HW, 256), multiply by (1, 4, 32) kernels and put the pixels in order: (1, 4, S/4, S/4)."""
        masks = torch.bmm(self.output_upscaling(image), kernels.permute(0, 2, 1))  # y, x, dy, dx, ey, ex, mask
        masks = depth_to_space(masks.reshape(1, self.grid**2, 16 * MASK_COUNT), self.grid)
        masks = masks.reshape(2 * self.grid, 2 * self.grid, 2, 2, MASK_COUNT).permute(4, 0, 2, 1, 3)
        return masks.reshape(1, MASK_COUNT, 4 * self.grid, 4 * self.grid)
