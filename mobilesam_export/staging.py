"""Write beside the destination, move into place at the end: an export that fails leaves what was there."""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from mobilesam_export.errors import ExportError, ParityError
from mobilesam_export.manifest import FILE_NAME, Manifest

_FULL_BYTES = 1 << 20  # less free space than this is none


def overlay_name(target: str) -> str:
    """File name of a target's overlay picture in a bundle."""
    return f"overlay-{target}.png"


def bundle_to_extend(
    directory: Path, targets: Sequence[str], weights: str, image_size: int, overwrite: bool
) -> Manifest | None:
    """Decide, before any work, what happens to what lies at the destination.

    A bundle of the same weights and image size is extended by targets that it lacks. Anything else that
    would be lost needs ``overwrite``, and what is no bundle is never overwritten.

    Args:
        directory: the destination.
        targets: to be written.
        weights: their sha256.
        image_size: side of the model frame.
        overwrite: whether present targets may be replaced.

    Returns:
        The present bundle if its other targets stay, else None.

    Raises:
        ExportError: if something there must not be replaced.
    """
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return None
    if not (directory / FILE_NAME).is_file():
        raise ExportError(f"{directory} exists and is no bundle of this program; choose another --out")
    present = Manifest.read(directory)
    if present.weights.sha256 != weights or present.image_size != image_size:
        if overwrite:
            return None
        raise ExportError(
            f"{directory} holds a bundle of other weights or another image size ({present.weights.source}, "
            f"{present.image_size}); choose another --out, or replace it with --overwrite"
        )
    there = [target for target in targets if target in present.targets]
    if there and not overwrite:
        raise ExportError(f"{directory} already holds {', '.join(there)}; choose another --out, or --overwrite")
    return present


@contextmanager
def staging_directory(directory: Path) -> Iterator[Path]:
    """A directory beside the destination, gone at the end, whatever happens.

    Raises:
        ExportError: for every OSError inside, saying whether the disk is full.
    """
    stage = _beside(directory, "partial")
    try:
        stage.mkdir(parents=True)
        yield stage
    except ParityError:
        raise
    except (OSError, ExportError) as error:
        if _disk_is_full(error, directory):
            raise ExportError(
                f"no space left for {directory}; nothing was written, free some or choose another --out"
            ) from error
        if isinstance(error, ExportError):
            raise
        raise ExportError(f"{directory} cannot be written ({error}); choose another --out") from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _disk_is_full(error: BaseException, directory: Path) -> bool:
    """Converters report a full disk as anything: look at the whole chain of errors, then at the disk."""
    link: BaseException | None = error
    while link is not None:
        if getattr(link, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or os.strerror(errno.ENOSPC) in str(link):
            return True
        link = link.__cause__ or link.__context__
    parent = next(path for path in directory.parents if path.exists())
    usage = shutil.disk_usage(parent)
    return usage.total > 0 and usage.free < _FULL_BYTES  # a virtual file system has no size at all


def move_into_place(stage: Path, directory: Path, replaced: Sequence[str]) -> None:
    """Make the staging directory the bundle, in two renames.

    Args:
        stage: complete.
        directory: the destination, which may hold an earlier bundle.
        replaced: names of its targets that are not carried over; everything else in it is, a user's own files too.
    """
    if not directory.exists():
        stage.rename(directory)
        return
    gone = {FILE_NAME, *replaced, *(overlay_name(target) for target in replaced)}
    for entry in directory.iterdir():
        if entry.name not in gone and not (stage / entry.name).exists():
            _link(entry, stage / entry.name)
    old = _beside(directory, "old")
    try:
        directory.rename(old)
        stage.rename(directory)
    except BaseException:  # Ctrl-C between the renames included
        if old.exists() and not directory.exists():
            old.rename(directory)
        raise
    finally:
        if directory.exists():
            shutil.rmtree(old, ignore_errors=True)


def _beside(directory: Path, what: str) -> Path:
    return directory.parent / f".{directory.name}.{secrets.token_hex(4)}.{what}"


def _link(source: Path, destination: Path) -> None:
    """Carry a file or directory over without copying its bytes, where the file system can."""

    def link(a: str, b: str) -> str:
        with suppress(OSError):
            os.link(a, b)
            return b
        return str(shutil.copy2(a, b))

    if source.is_dir():
        shutil.copytree(source, destination, copy_function=link)
    else:
        link(str(source), str(destination))
