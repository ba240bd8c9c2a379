"""Files of weights: PyTorch's (plain tensors only, nothing in them is ever run) and safetensors."""

import json
import sys
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from reference.checkpoint_strangers import HEAD_BYTES, stranger_in_bytes, stranger_in_code, stranger_in_zip
from reference.errors import CheckpointError
from reference.regular_file import MEGABYTE, regular_file_size

LARGEST_FILE_BYTES = 12 * 10**9  # SAM ViT-H with its optimizer has 8
LARGEST_UNPACKED_BYTES = 5 * 10**8  # of a compressed file; torch.save itself never compresses
LARGEST_PICKLE_BYTES = 64 * MEGABYTE  # names and structure, without the tensors' bytes

# What people keep beside weights; whatever else a pickle names in the standard library is no settings object.
_SETTINGS = (
    "argparse.Namespace", "collections.", "datetime.", "decimal.", "functools.partial", "pathlib.",
    "types.SimpleNamespace", "uuid.", "numpy.dtype", "numpy.ndarray", "numpy.core.multiarray.",
    "numpy._core.multiarray.",
)  # fmt: skip
_DICT_ENDINGS = ("dict", "cfgnode", "box")  # AttributeDict, EasyDict, defaultdict, ConfigDict, ...


@dataclass(frozen=True)
class Opened:
    """What a file of weights holds.

    Attributes:
        tree: names to tensors, to further such mappings, and to whatever else was saved beside them.
        metadata: of a safetensors file.
        classes: dotted names of the objects in it that were not built, a ``Placeholder`` in the place of each.
    """

    tree: Mapping[Any, Any]
    metadata: Mapping[str, str] = field(default_factory=dict)
    classes: Sequence[str] = ()


class Placeholder(list[Any]):
    """Stands for an object of a class that is not imported; takes what a pickle does to it and keeps nothing."""

    def __init__(self, *_: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        """Forget it."""


class _DictPlaceholder:
    """The same for a class derived from dict: torch fills plain mappings only, so it becomes one."""

    def __new__(cls, *_: Any) -> Any:
        return OrderedDict()


def open_checkpoint(path: str | Path) -> Opened:
    """Read a safetensors or PyTorch file, told apart by content, without running anything in it.

    Raises:
        CheckpointError: missing, damaged, too large, of another kind, or with code in it.
    """
    path = Path(path)
    if not path.exists():
        raise CheckpointError(f'there is no checkpoint at {path}; give a path to mobile_sam.pt, "official" or "demo"')
    size_bytes = regular_file_size(path, "checkpoint", LARGEST_FILE_BYTES, CheckpointError)
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if remark := stranger_in_bytes(head):
        raise CheckpointError(f"{path} is {remark}")
    if head[8:9] == b"{" or (path.suffix == ".safetensors" and not head.startswith(b"PK")):
        return _read_safetensors(path)
    return _read_pytorch(path, size_bytes, is_zip=head.startswith(b"PK"))


def read_state(path: str | Path) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    """The state dict of a file, or what it has under ``model``, and a safetensors file's metadata.

    Raises:
        CheckpointError: as ``open_checkpoint``, or if its names are no text.
    """
    opened = open_checkpoint(path)
    state = opened.tree["model"] if isinstance(opened.tree.get("model"), dict) else opened.tree
    if not all(isinstance(name, str) for name in state):
        raise CheckpointError(
            f"{path} holds an object of type {type(state).__name__}, expected a dict from names to tensors"
        )
    return dict(state), opened.metadata


def _read_safetensors(path: Path) -> Opened:
    try:
        with safe_open(path, "pt") as file:
            return Opened({name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {})  # noqa: SIM118
    except Exception as error:  # besides its own, whatever torch raises for a type or size that it does not have
        raise CheckpointError(
            f"{path} is truncated or no safetensors file ({_first_line(error)}); fetch it again"
        ) from error


def _read_pytorch(path: Path, size_bytes: int, is_zip: bool) -> Opened:
    classes: list[str] = []
    stored = False
    if is_zip:
        stored = _check_zip(path, size_bytes)
        classes = _foreign_classes(path)
    placeholders: list[Any] = [
        (_DictPlaceholder if name.lower().endswith(_DICT_ENDINGS) else Placeholder, name) for name in classes
    ]
    try:
        with torch.serialization.safe_globals(placeholders), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks on how the file was pickled
            # Mapped, a large file takes no memory before its names were looked at.
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=stored)
    except Exception as error:  # on damaged bytes torch raises ten kinds, from KeyError to struct.error
        if isinstance(error, UnpicklingError) and "GLOBAL" in str(error):
            raise CheckpointError(_code_remark(path, classes)) from error
        if isinstance(error, UnpicklingError) and classes:
            raise CheckpointError(
                f"{path} holds objects that cannot be left out ({', '.join(classes[:3])}); save model.state_dict()"
            ) from error
        # torch explains an UnpicklingError with the advice to switch its safety off: not passed on.
        reason = type(error).__name__ if isinstance(error, UnpicklingError) else _first_line(error)
        raise CheckpointError(f"{path} is truncated or no PyTorch checkpoint ({reason}); fetch it again") from error
    if isinstance(content, Mapping):
        return Opened(content, classes=classes)
    if remark := stranger_in_code(classes):
        raise CheckpointError(f"{path} is {remark}")
    raise CheckpointError(
        f"{path} holds an object of type {type(content).__name__}, expected a dict from names to tensors"
    )


def _check_zip(path: Path, size_bytes: int) -> bool:
    """Look at sizes before anything is unpacked, then at every entry's CRC; True if nothing is compressed.

    Raises:
        CheckpointError: too large, damaged, or another kind of archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if remark := stranger_in_zip(entry.filename for entry in entries):
                raise CheckpointError(f"{path} is {remark}")
            unpacked = sum(entry.file_size for entry in entries)
            if unpacked > max(size_bytes, LARGEST_UNPACKED_BYTES):
                raise CheckpointError(
                    f"{path} of {size_bytes / MEGABYTE:,.1f} MB unpacks to {unpacked / MEGABYTE:,.0f} MB, expected at "
                    f"most {LARGEST_UNPACKED_BYTES / MEGABYTE:,.0f} MB of a compressed file; if you trust it, load it "
                    "and write it again with torch.save"
                )
            pickled = max((entry.file_size for entry in entries if entry.filename.endswith(".pkl")), default=0)
            if pickled > LARGEST_PICKLE_BYTES:
                raise CheckpointError(
                    f"{path} has {pickled / MEGABYTE:,.0f} MB of names and objects, expected at most "
                    f"{LARGEST_PICKLE_BYTES / MEGABYTE:,.0f} MB; save model.state_dict() alone"
                )
            damaged = archive.testzip()
    except CheckpointError:
        raise
    except Exception as error:  # on damaged bytes zipfile raises as many kinds as torch, on an encrypted entry one more
        raise CheckpointError(
            f"{path} is truncated or no PyTorch checkpoint ({_first_line(error)}); fetch it again"
        ) from error
    if damaged is not None:
        raise CheckpointError(f"{path} is damaged: the checksum of its entry {damaged} is wrong; fetch it again")
    return all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)


def _foreign_classes(path: Path) -> list[str]:
    """Dotted names in the pickle of a checked zip archive that torch would not build.

    Raises:
        CheckpointError: if one is code rather than a class. It would not be run; the file is not trusted.
    """
    try:
        names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # a damaged pickle; loading it says so
        return []
    if any(_is_code(name) for name in names):
        raise CheckpointError(_code_remark(path, names))
    return names


def _is_code(name: str) -> bool:
    if name.startswith(_SETTINGS):
        return False
    module, _, last = name.rpartition(".")
    is_class = last.lstrip("_")[:1].isupper()
    return module.partition(".")[0] in sys.stdlib_module_names or not is_class


def _code_remark(path: Path, classes: Sequence[str]) -> str:
    if remark := stranger_in_code(classes):
        return f"{path} is {remark}"
    return (
        f"{path} holds code besides weights and was not opened; expected a plain dict of tensors: save "
        "model.state_dict() or a .safetensors file"
    )


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


def _sort_metadata(path: Path) -> None:
    """Put a safetensors file's metadata in order: it comes in random order, and the same weights are the same file."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        file.seek(8)
        file.write(json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode().ljust(size))


def write_state(state: Mapping[str, Tensor], path: str | Path, metadata: Mapping[str, str]) -> None:
    """Write CPU tensors whole or not at all, by the path's ending as safetensors (with metadata) or PyTorch.

    Raises:
        OSError: if the disk is full or the place cannot be written; what was there stays.
    """
    path = Path(path)
    part = path.with_name(path.name + ".part")
    try:
        if path.suffix == ".safetensors":
            save_file(dict(state), part, dict(metadata))
            _sort_metadata(part)
        else:
            torch.save(dict(state), part)
        part.replace(path)
    except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors have their own for a full disk
        raise OSError(f"could not write {path} ({error}); free some disk or give another place") from error
    finally:
        part.unlink(missing_ok=True)
