"""NanoSAM's image encoder: what stands behind its timm backbone, and how its trainer's files tell which that is.

NanoSAM (NVIDIA-AI-IOT/nanosam, Apache-2.0) takes the last map of a backbone, at 1/32 of the image, brings it to 1/16 by
a transposed convolution, and adds a learned value at every place of the embedding: weights for one image size answer
at no other. The names are facts of its public code, timm's behind ``backbone.``.
"""

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

NANO_SAM = "nanosam_"  # before timm's name of the backbone
NANO_SAM_STRIDE = 32  # of the backbone's map
CHANNELS = 256  # of the neck and the embedding

# By blocks of the four stages, and whether a block has a third convolution.
RESNETS = {
    "resnet18": ((2, 2, 2, 2), False),
    "resnet34": ((3, 4, 6, 3), False),
    "resnet50": ((3, 4, 6, 3), True),
}
# By channels: of the stem's first convolution and its last, and of the first stage.
HGNETS_V2 = {
    "hgnetv2_b0": (16, 16, 64),
    "hgnetv2_b1": (24, 32, 64),
    "hgnetv2_b2": (24, 32, 96),
    "hgnetv2_b3": (24, 32, 128),
    "hgnetv2_b4": (32, 48, 128),
    "hgnetv2_b5": (32, 64, 128),
    "hgnetv2_b6": (48, 96, 192),
}
_NECK = re.compile(r"(?:^|\.)up_1\.\d\.(?:weight|bias)$")
_BACKBONE = r"(?:^|\.)(?:backbone|body\.model)\."
_RESNET_BLOCK = re.compile(_BACKBONE + r"layer([1-4])\.(\d{1,3})\.(conv3\.)?")
_HGNET_CHANNELS = re.compile(
    _BACKBONE + r"(stem\.stem1|stem\.stem4|stages_0\.blocks\.0\.aggregation\.1)\.(?:conv|bn)\."
)
_POSITIONS = re.compile(r"(?:^|\.)pos_embedding$")


class NanoSamNeck(nn.Module):
    """Four convolutions and one transposed, GELU between them, and a value for every place; names as in the files.

    Args:
        channels: of the backbone's map.
        grid: H and W of the embedding.
    """

    def __init__(self, channels: int, grid: int) -> None:
        super().__init__()
        self.up_1 = nn.Sequential(
            nn.Conv2d(channels, CHANNELS, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1),
            nn.GELU(),
            nn.ConvTranspose2d(CHANNELS, CHANNELS, 3, stride=2, padding=1, output_padding=1),
            nn.GELU(),
        )
        self.proj = nn.Sequential(
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), nn.GELU(), nn.Conv2d(CHANNELS, CHANNELS, 1)
        )
        self.pos_embedding = nn.Parameter(1e-5 * torch.randn(1, CHANNELS, grid, grid))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels, grid / 2, grid / 2) to (B, 256, grid, grid)."""
        embeddings: Tensor = self.proj(self.up_1(x)) + self.pos_embedding
        return embeddings


def nano_sam_name(name: str) -> str:
    """Translate a name of ``MobileSam.state_dict()`` to NanoSAM's, which stands alone or behind ``image_encoder.``."""
    name = re.sub(r"^image_encoder\.body\.model\.", "image_encoder.backbone.", name)
    return re.sub(r"^image_encoder\.neck\.", "image_encoder.", name)


def is_nano_sam(shapes: Mapping[str, Sequence[int]]) -> bool:
    """Whether a file with these names and shapes has NanoSAM's neck."""
    return any(_NECK.search(name) for name in shapes)


def nano_sam_backbone(shapes: Mapping[str, Sequence[int]]) -> str | None:
    """The backbone of a NanoSAM file with these names and shapes; None if it is no such file, or has another."""
    if not is_nano_sam(shapes):
        return None
    blocks: set[tuple[str, str]] = set()
    channels: dict[str, int] = {}
    deep = False
    for name, shape in shapes.items():
        if block := _RESNET_BLOCK.search(name):
            blocks.add((block[1], block[2]))
            deep |= block[3] is not None
        if shape and (layer := _HGNET_CHANNELS.search(name)):
            channels.setdefault(layer[1], shape[0])
    depths = tuple(sum(stage == number for number, _ in blocks) for stage in "1234")
    found = tuple(channels.get(layer) for layer in ("stem.stem1", "stem.stem4", "stages_0.blocks.0.aggregation.1"))
    resnet = next((name for name, form in RESNETS.items() if form == (depths, deep)), None)
    return resnet or next((name for name, form in HGNETS_V2.items() if form == found), None)


def image_size_of(shapes: Mapping[str, Sequence[int]]) -> int | None:
    """The image size that a NanoSAM file's learned places are for; None if there are none, or of no possible grid."""
    shape = next((tuple(shape) for name, shape in shapes.items() if _POSITIONS.search(name)), ())
    if shape != (1, CHANNELS, *shape[2:3] * 2) or not shape[2] or shape[2] % 2:  # two pixels of the backbone's each
        return None
    return 16 * shape[2]
