"""Models whose every weight matters: random affines, biases, BatchNorm statistics and attention biases."""

import math
import re

from torch import Tensor

from reference.checkpoint import load_mobile_sam, load_state, stand_in_mobile_sam
from reference.checkpoint_names import layout_of
from reference.image_encoder import REPVIT_SAM
from reference.mobile_sam import MobileSam
from reference.nano_sam import NANO_SAM
from reference.stand_in import stand_in_tensor


def randomised_sam(seed: int = 0, image_size: int = 224) -> MobileSam:
    """MobileSAM on stand-in weights; with the default initialisation a wrong fold goes unnoticed."""
    return stand_in_mobile_sam(image_size, seed)


def published_repvit(size: str, seed: int = 0) -> dict[str, Tensor]:
    """A state dict as RepViT-SAM's file is, on stand-in weights.

    Two scales are made smaller: through up to 54 blocks the values would grow beyond all bounds, and a norm that meets
    infinity answers with its bias, whatever stands before it.
    """
    layout = layout_of(REPVIT_SAM + size)
    names = {layout.file_name(name): shape for name, shape in layout.shapes.items()}
    state = {name: stand_in_tensor(name, shape, seed) for name, shape in names.items()}
    for name, tensor in state.items():
        if name.endswith("token_mixer.0.bn.weight"):
            tensor *= 0.5
        elif name.endswith("channel_mixer.m.2.bn.weight"):
            tensor *= 0.2
    return state


def randomised_repvit(size: str = "m0_9", seed: int = 0, image_size: int = 224) -> MobileSam:
    """A RepViT-SAM on such weights."""
    return load_mobile_sam(published_repvit(size, seed), image_size)


def published_nano_sam(backbone: str, image_size: int, seed: int = 0) -> dict[str, Tensor]:
    """A state dict as NanoSAM's trainer writes it, of the image encoder alone, on stand-in weights.

    The learned places are as large as the embedding; beside it, those of the stand-in would go unnoticed.
    """
    layout = layout_of(NANO_SAM + backbone, image_size)
    names = {layout.file_name(name).partition(".")[2]: layout.shapes[name] for name in layout.names("image_encoder")}
    state = {name: stand_in_tensor(name, shape, seed) for name, shape in names.items()}
    state["pos_embedding"] *= math.sqrt(state["pos_embedding"][0].numel() / 2)
    for name, tensor in state.items():
        if re.search(r"layer\d\.\d\.bn[23]\.weight$", name):
            tensor *= 0.3  # a ResNet's residual sums would grow, here to 30
    return state


def randomised_student(backbone: str, seed: int = 0, image_size: int = 224) -> MobileSam:
    """A model with another image encoder, NanoSAM's among them, on stand-in weights."""
    sam = MobileSam(backbone, image_size)
    state = {name: stand_in_tensor(name, tuple(tensor.shape), seed) for name, tensor in sam.state_dict().items()}
    if backbone.startswith(NANO_SAM):
        encoder = published_nano_sam(backbone.removeprefix(NANO_SAM), image_size, seed)
        return load_mobile_sam(encoder, image_size, decoder=state)
    load_state(sam, state)
    return sam.eval()
