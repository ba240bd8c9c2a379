"""The prompt decoder for LiteRT: channels-last, rank 4 at most, one prompt, a fixed number of point slots.

Only T = 5 + N tokens meet 4096 image cells, so the image is never projected: ``cross_attention``
keeps every weight on the token side. Labels become a one-hot by arithmetic, because EQUAL and CAST would
split the delegate. Transposed convolutions are linear layers whose 2x2 outputs stay on the channel axis
until only the four masks are left to rearrange. The parts have the names of ``rewrites.folded_decoder``.

Half of the time goes into passes over 4096 x 256 numbers that do no matrix product. So LayerNorms take no mean
where weights can be centred instead, and the LayerNorm of the image adds no bias: the layers that read the image
have this ``omitted_bias`` worked into their own weights.
"""

import math

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
from mobilesam_export.rewrites.pointwise import pointwise
from mobilesam_export.rewrites.transposed_conv_as_linear import transposed_conv_as_linear
from mobilesam_export.targets.tflite.channels_last import ConvNhwc, LayerNormNhwc
from mobilesam_export.targets.tflite.cross_attention import ImageToTokenTflite, TokenToImageTflite, split_heads
from reference.mobile_sam import MobileSam


class PointEmbeddingTflite(nn.Module):
    """Points and labels to (1, N, 256) tokens and the (1, N) scores of absent slots."""

    frequencies: Tensor
    phase: Tensor
    label_embeddings: Tensor
    labels: Tensor

    def __init__(self, folded: FoldedDecoder) -> None:
        super().__init__()
        gaussian = folded.gaussian.double()
        # ((xy + 0.5) / S * 2 - 1) G as one product of normalised coordinates; kept float32 in every precision.
        self.register_buffer("frequencies", (2 * gaussian).float())
        self.register_buffer("phase", ((1 / folded.image_size - 1) * gaussian.sum(0)).float())
        self.pixel = 1 / folded.image_size
        self.register_buffer("label_embeddings", folded.label_embeddings)
        self.register_buffer("labels", torch.arange(-1.0, 4.0))  # of its rows

    def forward(self, coords: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Embed (1, N, 2) x, y model-frame pixels with (1, N) labels."""
        turns = (coords * self.pixel) @ self.frequencies + self.phase
        # A GPU's sine is exact to 2^-11 between -pi and pi only (Vulkan, OpenGL ES); whole turns go first.
        angles = (turns - torch.floor(turns + 0.5)) * (2 * math.pi)
        positional = torch.cat([angles.sin(), angles.cos()], dim=-1)
        kind = labels[..., None]
        one_hot = torch.relu(1 - (kind - self.labels).abs())  # (1, N, 5); an absent slot is zero throughout
        placed = torch.relu(1 - torch.relu(-kind))  # 1 for labels of 0 and above
        absent = torch.relu(1 - (labels - float(PointLabel.ABSENT)).abs())
        return positional * placed + one_hot @ self.label_embeddings, absent * MASKED


class SelfAttentionTflite(nn.Module):
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
        weights = torch.softmax(query @ key.transpose(1, 2) + absent[:, None], dim=-1)
        output: Tensor = self.out_proj((weights @ value).transpose(0, 1).reshape(v.shape))
        return output


class OutputUpscalingTflite(nn.Module):
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
        self.norm = LayerNormNhwc(norm, centred=True)
        self.up2 = ConvNhwc(pointwise(*transposed_conv_as_linear(up2)))

    def forward(self, image: Tensor, side: int) -> Tensor:
        """Map (1, side^2, 256) to (1, side^2 * 16, 32), ordered y, x, dy, dx, ey, ex."""
        x = self.up1(image).reshape(1, side, side * 4, -1)
        return F.gelu(self.up2(F.gelu(self.norm(x)))).reshape(1, side * side * 16, -1)


def depth_to_space(x: Tensor) -> Tensor:
    """(1, H, W, (dy, dx, c)) to (1, 2H, 2W, c): the pattern the target replaces by DEPTH_TO_SPACE."""
    _, height, width, channels = x.shape
    x = x.reshape(1, height, width, 2, 2, channels // 4).permute(0, 1, 3, 2, 4, 5)
    return x.reshape(1, height * 2, width * 2, channels // 4)


class PromptDecoderTflite(PromptDecoderChannelsLast):
    """One prompt to four masks.

    Args:
        sam: the reference model, in eval mode; it stays as it is.
        max_points: N, slots for points and box corners; the unused ones are labelled ABSENT.
    """

    def __init__(self, sam: MobileSam, max_points: int = DEFAULT_MAX_POINTS) -> None:
        parts = DecoderParts(
            layer=ConvNhwc,
            norm=LayerNormNhwc,
            point_embedding=PointEmbeddingTflite,
            self_attention=SelfAttentionTflite,
            token_to_image=TokenToImageTflite,
            image_to_token=ImageToTokenTflite,
            output_upscaling=OutputUpscalingTflite,
        )
        super().__init__(sam, max_points, parts)

    def forward(
        self,
        image_embeddings: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
    ) -> dict[str, Tensor]:
        """Decode one prompt, arguments as for ``attend``.

        Returns:
            ``low_res_masks`` (1, 4, S/4, S/4) logits and ``iou_predictions`` (1, 4).
        """
        image, tokens, kernels = self.attend(image_embeddings, point_coords, point_labels, mask_input, has_mask_input)
        return {
            "low_res_masks": self.draw(image, kernels),
            "iou_predictions": self.iou_prediction_head(tokens[:, 0]),
        }

    def draw(self, image: Tensor, kernels: Tensor) -> Tensor:
        """Upscale (1, HW, 256), multiply by (1, 4, 32) kernels and put the pixels in order: (1, 4, S/4, S/4)."""
        masks = self.output_upscaling(image, self.grid) @ kernels.transpose(1, 2)
        masks = depth_to_space(masks.reshape(1, self.grid, self.grid, 16 * MASK_COUNT))
        return depth_to_space(masks).permute(0, 3, 1, 2)  # BHWC -> BCHW
