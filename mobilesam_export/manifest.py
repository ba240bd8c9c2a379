"""``manifest.json``: what a bundle holds, what it was made from, and how well it agrees with the reference."""

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Self

from mobilesam_export.contract import (
    CONTRACT_VERSION,
    MASK_THRESHOLD,
    PAD_COLOUR,
    PAD_COLOUR_8BIT,
    PIXEL_MEAN,
    PIXEL_STD,
    Contract,
    PointLabel,
)
from mobilesam_export.errors import ExportError

FILE_NAME = "manifest.json"
FORMAT = "mobilesam-export-bundle"
FORMAT_VERSION = "1"
TARGETS = ("onnx", "coreml", "tflite")

_PACKAGES = {
    "onnx": ("onnx", "onnxruntime", "onnxscript", "onnxsim"),
    "coreml": ("coremltools",),
    "tflite": ("litert-torch", "ai-edge-litert", "ai-edge-quantizer"),
}


@dataclass(frozen=True)
class FileEntry:
    """One artifact.

    Attributes:
        path: from the bundle's directory, with forward slashes.
        role: ``encoder``, ``decoder``, ``combined`` (both in one) or ``other``.
        kind: ``file``, or ``tree`` for a directory such as an .mlpackage.
        sha256: of the bytes; of a tree, see ``tree_sha256``.
    """

    path: str
    role: str
    kind: str
    size_bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path, directory: Path) -> Self:
        """Measure an artifact that lies in a bundle's directory."""
        role = path.stem.removeprefix("mobile_sam_")
        role = role if role in ("encoder", "decoder", "combined") else "other"
        relative = path.relative_to(directory).as_posix()
        return cls(relative, role, "tree" if path.is_dir() else "file", size_bytes(path), sha256_of(path))

    def problem(self, directory: Path) -> str | None:
        """What is wrong with the artifact as it lies there now, or None."""
        path = directory / self.path
        if not path.exists():
            return f"{self.path} is missing"
        if size_bytes(path) != self.size_bytes:
            return f"{self.path} has {size_bytes(path):,} bytes instead of {self.size_bytes:,}"
        if sha256_of(path) != self.sha256:
            return f"{self.path} has been changed (another sha256)"
        return None


@dataclass(frozen=True)
class TargetEntry:
    """What was exported for one target.

    Attributes:
        options: how it was exported, where that is not the default.
        contract: both graphs' ports, see ``describe_contract``.
        parity: ``ParityReport.as_dict()``; None if it was exported without verification.
        versions: of Python, the machine and the packages that wrote it.
        notes: what the target's writer has to say (precision headroom, delegate report).
    """

    target: str
    precision: str
    options: dict[str, Any]
    contract: dict[str, Any]
    files: list[FileEntry]
    parity: dict[str, Any] | None
    versions: dict[str, str]
    notes: dict[str, Any] = field(default_factory=dict)

    def path_of(self, role: str) -> str:
        """Path of the encoder or decoder, or of the file that has both, from the bundle's directory.

        Raises:
            ExportError: if the bundle has none.
        """
        for file in self.files:
            if file.role in (role, "combined"):
                return file.path
        raise ExportError(f"the bundle's {self.target} target has no {role}; export it again")

    def check_files(self, directory: Path) -> None:
        """Raise an ExportError naming every missing or changed file."""
        problems = [problem for file in self.files if (problem := file.problem(directory))]
        if problems:
            raise ExportError(f"{directory} is damaged: {'; '.join(problems)}; export it again with --overwrite")


@dataclass(frozen=True)
class Weights:
    """What was exported.

    Attributes:
        source: ``official``, ``demo``, a file's name, or what else ``MobileSam.weights_source`` says.
        sha256: ``reference.checkpoint.weights_sha256``.
        notice: what everybody who uses these weights must know, or None.
    """

    source: str
    sha256: str
    notice: str | None = None


@dataclass(frozen=True)
class Manifest:
    """A bundle's table of contents."""

    weights: Weights
    image_size: int
    targets: dict[str, TargetEntry]

    def target(self, name: str | None) -> TargetEntry:
        """The entry of a target; of the only one for None.

        Raises:
            ExportError: if there is no such target, or more than one to choose from.
        """
        there = ", ".join(self.targets)
        if name is None and len(self.targets) == 1:
            return next(iter(self.targets.values()))
        if name is None:
            raise ExportError(f"the bundle holds {there}; say which with target= or --target")
        if name not in self.targets:
            raise ExportError(f"the bundle holds {there}, got target {name!r}; export that target into it first")
        return self.targets[name]

    def as_dict(self) -> dict[str, Any]:
        """As in the file."""
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "contract_version": CONTRACT_VERSION,
            "image_size": self.image_size,
            "weights": asdict(self.weights),
            "targets": {name: asdict(entry) for name, entry in self.targets.items()},
        }

    def to_json(self) -> str:
        """The file's text."""
        return json.dumps(self.as_dict(), indent=2, allow_nan=False) + "\n"

    def write(self, directory: Path) -> None:
        """Write ``manifest.json`` into a bundle's directory."""
        (directory / FILE_NAME).write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Read a bundle's manifest.

        Raises:
            ExportError: if there is none, or none that this version understands.
        """
        path = Path(directory) / FILE_NAME
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if (content["format"], content["format_version"]) != (FORMAT, FORMAT_VERSION):
                raise ExportError(
                    f"{path} has format {content['format']} {content['format_version']}, expected {FORMAT} "
                    f"{FORMAT_VERSION}; use the version of mobilesam-export that wrote it, or export again"
                )
            targets = {
                name: TargetEntry(**{**entry, "files": [FileEntry(**file) for file in entry["files"]]})
                for name, entry in content["targets"].items()
            }
            manifest = cls(Weights(**content["weights"]), int(content["image_size"]), targets)
        except FileNotFoundError as error:
            raise ExportError(f"there is no bundle at {directory} (no {FILE_NAME}); give export's --out") from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ExportError(
                f"{path} is no bundle's manifest ({type(error).__name__}: {error}); export again"
            ) from error
        for entry in targets.values():
            for file in entry.files:
                if PurePosixPath(file.path).is_absolute() or ".." in PurePosixPath(file.path).parts:
                    raise ExportError(f"{path} points out of its directory ({file.path}); do not use this bundle")
        return manifest


def describe_contract(contract: Contract) -> dict[str, Any]:
    """The canonical (NCHW) contract in JSON's own types; what a target lays out otherwise is in its notes."""
    described = {
        "version": CONTRACT_VERSION,
        "image_size": contract.image_size,
        "max_points": contract.max_points,
        "encoder": {
            "inputs": [asdict(port) for port in contract.encoder_inputs],
            "outputs": [asdict(port) for port in contract.encoder_outputs],
        },
        "decoder": {
            "inputs": [asdict(port) for port in contract.decoder_inputs],
            "outputs": [asdict(port) for port in contract.decoder_outputs],
        },
        "point_labels": {label.name.lower(): int(label) for label in PointLabel},
        "pixel_mean": PIXEL_MEAN,
        "pixel_std": PIXEL_STD,
        "pad_colour": PAD_COLOUR,
        "pad_colour_8bit": PAD_COLOUR_8BIT,
        "mask_threshold": MASK_THRESHOLD,
    }
    plain: dict[str, Any] = json.loads(json.dumps(described))
    return plain


def versions_for(target: str) -> dict[str, str]:
    """Python, the platform and the packages that take part in an export for a target."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in ("mobilesam-export", "torch", "timm", "numpy", *_PACKAGES[target]):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def _files_under(path: Path) -> Iterable[Path]:
    return sorted(
        (file for file in path.rglob("*") if file.is_file()), key=lambda file: file.relative_to(path).as_posix()
    )


def size_bytes(path: Path) -> int:
    """Size of a file, or of all files in a directory."""
    return sum(file.stat().st_size for file in _files_under(path)) if path.is_dir() else path.stat().st_size


def sha256_of(path: Path) -> str:
    """sha256 of a file, or of a directory as a tree."""
    if path.is_dir():
        return tree_sha256(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree_sha256(directory: Path) -> str:
    """sha256 of a directory.

    Hashed are, for each file in the order of its path, the line ``sha256-of-the-file  relative/path`` and a
    newline: what ``find * -type f | LC_ALL=C sort | xargs sha256sum | sha256sum`` gives inside the directory.
    """
    lines = (f"{sha256_of(file)}  {file.relative_to(directory).as_posix()}\n" for file in _files_under(directory))
    return hashlib.sha256("".join(lines).encode()).hexdigest()
