"""The graphs for Core AI: those that Apple's formats share, in float32 or in float16 with float32 where it matters.

A float16 graph is float16 inside only: its inputs and outputs are float32 as the contract has them, so that a
coordinate is never rounded (float16 knows half pixels between 512 and 1024).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mobilesam_export import contract
from mobilesam_export.rewrites.channels_first.conv_net import ConvNetEncoderChannelsFirst
from mobilesam_export.rewrites.channels_first.decoder import PromptDecoderChannelsFirst
from mobilesam_export.rewrites.channels_first.encoder import ImageEncoderChannelsFirst, StemChannelsFirst
from mobilesam_export.rewrites.channels_first.repvit import RepVitEncoderChannelsFirst
from mobilesam_export.rewrites.folded_decoder import LEARNED_TOKENS
from reference.mobile_sam import MobileSam


class MeanSubtraction(nn.Module):
    """Pixels minus the mean colour, in float32: the pad colour must become exactly zero."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(contract.PIXEL_MEAN).reshape(1, 3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Map (1, 3, S, S) of 0 to 255 to the same shape."""
        return image - self.mean


class StemCoreAI(nn.Module):
    """Pixels to the first feature map; the std is already in the first convolution."""

    def __init__(self, stem: StemChannelsFirst) -> None:
        super().__init__()
        self.mean_subtraction = MeanSubtraction()
        self.conv1, self.conv2 = stem.conv1, stem.conv2

    def forward(self, image: Tensor) -> Tensor:
        """Map (1, 3, S, S) to (1, C, S/4, S/4)."""
        embedded: Tensor = self.conv2(F.gelu(self.conv1(self.mean_subtraction(image))))
        return embedded


class ImageEncoderCoreAI(ImageEncoderChannelsFirst):
    """See ``ImageEncoderChannelsFirst``; the image is float32."""

    EXACT = ("stem.mean_subtraction",)
    ROUNDED_INPUTS = ()

    def __init__(self, sam: MobileSam) -> None:
        super().__init__(sam)
        self.add_module("stem", StemCoreAI(self.stem))


class RepVitEncoderCoreAI(RepVitEncoderChannelsFirst):
    """See ``RepVitEncoderChannelsFirst``; the image is float32."""

    EXACT = ("stem.mean_subtraction",)
    ROUNDED_INPUTS = ()

    def __init__(self, sam: MobileSam) -> None:
        super().__init__(sam)
        self.add_module("stem", StemCoreAI(self.stem))


class ConvNetEncoderCoreAI(ConvNetEncoderChannelsFirst):
    """See ``ConvNetEncoderChannelsFirst``; the image is float32."""

    EXACT = ("pixels",)
    ROUNDED_INPUTS = ()

    def __init__(self, sam: MobileSam) -> None:
        super().__init__(sam)
        self.add_module("pixels", MeanSubtraction())


class PromptDecoderCoreAI(PromptDecoderChannelsFirst):
    """See ``PromptDecoderChannelsFirst``."""

    EXACT = ("point_embedding", "absent", "image_pe")  # coordinates, labels, and what compares positions
    ROUNDED_INPUTS = ("image_embeddings", "mask_input", "has_mask_input")

    def masks(self, image: Tensor, tokens: Tensor) -> tuple[Tensor, int]:
        """See ``PromptDecoderChannelsFirst``; the last GELU stands behind the reshape.

        Apple's compiler (coreai-core 1.0.0b3) takes the reshape of a square map with as many channels as rows for
        another one where it is an operand of a product: 32 channels of 32 x 32, at an image size of 128.
        """
        upscaling = self.output_upscaling
        upscaled = upscaling.up2(F.gelu(upscaling.norm(upscaling.up1(image))))
        side = upscaled.shape[-1]
        kernels = self.output_hypernetworks_mlps(tokens[:, :, :, 1:LEARNED_TOKENS])
        return kernels @ F.gelu(upscaled.reshape(1, 1, -1, side * side)), side


EncoderCoreAI = ImageEncoderCoreAI | RepVitEncoderCoreAI | ConvNetEncoderCoreAI
Graph = EncoderCoreAI | PromptDecoderCoreAI


class InFloat32(nn.Module):
    """A part of a float16 graph that computes in float32; what it returns is rounded."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part.float()

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Give the part's tensor, or its tuple of tensors, in float16."""
        found = self.part(*inputs)
        return tuple(each.half() for each in found) if isinstance(found, tuple) else found.half()


class InFloat16(nn.Module):
    """A graph that computes in float16 but for its ``EXACT`` parts, behind float32 inputs and outputs.

    Args:
        graph: is changed.
        input_names: of the graph, in its order.
    """

    def __init__(self, graph: Graph, input_names: Sequence[str]) -> None:
        super().__init__()
        self.halved = graph.half()
        self.rounded = tuple(name in graph.ROUNDED_INPUTS for name in input_names)
        for path in graph.EXACT:
            parent, _, name = path.rpartition(".")
            setattr(graph.get_submodule(parent), name, InFloat32(graph.get_submodule(path)))

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """As the graph does."""
        found = self.halved(*(x.half() if rounded else x for x, rounded in zip(inputs, self.rounded, strict=True)))
        return tuple(each.float() for each in found) if isinstance(found, tuple) else found.float()
