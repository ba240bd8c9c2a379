"""Published models of SAM's form with a small image encoder: what each is called, and how its file names its weights.

The names are facts of public code under Apache-2.0: ChaoningZhang/MobileSAM, xinghaochen/TinySAM (whose file has
MobileSAM's names and shapes, all of them), THU-MIG/RepViT, and in ``nano_sam`` NVIDIA-AI-IOT/nanosam.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from reference.image_encoder import DEFAULT_BACKBONE, REPVIT_SAM
from reference.nano_sam import NANO_SAM, nano_sam_backbone, nano_sam_name

# By size: channels and blocks of the four stages. The published RepViT-SAM is an m2.3.
REPVIT_SIZES = {
    "m0_9": ((48, 96, 192, 384), (2, 2, 14, 2)),
    "m1_0": ((56, 112, 224, 448), (2, 2, 14, 2)),
    "m1_1": ((64, 128, 256, 512), (2, 2, 12, 2)),
    "m1_5": ((64, 128, 256, 512), (4, 4, 24, 4)),
    "m2_3": ((80, 160, 320, 640), (6, 6, 34, 2)),
}
_TO_MOBILE_SAM = (  # applied in order to the names of a TinyViT body
    (r"^image_encoder\.body\.", "image_encoder."),
    (r"^(image_encoder\.patch_embed)\.conv1\.", r"\1.seq.0."),
    (r"^(image_encoder\.patch_embed)\.conv2\.", r"\1.seq.2."),
    (r"^(image_encoder\..+)\.conv\.(weight)$", r"\1.c.\2"),
)
_TO_REPVIT_SAM = (  # of a block's weights
    (r"^token_mixer\.", "token_mixer.0."),
    (r"^se\.", "token_mixer.1."),
    (r"^spatial_downsample\.", "token_mixer.0."),
    (r"^channel_downsample\.", "token_mixer.2."),
    (r"^(channel_mixer|ffn)\.conv1\.", "channel_mixer.m.0."),
    (r"^(channel_mixer|ffn)\.conv2\.", "channel_mixer.m.2."),
)
_REPVIT_BLOCK = re.compile(r"^image_encoder\.body\.stages\.(\d+)\.(?:(blocks)\.(\d+)|downsample(\.pre_block)?)\.(.+)$")
_REPVIT_WIDTH = re.compile(r"(?:^|\.)features\.(\d{1,4})\.token_mixer\.0\.(?:conv\.)?c\.weight$")


@dataclass(frozen=True)
class Family:
    """Published files that share a graph and a way to name its weights.

    Attributes:
        name: as people call it.
        backbone: of the image encoder, see ``ImageEncoder``.
        published: the name of the publisher's file.
        file_name: from a name in ``MobileSam.state_dict()`` to the files'.
        unused: entries of the files that the forward pass does not use, and their shapes.
    """

    name: str
    backbone: str
    published: str
    file_name: Callable[[str], str]
    unused: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def mobile_sam_name(name: str) -> str:
    """Translate a name of ``MobileSam.state_dict()`` to the official checkpoint's."""
    for pattern, replacement in _TO_MOBILE_SAM:
        name = re.sub(pattern, replacement, name)
    # The official code counts a downsampling to the stage before it, timm to the stage after.
    name = re.sub(
        r"^image_encoder\.stages\.(\d+)\.downsample",
        lambda match: f"image_encoder.layers.{int(match[1]) - 1}.downsample",
        name,
    )
    return name.replace("image_encoder.stages.", "image_encoder.layers.")


def repvit_sam_name(depths: Sequence[int]) -> Callable[[str], str]:
    """What translates a name of ``MobileSam.state_dict()`` to RepViT-SAM's, which counts all blocks in one list.

    Args:
        depths: blocks of each stage, without those that stand before it: one of the width before, and the downsampling.
    """
    first = [1]  # each stage's; the stem is 0
    for stage, depth in enumerate(depths):
        first.append(first[-1] + depth + (2 if stage else 0))

    def translate(name: str) -> str:
        name = re.sub(r"^image_encoder\.body\.stem\.conv1\.", "image_encoder.features.0.0.", name)
        name = re.sub(r"^image_encoder\.body\.stem\.conv2\.", "image_encoder.features.0.2.", name)
        if (block := _REPVIT_BLOCK.match(name)) is None:
            return name
        stage, in_blocks, index, before, rest = block.groups()
        number = first[int(stage)]
        if in_blocks:
            number += int(index) + (2 if int(stage) else 0)
        elif before is None:
            number += 1
        for pattern, replacement in _TO_REPVIT_SAM:
            renamed = re.sub(pattern, replacement, rest)
            if renamed != rest:
                return f"image_encoder.features.{number}.{renamed}"
        raise AssertionError(f"a RepViT has no {name}")

    return translate


FAMILIES = (
    Family(
        "MobileSAM",
        DEFAULT_BACKBONE,
        "mobile_sam.pt",
        mobile_sam_name,
        {
            "image_encoder.norm_head.weight": (320,),
            "image_encoder.norm_head.bias": (320,),
            "image_encoder.head.weight": (1000, 320),
            "image_encoder.head.bias": (1000,),
        },
    ),
    *(
        Family(
            f"RepViT-SAM {size.replace('_', '.')}", REPVIT_SAM + size, "repvit_sam.pt", repvit_sam_name(depths)
        )
        for size, (_, depths) in REPVIT_SIZES.items()
    ),
)  # fmt: skip


KNOWN = ", ".join(("TinySAM", *(family.name for family in FAMILIES), "NanoSAM"))  # by name, for messages


def family_of(backbone: str) -> Family | None:
    """The published family with this backbone; None for any other student."""
    if backbone.startswith(NANO_SAM):
        name = f"NanoSAM {backbone.removeprefix(NANO_SAM)}"
        return Family(name, backbone, "checkpoint.pth of NanoSAM's trainer", nano_sam_name)
    return next((family for family in FAMILIES if family.backbone == backbone), None)


def family_name(backbone: str) -> str:
    """What a model with this backbone is."""
    family = family_of(backbone)
    return f"MobileSAM with {backbone}" if family is None else family.name


def widths_of(channels: Sequence[int], depths: Sequence[int]) -> list[int]:
    """Channels that each of a RepViT's blocks reads, in the order of RepViT-SAM's list."""
    return list(_widths_of(channels, depths))


def _widths_of(channels: Sequence[int], depths: Sequence[int]) -> Iterator[int]:
    before = channels[0]
    for stage, (width, depth) in enumerate(zip(channels, depths, strict=True)):
        yield from [before] * (2 if stage else 0)
        yield from [width] * depth
        before = width


def repvit_widths(shapes: Mapping[str, Sequence[int]]) -> dict[int, int]:
    """Channels that each block of a RepViT reads, by its number in a file with these names and shapes."""
    found: dict[int, int] = {}
    for name, shape in shapes.items():
        if (block := _REPVIT_WIDTH.search(name)) and shape:
            found.setdefault(int(block[1]), shape[0])
    return found


def recognised(shapes: Mapping[str, Sequence[int]]) -> Family | None:
    """The family of a file with these names and shapes, if they tell it from MobileSAM's.

    A RepViT that lacks blocks' weights is of the size that all it has agrees with and least is missing of.
    """
    if backbone := nano_sam_backbone(shapes):
        return family_of(NANO_SAM + backbone)
    found = repvit_widths(shapes)
    missing = {}
    for size, (channels, depths) in REPVIT_SIZES.items():
        widths = dict(enumerate(widths_of(channels, depths), start=1))
        if found and found.items() <= widths.items():
            missing[size] = len(widths) - len(found)
    return family_of(REPVIT_SAM + min(missing, key=missing.__getitem__)) if missing else None
