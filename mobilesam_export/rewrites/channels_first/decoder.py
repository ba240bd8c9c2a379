"""The prompt decoder for Apple's hardware: SAM's prompt encoder and mask decoder for one prompt of fixed slots.

A slot that a prompt does not need is labelled absent (-2) and masked out of every attention that reads tokens, so
the result is that of the shorter prompt. The layout is explained in ``two_way``; the parts have the names of
``rewrites.folded_decoder``.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mobilesam_export.contract import MASK_COUNT, PointLabel
from mobilesam_export.rewrites.channels_first.positions import ImagePositions
from mobilesam_export.rewrites.channels_first.two_way import (
    TokenToImageChannelsFirst,
    TwoWayBlockChannelsFirst,
    channel_norm,
    perceptron,
)
from mobilesam_export.rewrites.folded_decoder import LEARNED_TOKENS, MASKED, FoldedDecoder, fold_decoder
from reference.mask_decoder import MLP
from reference.mobile_sam import MobileSam

COARSE_STEPS = 128


class PointEmbeddingChannelsFirst(nn.Module):
    """Learned tokens and labelled points, in float32 whatever the artifact's precision.

    float16 would move a point by half a pixel. What leaves is split into two float16 numbers (see ``two_way``):
    multiples of 1/128, exact in float16 up to 16, and the rest.
    """

    learned_tokens: Tensor
    frequencies: Tensor
    kinds: Tensor
    label_embeddings: Tensor

    def __init__(self, folded: FoldedDecoder) -> None:
        super().__init__()
        self.register_buffer("learned_tokens", folded.learned_tokens.T.reshape(1, -1, 1, LEARNED_TOKENS).clone())
        self.image_size = folded.image_size
        self.register_buffer("frequencies", (folded.gaussian.double().T * 2 * math.pi).float()[None])  # (1, 128, 2)
        kinds = [PointLabel.PADDING, *(label for label in PointLabel if label >= PointLabel.BACKGROUND)]
        self.register_buffer("kinds", torch.tensor(kinds, dtype=torch.float32).reshape(1, 1, -1, 1))
        self.register_buffer("label_embeddings", folded.label_embeddings.T[None, None].clone())  # (1, 1, 256, 5)

    def forward(self, point_coords: Tensor, point_labels: Tensor) -> tuple[Tensor, Tensor]:
        """Map (1, N, 2) coordinates and (1, N) labels to (1, 256, 1, 5 + N), as a coarse and a fine part."""
        slots = point_labels.shape[1]
        centred = (point_coords + 0.5) * (2 / self.image_size) - 1
        angles = self.frequencies @ centred.transpose(1, 2)  # (1, 128, N)
        encoded = torch.cat([angles.sin(), angles.cos()], dim=1).reshape(1, 1, -1, slots)
        labels = point_labels.reshape(1, 1, 1, slots)
        placed = (labels > PointLabel.PADDING + 0.5).float()  # neither padding nor absent
        chosen = torch.eq(labels, self.kinds).float()  # (1, 1, 5, N)
        embedded = encoded * placed + self.label_embeddings @ chosen
        tokens = torch.cat([self.learned_tokens, embedded.reshape(1, -1, 1, slots)], dim=-1)
        coarse = torch.round(tokens * COARSE_STEPS) / COARSE_STEPS
        return coarse, tokens - coarse


class AbsentScores(nn.Module):
    """What to add to the attention score of each token; float32 like the labels it reads."""

    def forward(self, point_labels: Tensor) -> Tensor:
        """Map (1, N) labels to (1, 1, 1, 5 + N)."""
        absent = (point_labels < PointLabel.PADDING - 0.5).float().reshape(1, 1, 1, -1)
        return F.pad(absent * MASKED, (LEARNED_TOKENS, 0))


class MaskDownscalingChannelsFirst(nn.Module):
    """An earlier mask to the dense prompt embedding; without one, SAM's learned constant."""

    no_mask: Tensor

    def __init__(self, folded: FoldedDecoder) -> None:
        super().__init__()
        self.conv1, norm1, self.conv2, norm2, self.conv3 = folded.mask_downscaling
        self.norm1, self.norm2 = channel_norm(norm1), channel_norm(norm2)
        self.register_buffer("no_mask", folded.no_mask.reshape(1, -1, 1, 1))

    def forward(self, mask_input: Tensor, has_mask_input: Tensor) -> Tensor:
        """Map (1, 1, S/4, S/4) logits and (1,) 0 or 1 to (1, 256, S/16, S/16); less than 0 is 0."""
        given = has_mask_input.clamp(0, 1).reshape(1, 1, 1, 1)
        logits = mask_input.masked_fill(given < 0.5, 0.0)  # whatever lies there, NaN included
        x = F.gelu(self.norm1(self.conv1(logits)))
        x = self.conv3(F.gelu(self.norm2(self.conv2(x))))
        dense: Tensor = given * x + (1 - given) * self.no_mask
        return dense


class OutputUpscalingChannelsFirst(nn.Module):
    """Two transposed convolutions."""

    def __init__(self, folded: FoldedDecoder) -> None:
        super().__init__()
        self.up1, norm, self.up2 = folded.output_upscaling
        self.norm = channel_norm(norm)

    def forward(self, image: Tensor) -> Tensor:
        """Map (1, 256, H, W) to (1, 32, 4H, 4W)."""
        return F.gelu(self.up2(F.gelu(self.norm(self.up1(image)))))


class HypernetworksChannelsFirst(nn.Module):
    """The four mask tokens' own MLPs as three grouped 1x1 convolutions, one group a token."""

    def __init__(self, mlps: nn.ModuleList) -> None:
        super().__init__()
        by_token = []
        for mlp in mlps:
            assert isinstance(mlp, MLP)
            by_token.append([layer for layer in mlp.layers if isinstance(layer, nn.Linear)])
        self.layers = nn.ModuleList(self._grouped(list(layers)) for layers in zip(*by_token, strict=True))

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


class PromptDecoderChannelsFirst(nn.Module):
    """One prompt to four masks; inputs and outputs as in the contract, B = 1.

    Args:
        sam: the reference, in eval mode; it stays as it is.
    """

    def __init__(self, sam: MobileSam) -> None:
        super().__init__()
        folded = fold_decoder(sam)
        self.image_size, self.grid = folded.image_size, folded.grid
        self.point_embedding, self.absent = PointEmbeddingChannelsFirst(folded), AbsentScores()
        self.mask_downscaling = MaskDownscalingChannelsFirst(folded)
        self.image_pe = ImagePositions(folded)
        self.layers = nn.ModuleList(TwoWayBlockChannelsFirst(block) for block in folded.layers)
        self.final_attn_token_to_image = TokenToImageChannelsFirst(folded.final_attn_token_to_image)
        self.norm_final_attn = channel_norm(folded.norm_final_attn)
        self.output_upscaling = OutputUpscalingChannelsFirst(folded)
        self.output_hypernetworks_mlps = HypernetworksChannelsFirst(folded.output_hypernetworks_mlps)
        self.iou_prediction_head = perceptron(folded.iou_prediction_head.layers)
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
        token_pe = self.point_embedding(point_coords, point_labels)
        image = image_embeddings + self.mask_downscaling(mask_input, has_mask_input)
        image = image.reshape(1, 1, -1, self.grid**2)
        image_pe = self.image_pe().reshape(image.shape)
        tokens = token_pe[0]  # the first block does not read it
        for layer in self.layers:
            tokens, image = layer(tokens, image, token_pe, image_pe, absent)
        attended = self.final_attn_token_to_image((tokens, *token_pe), image + image_pe, image)
        tokens = self.norm_final_attn(tokens + attended)
        masks, side = self.masks(image.reshape(1, -1, self.grid, self.grid), tokens)
        iou = self.iou_prediction_head(tokens[:, :, :, :1])
        return masks.reshape(1, MASK_COUNT, side, side), iou.reshape(1, MASK_COUNT)

    def masks(self, image: Tensor, tokens: Tensor) -> tuple[Tensor, int]:
        """Map a (1, 256, S/16, S/16) image and (1, 256, 1, T) tokens to (1, 1, 4, pixels) logits; and a mask's side."""
        upscaled = self.output_upscaling(image)
        kernels = self.output_hypernetworks_mlps(tokens[:, :, :, 1:LEARNED_TOKENS])
        side = upscaled.shape[-1]
        return kernels @ upscaled.reshape(1, 1, -1, side * side), side
