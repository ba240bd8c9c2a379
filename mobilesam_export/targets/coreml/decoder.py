"""The prompt decoder for Core ML: SAM's prompt encoder and mask decoder for one prompt of a fixed number of slots.

A slot that a prompt does not need is labelled absent (-2) and masked out of every attention that reads tokens, so
the result is that of the shorter prompt. The layout is explained in ``two_way``.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mobilesam_export.contract import MASK_COUNT, PointLabel
from mobilesam_export.targets.coreml.positions import ImagePositions
from mobilesam_export.targets.coreml.two_way import TokenToImageAttention, TwoWayBlockCoreML, channel_norm, linear
from reference.mask_decoder import MLP, MaskDecoder
from reference.mobile_sam import MobileSam
from reference.prompt_encoder import PromptEncoder
from reference.two_way_transformer import TwoWayBlock

ABSENT_SCORE = -1e4  # added to the scores of absent slots; exp underflows to zero in float16 and in float32
COARSE_STEPS = 128
LEARNED_TOKENS = 1 + MASK_COUNT  # the IoU token and the mask tokens stand before the prompt's


class TokenEmbedding(nn.Module):
    """Learned tokens and labelled points, in float32 whatever the artifact's precision.

    float16 would move a point by half a pixel. What leaves is split into two float16 numbers (see ``two_way``):
    multiples of 1/128, exact in float16 up to 16, and the rest.
    """

    learned_tokens: Tensor
    frequencies: Tensor
    kinds: Tensor
    learned: Tensor

    def __init__(self, encoder: PromptEncoder, decoder: MaskDecoder) -> None:
        super().__init__()
        learned_tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight]).detach()
        self.register_buffer("learned_tokens", learned_tokens.T.reshape(1, -1, 1, LEARNED_TOKENS).clone())
        gaussian = encoder.pe_layer.positional_encoding_gaussian_matrix
        self.image_size = encoder.image_size
        self.register_buffer("frequencies", (gaussian.double().T * 2 * math.pi).float()[None])  # (1, 128, 2)
        kinds = [PointLabel.PADDING, *(label for label in PointLabel if label >= PointLabel.BACKGROUND)]
        self.register_buffer("kinds", torch.tensor(kinds, dtype=torch.float32).reshape(1, 1, -1, 1))
        embeddings = [encoder.not_a_point_embed, *encoder.point_embeddings]
        learned = torch.cat([embedding.get_parameter("weight") for embedding in embeddings])
        self.register_buffer("learned", learned.detach().T[None, None].clone())  # (1, 1, 256, 5)

    def forward(self, point_coords: Tensor, point_labels: Tensor) -> tuple[Tensor, Tensor]:
        """Map (1, N, 2) coordinates and (1, N) labels to (1, 256, 1, 5 + N), as a coarse and a fine part."""
        slots = point_labels.shape[1]
        centred = (point_coords + 0.5) * (2 / self.image_size) - 1
        angles = self.frequencies @ centred.transpose(1, 2)  # (1, 128, N)
        encoded = torch.cat([angles.sin(), angles.cos()], dim=1).reshape(1, 1, -1, slots)
        labels = point_labels.reshape(1, 1, 1, slots)
        placed = (labels > PointLabel.PADDING + 0.5).float()  # neither padding nor absent
        chosen = torch.eq(labels, self.kinds).float()  # (1, 1, 5, N)
        embedded = encoded * placed + self.learned @ chosen
        tokens = torch.cat([self.learned_tokens, embedded.reshape(1, -1, 1, slots)], dim=-1)
        coarse = torch.round(tokens * COARSE_STEPS) / COARSE_STEPS
        return coarse, tokens - coarse


class AbsentScores(nn.Module):
    """What to add to the attention score of each token; float32 like the labels it reads."""

    def forward(self, point_labels: Tensor) -> Tensor:
        """Map (1, N) labels to (1, 1, 1, 5 + N)."""
        absent = (point_labels < PointLabel.PADDING - 0.5).float().reshape(1, 1, 1, -1)
        return F.pad(absent * ABSENT_SCORE, (LEARNED_TOKENS, 0))


class MaskEmbedding(nn.Module):
    """An earlier mask to the dense prompt embedding; without one, SAM's learned constant."""

    no_mask: Tensor

    def __init__(self, encoder: PromptEncoder) -> None:
        super().__init__()
        conv1, norm1, _, conv2, norm2, _, conv3 = encoder.mask_downscaling
        self.conv1, self.conv2, self.conv3 = conv1, conv2, conv3
        self.norm1, self.norm2 = channel_norm(norm1), channel_norm(norm2)
        self.register_buffer("no_mask", encoder.no_mask_embed.weight.detach().reshape(1, -1, 1, 1).clone())

    def forward(self, mask_input: Tensor, has_mask_input: Tensor) -> Tensor:
        """Map (1, 1, S/4, S/4) logits and (1,) 0 or 1 to (1, 256, S/16, S/16)."""
        given = has_mask_input.reshape(1, 1, 1, 1)
        logits = mask_input.masked_fill(given < 0.5, 0.0)  # whatever lies there, NaN included
        x = F.gelu(self.norm1(self.conv1(logits)))
        x = self.conv3(F.gelu(self.norm2(self.conv2(x))))
        dense: Tensor = given * x + (1 - given) * self.no_mask
        return dense


class Hypernetworks(nn.Module):
    """The four mask tokens' own MLPs as three grouped 1x1 convolutions, one group a token."""

    def __init__(self, mlps: nn.ModuleList) -> None:
        super().__init__()
        by_token = [_linears(mlp) for mlp in mlps]
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


def perceptron(mlp: MLP) -> nn.Sequential:
    """A reference MLP as 1x1 convolutions."""
    layers: list[nn.Module] = []
    for layer in _linears(mlp):
        layers += [linear(layer), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _linears(mlp: nn.Module) -> list[nn.Linear]:
    assert isinstance(mlp, MLP)
    return [layer for layer in mlp.layers if isinstance(layer, nn.Linear)]


class MaskHead(nn.Module):
    """Upscaled image and mask tokens to logits, the IoU token to predictions."""

    def __init__(self, decoder: MaskDecoder) -> None:
        super().__init__()
        up1, norm, _, up2, _ = decoder.output_upscaling
        self.up1, self.norm, self.up2 = up1, channel_norm(norm), up2
        self.hypernetworks = Hypernetworks(decoder.output_hypernetworks_mlps)
        self.iou_prediction = perceptron(decoder.iou_prediction_head)

    def forward(self, tokens: Tensor, image: Tensor, grid: int) -> tuple[Tensor, Tensor]:
        """Map (1, 256, 1, T) and (1, 1, 256, HW) to (1, 4, 4H, 4W) and (1, 4)."""
        x = image.reshape(1, -1, grid, grid)
        x = F.gelu(self.up2(F.gelu(self.norm(self.up1(x)))))
        side = x.shape[-1]
        kernels = self.hypernetworks(tokens[:, :, :, 1:LEARNED_TOKENS])
        masks = kernels @ x.reshape(1, 1, -1, side * side)
        iou = self.iou_prediction(tokens[:, :, :, :1])
        return masks.reshape(1, MASK_COUNT, side, side), iou.reshape(1, MASK_COUNT)


class PromptDecoderCoreML(nn.Module):
    """One prompt to four masks in Core ML's preferred form; inputs and outputs as in the contract, B = 1.

    Args:
        sam: the reference, in eval mode; it stays as it is.
    """

    def __init__(self, sam: MobileSam) -> None:
        super().__init__()
        encoder, decoder = sam.prompt_encoder, sam.mask_decoder
        transformer = decoder.transformer
        self.grid = encoder.grid_size
        self.points, self.absent, self.mask = TokenEmbedding(encoder, decoder), AbsentScores(), MaskEmbedding(encoder)
        layers = [layer for layer in transformer.layers if isinstance(layer, TwoWayBlock)]
        self.blocks = nn.ModuleList(TwoWayBlockCoreML(layer) for layer in layers)
        self.final_attention = TokenToImageAttention(transformer.final_attn_token_to_image)
        self.final_norm = channel_norm(transformer.norm_final_attn)
        self.head = MaskHead(decoder)
        self.positions = ImagePositions(encoder)
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
        token_pe = self.points(point_coords, point_labels)
        image = image_embeddings + self.mask(mask_input, has_mask_input)
        image = image.reshape(1, 1, -1, self.grid**2)
        image_pe = self.positions().reshape(image.shape)
        tokens = token_pe[0]  # the first block does not read it
        for block in self.blocks:
            tokens, image = block(tokens, image, token_pe, image_pe, absent)
        attended = self.final_attention((tokens, *token_pe), image + image_pe, image)
        masks, iou = self.head(self.final_norm(tokens + attended), image, self.grid)
        return masks, iou
