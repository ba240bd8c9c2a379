"""The channels-first graphs behind the ports of every ExecuTorch file, for delegates whose own layout that is.

Core ML's and Vulkan's convolutions take (B, C, H, W): around the channels-last graphs each would bring two transposes.
"""

import torch
from timm.models.repvit import RepVit
from torch import Tensor, nn

from mobilesam_export.rewrites.channels_first.channel_layer_norm import OPERATOR_NAME as CHANNEL_LAYER_NORM
from mobilesam_export.rewrites.channels_first.channel_layer_norm import normalise_channels
from mobilesam_export.rewrites.channels_first.conv_net import ConvNetEncoderChannelsFirst
from mobilesam_export.rewrites.channels_first.decoder import PromptDecoderChannelsFirst
from mobilesam_export.rewrites.channels_first.encoder import ImageEncoderChannelsFirst
from mobilesam_export.rewrites.channels_first.positions import OPERATOR_NAME as UNFOLDED
from mobilesam_export.rewrites.channels_first.repvit import RepVitEncoderChannelsFirst
from reference.image_encoder import TimmFeatures
from reference.mobile_sam import MobileSam


class ImageEncoderBetweenTransposes(nn.Module):
    """See ``ImageEncoderChannelsFirst``, with the ports of ``ImageEncoderExecutorch``."""

    def __init__(self, sam: MobileSam) -> None:
        super().__init__()
        self.encoder: nn.Module
        match sam.image_encoder.body:
            case RepVit():
                self.encoder = RepVitEncoderChannelsFirst(sam)
            case TimmFeatures():
                self.encoder = ConvNetEncoderChannelsFirst(sam)
            case _:
                self.encoder = ImageEncoderChannelsFirst(sam)

    def forward(self, image: Tensor) -> Tensor:
        """Encode (1, S, S, 3) RGB, 0 to 255, as (1, S/16, S/16, 256)."""
        embeddings: Tensor = self.encoder(image.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)  # BHWC -> BCHW -> BHWC
        return embeddings


class PromptDecoderBehindTranspose(nn.Module):
    """See ``PromptDecoderChannelsFirst``, with the ports of ``PromptDecoderExecutorch``."""

    def __init__(self, sam: MobileSam) -> None:
        super().__init__()
        self.decoder = PromptDecoderChannelsFirst(sam)

    def forward(
        self,
        image_embeddings: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Decode one prompt on (1, S/16, S/16, 256) embeddings; see ``PromptDecoderExecutorch``."""
        image_embeddings = image_embeddings.permute(0, 3, 1, 2)  # BHWC -> BCHW
        answer: tuple[Tensor, Tensor] = self.decoder(
            image_embeddings, point_coords, point_labels, mask_input, has_mask_input
        )
        return answer


def with_pytorch_operators(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """The program with the operators of ``rewrites.channels_first`` spelled out, which a delegate does not know."""
    spelled_out = {CHANNEL_LAYER_NORM: normalise_channels, UNFOLDED: torch.clone}
    found: torch.export.ExportedProgram = program.run_decompositions(
        {_operator(name): meaning for name, meaning in spelled_out.items()}
    )
    return found


def _operator(name: str) -> torch._ops.OpOverload:
    namespace, _, operator = name.partition("::")
    overload: torch._ops.OpOverload = getattr(getattr(torch.ops, namespace), operator).default
    return overload
