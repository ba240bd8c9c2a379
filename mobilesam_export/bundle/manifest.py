"""``manifest.json``: what a bundle holds, what it was made from, and how well it agrees with the reference."""

import importlib.metadata
import json
import platform
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Self

from mobilesam_export.bundle.checksums import sha256_of, size_bytes
from mobilesam_export.bundle.described_contract import check_contract
from mobilesam_export.bundle.described_parity import check_parity
from mobilesam_export.contract import CONTRACT_VERSION
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


@dataclass(frozen=True)
class FileEntry:
    """One artifact.

    Attributes:
        path: from the bundle's directory, with forward slashes.
        role: ``encoder``, ``decoder``, ``combined`` (both in one) or ``other``.
        kind: ``file``, or ``tree`` for a directory such as an .mlpackage.
        sha256: of the bytes; of a tree, see ``checksums.tree_sha256``.
    """

    path: str
    role: str
    kind: str
    size_bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path, directory: Path) -> Self:
        """Measure an artifact that lies in a bundle's directory."""
        relative = path.relative_to(directory).as_posix()
        role = path.stem.removeprefix("mobile_sam_")
        if role not in ROLES or relative.count("/") > 1:  # what lies deeper is another tool's form of the same graphs
            role = "other"
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
        contract: both graphs' ports, read from the files, see ``described_contract``.
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
        check_contract(fields["contract"], image_size)
        files = [FileEntry.from_field(file, target) for file in fields["files"].items()]
        if not files or len({file.path for file in files}) < len(files):
            fields["files"].refuse("at least one file, each once")
        if sorted(file.role for file in files if file.role != "other") not in ROLES_OF_BOTH_GRAPHS:
            fields["files"].refuse("one encoder and one decoder, or one combined file")
        if (parity := fields["parity"]).value is not None:
            check_parity(parity)
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
        family: ``MobileSam.family``; None in a bundle from before there was more than one.
    """

    source: str
    sha256: str
    notice: str | None = None
    family: str | None = None

    @classmethod
    def from_field(cls, field: Field) -> Self:
        """Read an entry."""
        names = set(cls.__dataclass_fields__) - ({"family"} - field.entries().keys())
        fields = field.record(*names)
        notice, family = fields["notice"], fields.get("family")
        return cls(
            fields["source"].text(),
            fields["sha256"].sha256(),
            None if notice.value is None else notice.text(),
            None if family is None or family.value is None else family.text(),
        )


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


def _check_option(field: Field, target: str, name: str) -> None:
    option = option_of(target, name)
    if option is None:
        raise ExportError(f"{field.where} is no option of {target}; export again")
    if not option.takes(field.value):
        field.refuse(option.expected)


def versions_for(target: str) -> dict[str, str]:
    """Python, the platform and the packages that take part in an export for a target."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in ("mobilesam-export", "torch", "timm", "numpy", *named(target).distributions):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found
