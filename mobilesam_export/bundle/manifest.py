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
    PointLabel,
    Port,
    Written,
)
from mobilesam_export.errors import ExportError
from mobilesam_export.json_fields import Field, read_json
from mobilesam_export.options import IMAGE_SIZE
from mobilesam_export.targets import named, names
from mobilesam_export.targets.choices import option_of

FILE_NAME = "manifest.json"
FORMAT = "mobilesam-export-bundle"
FORMAT_VERSION = "2"  # 1: the ports of every target were said to be NCHW float32
ROLES = ("encoder", "decoder", "combined", "other")
ROLES_OF_BOTH_GRAPHS = (["decoder", "encoder"], ["combined"])
DTYPES = ("float32", "float16", "uint8", "int32", "int64", "rgb_image")


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
        role = role if role in ROLES else "other"
        relative = path.relative_to(directory).as_posix()
        return cls(relative, role, "tree" if path.is_dir() else "file", size_bytes(path), sha256_of(path))

    @classmethod
    def from_field(cls, field: Field, target: str) -> Self:
        """Read an entry; its path must lie in the target's folder."""
        fields = field.record(*cls.__dataclass_fields__)
        path = fields["path"].text()
        parts = PurePosixPath(path).parts
        if path.startswith("/") or ".." in parts or "\\" in path or ":" in path:
            raise ExportError(f"{field.where} points out of its directory ({path}); do not use this bundle")
        if len(parts) < 2 or parts[0] != target or "/".join(parts) != path:
            fields["path"].refuse(f"a path in {target}/")
        return cls(
            path,
            fields["role"].one_of(ROLES),
            fields["kind"].one_of(("file", "tree")),
            fields["size_bytes"].integer(1, 1 << 50),
            fields["sha256"].sha256(),
        )

    def problem(self, directory: Path) -> str | None:
        """What is wrong with the artifact as it lies there now, or None."""
        path = directory / self.path
        if not path.exists():
            return f"{self.path} is missing"
        if not (path.is_dir() if self.kind == "tree" else path.is_file()):
            return f"{self.path} is not the {self.kind} that it was"
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
        contract: both graphs' ports, read from the files, see ``describe_contract``.
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

    @classmethod
    def from_field(cls, field: Field, target: str, image_size: int) -> Self:
        """Read an entry."""
        fields = field.record(*cls.__dataclass_fields__)
        if target not in names():
            Field(target, f"a key of {field.where.rpartition('.')[0]}").one_of(names())
        if fields["target"].value != target:
            fields["target"].refuse(json.dumps(target))
        _check_option(fields["precision"], target, "precision")
        for name, option in fields["options"].entries().items():
            _check_option(option, target, name)
        _check_contract(fields["contract"], image_size)
        files = [FileEntry.from_field(file, target) for file in fields["files"].items()]
        if not files or len({file.path for file in files}) < len(files):
            fields["files"].refuse("at least one file, each once")
        if sorted(file.role for file in files if file.role != "other") not in ROLES_OF_BOTH_GRAPHS:
            fields["files"].refuse("one encoder and one decoder, or one combined file")
        if (parity := fields["parity"]).value is not None:
            _check_parity(parity)
        versions = {name: version.text(300) for name, version in fields["versions"].entries().items()}
        fields["notes"].entries()
        return cls(
            target,
            fields["precision"].value,
            fields["options"].value,
            fields["contract"].value,
            files,
            parity.value,
            versions,
            fields["notes"].value,
        )

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

    @classmethod
    def from_field(cls, field: Field) -> Self:
        """Read an entry."""
        fields = field.record(*cls.__dataclass_fields__)
        notice = fields["notice"]
        return cls(fields["source"].text(), fields["sha256"].sha256(), None if notice.value is None else notice.text())


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
        """Read a bundle's manifest, which anybody may have written: every value is checked.

        Raises:
            ExportError: if there is none, or none that this version understands.
        """
        path = Path(directory) / FILE_NAME
        if not path.exists():
            raise ExportError(f"there is no bundle at {directory} (no {FILE_NAME}); give export's --out")
        content = read_json(path, "bundle's manifest")
        for name, understood in (
            ("format", FORMAT),
            ("format_version", FORMAT_VERSION),
            ("contract_version", CONTRACT_VERSION),
        ):
            found = content.entries().get(name)
            if found is None or found.value != understood:
                raise ExportError(
                    f"{path} is no bundle's manifest of {FORMAT} {FORMAT_VERSION}, contract {CONTRACT_VERSION} "
                    f"({name} is {json.dumps(found.value)[:60] if found else 'missing'}); "
                    "use the version of mobilesam-export that wrote it, or export again"
                )
        fields = content.record("format", "format_version", "contract_version", "image_size", "weights", "targets")
        if not IMAGE_SIZE.takes(image_size := fields["image_size"].value):
            fields["image_size"].refuse(IMAGE_SIZE.expected)
        targets = {
            name: TargetEntry.from_field(field, name, image_size) for name, field in fields["targets"].entries().items()
        }
        if not targets:
            fields["targets"].refuse(f"at least one of {', '.join(names())}")
        return cls(Weights.from_field(fields["weights"]), image_size, targets)


def describe_contract(image_size: int, written: Written) -> dict[str, Any]:
    """The ports as the files have them, and what holds for every target, in JSON's own types."""
    described = {
        "version": CONTRACT_VERSION,
        "image_size": image_size,
        "max_points": written.max_points,
        "encoder": {
            "inputs": [asdict(port) for port in written.encoder_inputs],
            "outputs": [asdict(port) for port in written.encoder_outputs],
        },
        "decoder": {
            "inputs": [asdict(port) for port in written.decoder_inputs],
            "outputs": [asdict(port) for port in written.decoder_outputs],
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


def _check_option(field: Field, target: str, name: str) -> None:
    option = option_of(target, name)
    if option is None:
        raise ExportError(f"{field.where} is no option of {target}; export again")
    if not option.takes(field.value):
        field.refuse(option.expected)


def _check_contract(field: Field, image_size: int) -> None:
    """Ports may be any; the rest is this version's, or the contract version is a lie."""

    def ports(graph: Field, side: str) -> tuple[Port, ...]:
        found = []
        for item in graph.record("inputs", "outputs")[side].items():
            port = item.record("name", "shape", "dtype", "meaning")
            shape = tuple(
                size.text(40) if isinstance(size.value, str) else size.integer(1, 1 << 31)
                for size in port["shape"].items()
            )
            found.append(Port(port["name"].text(100), shape, port["dtype"].one_of(DTYPES), port["meaning"].text()))
        if not found:
            graph.refuse(f"{side} with at least one port")
        return tuple(found)

    graphs = field.entries()
    for name in ("encoder", "decoder", "max_points"):
        if name not in graphs:
            raise ExportError(f"{field.where} has no {name!r}; export again")
    if (slots := graphs["max_points"]).value is not None:
        slots.integer(1, 1 << 16)
    encoder, decoder = graphs["encoder"], graphs["decoder"]
    expected = describe_contract(
        image_size,
        Written(
            ports(encoder, "inputs"), ports(encoder, "outputs"), ports(decoder, "inputs"), ports(decoder, "outputs"),
            slots.value, {},
        ),
    )  # fmt: skip
    for name, value in field.record(*expected).items():
        if value.value != expected[name]:
            value.refuse(f"{json.dumps(expected[name])[:60]} of contract {CONTRACT_VERSION}")


def _check_parity(field: Field) -> None:
    """Figures that can be shown and judged; a later version may say more."""
    parity = field.entries()
    for name in ("passed", "failures", "worst_mask", "embeddings", "prompts", "gates"):
        if name not in parity:
            raise ExportError(f"{field.where} has no {name!r}; export again")
    failures = [failure.text() for failure in parity["failures"].items()]
    if parity["passed"].boolean() == bool(failures):
        parity["passed"].refuse(f"{json.dumps(not failures)}, as there are {len(failures)} failures")
    if parity["worst_mask"].value is not None:
        worst = parity["worst_mask"].record("photo", "prompt", "mask", "mask_iou")
        worst["mask_iou"].number()
        for name in ("photo", "prompt", "mask"):
            worst[name].text(200)
    for name in ("embeddings", "prompts", "gates"):
        if not parity[name].entries():
            parity[name].refuse("at least one entry")
    for embedding in parity["embeddings"].entries().values():
        for figure in embedding.record("cosine", "psnr_db").values():
            figure.number()
    for prompt in parity["prompts"].entries().values():
        figures = prompt.record(
            "masks",
            "informative_masks",
            "mask_iou_min",
            "mask_iou_mean",
            "logits_error_max",
            "iou_prediction_error_max",
            *({"enlarging_error_max"} & prompt.entries().keys()),  # of an official decoder
        )
        informative = figures["informative_masks"].integer(0, figures["masks"].integer(1, 1 << 31))
        for name in ("mask_iou_min", "mask_iou_mean"):
            if informative or figures[name].value is not None:
                figures[name].number()
        for name in figures.keys() - {"masks", "informative_masks", "mask_iou_min", "mask_iou_mean"}:
            figures[name].number()
    for gate in parity["gates"].entries().values():
        gate.number()
    if "judged" in parity:
        judged = parity["judged"].record("level", "photos", "min_iou")
        judged["level"].text(), judged["photos"].text()
        if judged["min_iou"].value is not None:
            judged["min_iou"].number()


def versions_for(target: str) -> dict[str, str]:
    """Python, the platform and the packages that take part in an export for a target."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in ("mobilesam-export", "torch", "timm", "numpy", *named(target).distributions):
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
