"""What one checkpoint gives to a model: choose among what it holds, check it, and say what was left out."""

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from reference.checkpoint_file import Opened
from reference.checkpoint_names import (
    COUNTER,
    DECODER_PARTS,
    PARTS,
    Candidate,
    Layout,
    candidates_in,
    flatten,
    preferred,
)
from reference.checkpoint_strangers import ITS_DECODER, stranger_in_code, stranger_in_names, stranger_in_tree
from reference.checkpoint_values import as_weights, unusable
from reference.errors import CheckpointError
from reference.families import FAMILIES, KNOWN
from reference.values import PIXEL_MEAN, PIXEL_STD

_log = logging.getLogger(__name__)


class Source:
    """The weights of one file, from its names to values that a model can take.

    Args:
        opened: what the file holds.
        source: what to call it.
        layout: of the model that is to take them.
    """

    def __init__(self, opened: Opened, source: str, layout: Layout) -> None:
        self.opened, self.source, self.layout = opened, source, layout
        self.label = source
        self.entries = flatten(opened.tree)
        self.candidates, self.others = candidates_in(self.entries, layout)
        self.chosen = Candidate("")

    def choose(self, parts: Sequence[str], key: str | None = None, all_of_them: bool = True) -> list[str]:
        """Choose the candidate to take; returns those of the parts that it has.

        Raises:
            CheckpointError: if none has them (all of them, or one at least).
        """
        candidates = self.candidates
        if key is not None:
            candidates = [c for c in candidates if c.label == key or c.label.startswith(key + ".")]
            if not candidates:
                there = ", ".join(repr(c.label) for c in preferred(self.candidates, self.layout, PARTS)[:5]) or "none"
                raise CheckpointError(f"{self.source} has no weights under {key!r}; it has some under: {there}")
            self.label = f"{self.source} ({key})"
        able = preferred(candidates, self.layout, parts)
        if not able or (all_of_them and not all(able[0].has(self.layout, part) for part in parts)):
            raise CheckpointError(self._misfit(able or candidates, parts))
        self.chosen = able[0]
        found = [part for part in parts if self.chosen.has(self.layout, part)]
        if self._unexpected(found):
            raise CheckpointError(self._misfit([self.chosen], parts))
        equals = [c for c in able[1:] if all(c.has(self.layout, part) for part in found)]
        if remarks := self._remarks(equals):
            _log.warning("%s: %s", self.source, "; ".join(remarks))
        return found

    def weights(self, parts: Sequence[str]) -> dict[str, Tensor]:
        """The chosen values by the model's own names.

        Raises:
            CheckpointError: of another shape or kind, or not possible as weights.
        """
        names = [name for part in parts for name in self.layout.names(part)]
        state, written = self.chosen.weights, self.chosen.written
        for name in names:
            if name in state and (kind := unusable(state[name])):
                raise CheckpointError(f"{self.source} holds {kind} under {written[name]!r}, expected a plain tensor")
        if self._misshapen(names):
            raise CheckpointError(self._misfit([self.chosen], parts))
        kept = {name: state[name].reshape(self.layout.shapes[name]) for name in names if name in state}
        weights = as_weights(kept, written, self.source)
        return {name: weights.get(name, torch.zeros((), dtype=torch.int64)) for name in names}  # a counter, if any

    def _misshapen(self, names: Sequence[str]) -> list[str]:
        """With both shapes. PyTorch itself takes a counter of shape (1,)."""
        state, shapes = self.chosen.weights, self.layout.shapes
        return [
            f"{self.chosen.written[name]} {tuple(state[name].shape)} instead of {shapes[name]}"
            for name in names
            if name in state
            and tuple(state[name].shape) != shapes[name]
            and not (name.endswith(COUNTER) and state[name].numel() == 1)
        ]

    def _unexpected(self, parts: Sequence[str]) -> list[str]:
        """Of these parts: names that stand in another part are not looked at."""
        absent = tuple(self.chosen.prefix + part + "." for part in PARTS if part not in parts)
        return [name for name in self.chosen.unexpected if not name.startswith(absent)]

    def _remarks(self, equals: Sequence[Candidate]) -> list[str]:
        """What was taken off and left out, in words."""
        remarks = []
        prefix = self.chosen.prefix
        if prefix:
            remarks.append(f"the weights stand under {self.chosen.label!r}")
        if equals:
            others = ", ".join(repr(candidate.label) for candidate in equals[:3])
            remarks.append(
                f"others under {others} were not taken (--checkpoint-key {equals[0].label}, in Python key=..., does it)"
            )
        left = dict.fromkeys(_outermost(name, prefix) for name in self.others)
        if left:
            more = f" and {len(left) - 5} more" if len(left) > 5 else ""
            remarks.append(f"left out: {', '.join(list(left)[:5])}{more}")
        for name, official in (("pixel_mean", PIXEL_MEAN), ("pixel_std", PIXEL_STD)):
            value = self.entries.get(prefix + name)
            if isinstance(value, Tensor) and not unusable(value) and not _is_close(value, official):
                remarks.append(f"its {name} is not MobileSAM's {official}, which is used")
        return remarks

    def _misfit(self, candidates: Sequence[Candidate], parts: Sequence[str]) -> str:
        """Why nothing could be taken, as far as it can be told."""
        tensors = {name: value for name, value in self.entries.items() if isinstance(value, Tensor)}
        plain = {name: value for name, value in tensors.items() if not unusable(value)}
        remark = stranger_in_names(plain) or stranger_in_tree(self.opened.tree, bool(tensors))
        if remark is None and not tensors:
            remark = stranger_in_code(self.opened.classes)
        if remark:
            return f"{self.source} is {remark}"
        if not tensors:
            return f"{self.source} holds no tensors, expected a dict from names to tensors: save model.state_dict()"
        self.chosen = max(candidates, key=lambda candidate: len(candidate.weights), default=Candidate(""))
        whole = [part for part in PARTS if self.chosen.has(self.layout, part)]
        touched = {name.partition(".")[0] for name in self.chosen.weights}
        if whole and not set(parts) <= set(whole) and touched == set(whole) and not self._unexpected(whole):
            return self._half(whole, parts)
        known = [name for name in self.chosen.weights if not name.startswith("image_encoder.neck.")]  # SAM's too
        if set(DECODER_PARTS) <= set(whole) and not any(name.startswith("image_encoder.") for name in known):
            return self._foreign_encoder()
        names = [name for part in parts for name in self.layout.names(part)]
        missing = [
            self._written(name) for name in names if name not in self.chosen.weights and not name.endswith(COUNTER)
        ]
        usable = [name for name in names if not unusable(self.chosen.weights.get(name))]
        entries = (
            ("missing", sorted(missing)),
            ("unexpected", sorted(self._unexpected(parts) or ([] if self.chosen.weights else plain))),
            ("of another shape", sorted(self._misshapen(usable))),
        )
        problems = [f"{len(found)} {kind} (first: {', '.join(found[:3])})" for kind, found in entries if found]
        there = sum(name in self.chosen.weights for name in names)
        counted = f"{there} there; " if there else ""
        if self.layout.family is None and there:
            return (
                f"{self.source} is no checkpoint of MobileSAM with {self.layout.backbone}: entries {counted}"
                f"{'; '.join(problems)}; expected that model's own names, as save_checkpoint writes them"
            )
        family = self.layout.family or FAMILIES[0]
        alike = f"of {family.name}, which it resembles most" if there else f"of none of {KNOWN}"
        return (
            f"{self.source} is no {family.name} checkpoint for {self.layout.backbone}: entries {counted}"
            f"{'; '.join(problems)}; its names are {alike}: expected the layout of the published {family.published}"
        )

    def _written(self, name: str) -> str:
        """What a missing weight would be called in this file, which may leave out the name of the part."""
        whole = self.layout.file_name(name)
        part, _, alone = whole.partition(".")
        of_part = [other for own, other in self.chosen.written.items() if own.startswith(part + ".")]
        named = any(other.startswith(f"{self.chosen.prefix}{part}.") for other in of_part) or not of_part
        return self.chosen.prefix + (whole if named else alone)

    def _foreign_encoder(self) -> str:
        """What to do with a file of SAM's decoder and another image encoder."""
        own = [name for name in self.entries if name.startswith(self.chosen.prefix + "image_encoder.")]
        return (
            f"{self.source} holds SAM's prompt encoder and mask decoder with an image encoder of no family known here "
            f"({len(own)} entries, first: {min(own, default='none')}; known: {KNOWN}); {ITS_DECODER}"
        )

    def _half(self, whole: Sequence[str], parts: Sequence[str]) -> str:
        """What to do with a file that has some parts and nothing of the others."""
        has = " and ".join(f"{'an' if part[0] in 'aeiou' else 'a'} {part.replace('_', ' ')}" for part in whole)
        if "image_encoder" not in whole and "image_encoder" in parts:
            return (
                f"{self.source} holds {has} alone; give the image encoder's file as --checkpoint and this one as "
                "--decoder-checkpoint (load_mobile_sam(encoder, decoder=...))"
            )
        if "image_encoder" in parts:
            return (
                f"{self.source} holds {has} alone; give the rest with --decoder-checkpoint PATH, official or demo "
                "(load_mobile_sam(..., decoder=...))"
            )
        return f"{self.source} holds {has} alone, expected a prompt encoder and a mask decoder; give their file"


def _outermost(name: str, prefix: str) -> str:
    """A name down to where it leaves the way to the weights."""
    components, way = name.split("."), prefix.split(".")
    common = 0
    while common < len(components) - 1 and components[common : common + 1] == way[common : common + 1]:
        common += 1
    return ".".join(components[: common + 1])


def _is_close(value: Tensor, official: Sequence[float]) -> bool:
    return value.numel() == 3 and torch.allclose(value.detach().cpu().float().flatten(), torch.tensor(official))
