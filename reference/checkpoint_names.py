"""Which name in a checkpoint is which weight, whatever stands before it.

A file is flattened to dotted names, so that a dict around the weights (``model``, ``state_dict``) and a prefix of their
names (``module.``, ``sam.``) are the same: something before a known name. What shares it belongs together.
"""

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import timm
import torch
from torch import Tensor

from reference.errors import CheckpointError
from reference.families import Family, family_of
from reference.image_encoder import timm_name
from reference.mobile_sam import MobileSam, require_image_size

PARTS = ("image_encoder", "prompt_encoder", "mask_decoder")
DECODER_PARTS = PARTS[1:]
COUNTER = "num_batches_tracked"  # of BatchNorm; takes no part in eval mode, and old files lack it

_DEEPEST = 4  # dicts in dicts
_LONGEST = 16  # components of a name that are looked at from its end; the longest known name has nine
_INSERTED = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}  # by DDP, compile, FSDP
BUFFERS = {"pixel_mean", "pixel_std", "attention_bias_idxs", "ab"}  # constants that some files carry
_SPELT = {"PromtEncoder": "prompt_encoder", "MaskDecoder": "mask_decoder"}  # by MobileSAMv2's Prompt-guided decoder
_AVERAGES = re.compile(r"(^|[._])(ema|swa|averaged?|shadow|teacher)([._]|$)", re.IGNORECASE)


@dataclass(frozen=True)
class Layout:
    """The weights that a model needs, and every way to spell them.

    Attributes:
        backbone: of the image encoder, see ``ImageEncoder``.
        family: the published one with this backbone; None for any other student.
        shapes: of the model's own names.
        spellings: from a name as it stands in a file (the family's or the model's own, whole or without the part's
            name) to the model's own.
        unused: spellings of what is left out without a word.
    """

    backbone: str
    family: Family | None
    shapes: Mapping[str, tuple[int, ...]]
    spellings: Mapping[str, str]
    unused: frozenset[str]

    def names(self, part: str) -> list[str]:
        """The model's own names of one of ``PARTS``."""
        return [name for name in self.shapes if name.startswith(part + ".")]

    def file_name(self, name: str) -> str:
        """What the publisher's files, or those of another student, call one of the model's own names."""
        return name if self.family is None else self.family.file_name(name)


@functools.cache
def layout_of(backbone: str, image_size: int = 1024) -> Layout:
    """The layout of a model with this backbone; nothing is allocated for it, however large it is.

    Args:
        image_size: a NanoSAM's places depend on it.

    Raises:
        CheckpointError: if timm cannot make it.
        ValueError: no image encoder takes that size.
    """
    require_image_size(image_size)
    if not timm.is_model(
        timm_name(backbone)
    ):  # this also keeps timm from fetching a model that a file names by address
        raise CheckpointError(f"the backbone {backbone!r} is not in timm {timm.__version__}; choose one that is")
    try:
        with torch.device("meta"):
            own = MobileSam(backbone, image_size).state_dict()
    except Exception as error:  # timm has a thousand models, and not all can be an image encoder here
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"the backbone {backbone!r} cannot be an image encoder ({reason})") from error
    family = family_of(backbone)
    spellings: dict[str, str] = {}
    for name in own:
        for whole in (name, name if family is None else family.file_name(name)):
            spellings[whole] = spellings[whole.partition(".")[2]] = name
    unused = {entry for name in (family.unused if family else ()) for entry in (name, name.partition(".")[2])}
    shapes = {name: tuple(entry.shape) for name, entry in own.items()}
    return Layout(backbone, family, shapes, spellings, frozenset(unused))


@dataclass
class Candidate:
    """What one prefix of a file holds.

    Attributes:
        prefix: with its final dot, or empty.
        weights: by the model's own names.
        written: the whole names in the file of the same.
        heads: first components after the prefix.
        unexpected: names of tensors in this model's modules that it does not have.
    """

    prefix: str
    weights: dict[str, Any] = field(default_factory=dict)
    written: dict[str, str] = field(default_factory=dict)
    heads: set[str] = field(default_factory=set)
    unexpected: list[str] = field(default_factory=list)

    def has(self, layout: Layout, part: str) -> bool:
        """Is every name of the part here?"""
        return all(name in self.weights or name.endswith(COUNTER) for name in layout.names(part))

    @property
    def label(self) -> str:
        """The prefix as a user types it."""
        return self.prefix.rstrip(".")


def flatten(tree: Mapping[Any, Any]) -> dict[str, Any]:
    """Dotted names to values; of a dict that stands in several places only the first is looked into."""
    return dict(_flatten(tree, "", _DEEPEST, set()))


def _flatten(tree: Mapping[Any, Any], prefix: str, deeper: int, seen: set[int]) -> Iterator[tuple[str, Any]]:
    seen.add(id(tree))
    for key, value in tree.items():
        if not isinstance(key, str):
            continue  # an optimizer counts its parameters
        if not isinstance(value, Mapping):
            yield prefix + key, value
        elif deeper and id(value) not in seen:
            yield from _flatten(value, f"{prefix}{key}.", deeper - 1, seen)
        else:
            yield prefix + key, None


def candidates_in(entries: Mapping[str, Any], layout: Layout) -> tuple[list[Candidate], list[str]]:
    """Sort the names of a flattened file by what stands before them.

    Returns:
        the candidates in the order of the file, and the names that belong to none.
    """
    found: dict[str, Candidate] = {}
    left: list[str] = []
    for name, value in entries.items():
        prefix, known = _split(name, layout)
        if known is None:
            left.append(name)
            continue
        candidate = found.setdefault(prefix, Candidate(prefix))
        candidate.heads.add(known.partition(".")[0])
        if known in layout.spellings:
            own = layout.spellings[known]
            candidate.weights.setdefault(own, value)
            candidate.written.setdefault(own, name)
    others = []
    for name in left:
        owner = _owner(name, found)
        if owner is not None and isinstance(entries[name], Tensor) and name.rpartition(".")[2] not in BUFFERS:
            owner.unexpected.append(name)
        else:
            others.append(name)
    return list(found.values()), others


def _split(name: str, layout: Layout) -> tuple[str, str | None]:
    """A name's prefix and the longest known spelling at its end (None: there is none)."""
    components = [_SPELT.get(part, part) for part in name.split(".")]
    for start in range(max(0, len(components) - _LONGEST), len(components)):
        if components[start] in _INSERTED:
            continue
        rest = components[start:]
        for known in (".".join(rest), ".".join(part for part in rest if part not in _INSERTED)):
            if known in layout.spellings or known in layout.unused:
                return "".join(f"{part}." for part in components[:start]), known
    return "", None


def _owner(name: str, found: Mapping[str, Candidate]) -> Candidate | None:
    """The candidate in one of whose modules a name stands."""
    components = name.split(".")
    for count in range(min(len(components), _LONGEST)):
        candidate = found.get("".join(f"{part}." for part in components[:count]))
        if candidate is not None and components[count] in candidate.heads:
            return candidate
    return None


def preferred(candidates: list[Candidate], layout: Layout, parts: Sequence[str]) -> list[Candidate]:
    """Those that have a part, best first: more of the parts, then no running average, then the order of the file."""
    able = [candidate for candidate in candidates if any(candidate.has(layout, part) for part in parts)]
    return sorted(
        able,
        key=lambda candidate: (
            -sum(candidate.has(layout, part) for part in parts),
            bool(_AVERAGES.search(candidate.prefix)),
        ),
    )
