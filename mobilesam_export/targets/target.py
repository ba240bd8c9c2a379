"""What a target is: everything that the rest of the program asks of one, and nothing else.

A target is a class that names ``Target`` as its base, so that mypy holds it to this and what has a default here may be
left out, and one entry of ``targets.ALL``. Its module imports what it needs inside its methods.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from mobilesam_export.contract import Written
from mobilesam_export.errors import ExportError
from mobilesam_export.options import Option
from mobilesam_export.parity.gates import Gates

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from reference.mobile_sam import MobileSam

    Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Precision:
    """One precision of a target.

    Attributes:
        gates: what its artifacts must reach: nothing is shipped unjudged.
        calibrated: whether it has fixed ranges, measured on photos.
        for_transformers: whether it is about a TinyViT's layers, so that an image encoder of convolutions has nothing
            that it would change, or nobody has measured which of its layers bear it.
    """

    name: str
    gates: Gates
    calibrated: bool = False
    for_transformers: bool = False


@dataclass(frozen=True)
class Cost:
    """Seconds of a step: ``fixed`` and, for each megapixel of the model frame (and photo, where there are several)."""

    fixed: float
    a_megapixel: float

    def at(self, image_size: int, photos: int = 1) -> float:
        """At a model frame of side ``image_size``."""
        return self.fixed + self.a_megapixel * photos * image_size**2 / 1e6


Step = Literal["write", "report", "verify"]


class Runtime(Protocol):
    """What runs a pair of artifacts."""

    @property
    def image_size(self) -> int:
        """Side S of the model frame."""
        ...

    @property
    def max_points(self) -> int | None:
        """Slots for points and box corners; None for any number."""
        ...

    def encode(self, image: "Floats") -> "Floats":
        """Embed (1, 3, S, S) RGB of 0 to 255, padded with the pad colour, as (1, 256, S/16, S/16)."""
        ...

    def decode(
        self, image_embeddings: "Floats", point_coords: "Floats", point_labels: "Floats", mask_input: "Floats | None"
    ) -> "tuple[Floats, Floats]":
        """Decode B prompts to (B, 4, S/4, S/4) logits and (B, 4) IoU predictions.

        Args:
            image_embeddings: (1, 256, S/16, S/16).
            point_coords: (B, N, 2) x, y in model-frame pixels.
            point_labels: (B, N) values of ``contract.PointLabel``.
            mask_input: (B, 1, S/4, S/4) logits.
        """
        ...


@runtime_checkable
class UpscalingRuntime(Protocol):
    """A runtime whose decoder may bring its masks to the photo's size by itself."""

    @property
    def official(self) -> bool:
        """Whether this one does."""
        ...

    def decode_to_photo(
        self,
        image_embeddings: "Floats",
        point_coords: "Floats",
        point_labels: "Floats",
        mask_input: "Floats | None",
        size: tuple[int, int],
    ) -> "tuple[Floats, Floats]":
        """Decode to (B, C, H, W) logits at the photo's (H, W) ``size``, and the (B, C, S/4, S/4) they come from."""
        ...


@runtime_checkable
class TwoStepRuntime(Protocol):
    """A runtime that answers many prompts on one photo in two steps: what they mean, and the masks that are wanted.

    Attributes:
        gives_memory_back: whether ``encode`` hands back what it worked with; slower, and for who asks much of a photo.
    """

    gives_memory_back: bool

    @property
    def concurrency(self) -> int:
        """How many threads may ask at a time."""
        ...

    @property
    def best_batch(self) -> int:
        """Prompts that are fastest together."""
        ...

    def attend(
        self, image_embeddings: "Floats", point_coords: "Floats", point_labels: "Floats"
    ) -> "tuple[Floats, Callable[[int, NDArray[np.int64]], Floats]]":
        """As ``decode`` without mask input, but masks are drawn when they are asked for.

        Returns:
            (B, C) IoU predictions, and what draws the (n, S/4, S/4) logits of some rows of one prompt.
        """
        ...


@runtime_checkable
class ClosingRuntime(Protocol):
    """A runtime that holds something which must be released."""

    def close(self) -> None:
        """Release the artifacts."""


class Draft(Protocol):
    """The graphs of one precision, converted once; files with other exceptions are then written in seconds."""

    @property
    def parts(self) -> tuple[str, ...]:
        """Parts of both graphs (see ``rewrites.parts``) that the precision rounds; each may be made an exception."""
        ...

    def write(self, out_dir: Path, exceptions: Collection[str] = ()) -> list[Path]:
        """Write both files as ``Target.write`` does.

        Args:
            out_dir: an existing folder; files of an earlier call are replaced.
            exceptions: of ``parts``; they stay as they are without the precision.
        """
        ...


class Target(Protocol):
    """One form in which MobileSAM is written, run and judged.

    Attributes:
        name: on the command line, in the manifest, and of the folder in a bundle.
        packages: what it needs, by import name.
        distributions: whose versions a manifest records, by the name that pip knows.
        options: those that it takes besides the precision.
        precisions: from exact to small.
        default_precision: one of their names.
        seconds: how long its steps take, see ``estimates``; no ``report`` for a target without ``notes``.
        remedy: what to do where a package is missing.
        hosts: folders of ``apps/`` whose code runs its files.
        takes_conv_nets: whether it has forms of image encoders of convolutions besides that of TinyViT: RepViT-SAM's,
            and ResNets and HGNetV2s.
        takes_any_encoder: whether it has one of image encoders that have none of their own in ``rewrites``.
        searched: by what is preferred (``size``, ``speed``), the precisions that ``auto`` tries, the cheapest first;
            each needs ``draft``. Empty for a target without ``auto``.
        verified_by_default: ``full``, or ``quick`` where what runs the files is slow; see ``options.VERIFY``.
    """

    name: str
    packages: tuple[str, ...]
    distributions: tuple[str, ...]
    options: tuple[Option, ...]
    precisions: tuple[Precision, ...]
    default_precision: str
    seconds: Mapping[Step, Cost]
    remedy: str = (
        "run: pip install mobilesam-export (on a platform that its converter supports, see the README), "
        "or choose another --target"
    )
    hosts: tuple[str, ...] = ()
    takes_conv_nets: bool = False
    takes_any_encoder: bool = False
    searched: Mapping[str, tuple[str, ...]] = {}
    verified_by_default: Literal["full", "quick"] = "full"

    def refuse(self, precision: str, options: Mapping[str, Any], image_size: int) -> None:
        """Raise an ExportError for options that each are fine and that together cannot be written."""
        return

    def not_run(self, options: Mapping[str, Any]) -> str | None:
        """Why files of these options are not run here, so that nobody judges their masks; None if they are."""
        return None

    def load(self, verify: bool) -> None:
        """Import what writes, and what runs if ``verify``, before any work.

        Raises:
            ImportError: it is not installed, or not whole.
        """

    def write(
        self,
        sam: "MobileSam",
        out_dir: Path,
        *,
        precision: str,
        options: Mapping[str, Any],
        calibration: Sequence[Path] | None,
        metadata: Mapping[str, str],
        progress: Callable[[str], None],
    ) -> list[Path]:
        """Write encoder and decoder.

        Args:
            sam: the reference, in eval mode.
            out_dir: an existing folder.
            precision: a name of ``precisions``.
            options: those that were given, by name.
            calibration: photos for a calibrated precision; None for the bundled ones.
            metadata: named strings that go into the files.
            progress: told of each step.

        Returns:
            ``mobile_sam_encoder.*`` and ``mobile_sam_decoder.*``, or ``mobile_sam_combined.*`` that has both.
        """
        ...

    def draft(
        self,
        sam: "MobileSam",
        *,
        precision: str,
        options: Mapping[str, Any],
        calibration: Sequence[Path] | None,
        metadata: Mapping[str, str],
        progress: Callable[[str], None],
    ) -> Draft:
        """What writes files of a precision with exceptions; arguments as of ``write``.

        Raises:
            ExportError: the target, which has no ``auto``, has no exceptions either; such a plan is not its own.
        """
        raise ExportError(f"got a plan with exceptions, which {self.name} does not have; choose a --precision instead")

    def ports(self, encoder: Path, decoder: Path) -> Written:
        """What written files say of themselves, read from them.

        Raises:
            ExportError: a file is damaged or of another kind.
            ImportError: what reads them is not installed.
        """
        ...

    def open(self, encoder: Path, decoder: Path) -> Runtime:
        """What runs written files.

        Raises:
            ExportError: a file is damaged or of another kind.
            ImportError: the engine is not installed.
        """
        ...

    def notes(self, paths: Sequence[Path]) -> Mapping[str, Any]:
        """What there is to say about written files besides the contract, for the manifest."""
        return {}

    def record_parity(self, paths: Sequence[Path], summary: str) -> None:
        """Write measured parity into the files, for a format whose viewers show it; their hashes then change."""
        return
