"""What lies where a bundle is to be written, and what may happen to it."""

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mobilesam_export.bundle.manifest import FILE_NAME, Manifest, TargetEntry
from mobilesam_export.errors import ExportError
from mobilesam_export.options import shown


def overlay_name(target: str) -> str:
    """File name of a target's overlay picture in a bundle."""
    return f"overlay-{target}.png"


def plan_name(target: str) -> str:
    """File name in a bundle of a target's precision plan, where it has one."""
    return f"plan-{target}.json"


@dataclass(frozen=True)
class Destination:
    """A bundle's folder as it was found.

    Attributes:
        directory: links are followed.
        present: the bundle that it holds, or None.
        kept: its targets that stay beside the ones to be written.
    """

    directory: Path
    present: Manifest | None
    kept: dict[str, TargetEntry]

    @property
    def replaced(self) -> set[str]:
        """Paths in the folder that make way for the new bundle; all else stays, a user's own files too."""
        return owned(self.present) - {path for entry in self.kept.values() for path in _paths(entry)}


def owned(manifest: Manifest | None) -> set[str]:
    """Paths in a bundle's folder that are the bundle's own: what its manifest lists, and itself."""
    if manifest is None:
        return set()
    return {FILE_NAME, *(path for entry in manifest.targets.values() for path in _paths(entry))}


def _paths(entry: TargetEntry) -> set[str]:
    return {overlay_name(entry.target), plan_name(entry.target), *(file.path for file in entry.files)}


def real_directory(out_dir: str | Path) -> Path:
    """The folder that ``--out`` means: a link stays, and what it leads to is written.

    Raises:
        ExportError: a link to nothing, a folder that cannot be replaced in one step, or a name that can be none's.
    """
    given = Path(out_dir).absolute()
    try:
        real = Path(os.path.realpath(given))
        if given.is_symlink() and not real.exists():
            raise ExportError(f"{given} is a link to {real}, which is not there; make that folder, or another --out")
        above = next(path for path in (*real.parents, real) if os.path.lexists(path))
    except (OSError, ValueError) as error:  # a name too long, or with a NUL in it
        reason = getattr(error, "strerror", None) or error
        raise ExportError(f"{shown(str(given))} can be no folder's name ({reason}); choose another --out") from error
    here = Path.cwd()
    if real == real.parent:
        raise ExportError(f"{given} is the root of the file system and cannot be replaced; give {real / 'dist'}")
    if here == real or real in here.parents:
        which = "the folder you are in" if here == real else f"a folder around the one you are in, {here}"
        raise ExportError(f"{given} is {which}, and would be replaced at the end; give {real / 'dist'}")
    if not above.is_dir():
        raise ExportError(f"{given} would be in {above}, which is no folder; choose another --out")
    return real


def look(directory: Path, targets: Sequence[str], weights: str, image_size: int, overwrite: bool) -> Destination:
    """Decide what happens to what lies at the destination.

    A bundle of the same weights and image size is extended by targets that it lacks. Anything else that
    would be lost needs ``overwrite``, and what is no bundle is never overwritten.

    Args:
        directory: of ``real_directory``.
        targets: to be written.
        weights: their sha256.
        image_size: side of the model frame.
        overwrite: whether present targets may be replaced.

    Raises:
        ExportError: if something there must not be replaced.
    """
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return Destination(directory, None, {})
    if not directory.is_dir():
        raise ExportError(f"{directory} exists and is no folder; choose another --out")
    if not (directory / FILE_NAME).is_file():
        raise ExportError(f"{directory} exists and is no bundle of this program; choose another --out")
    present = Manifest.read(directory)
    same = present.weights.sha256 == weights and present.image_size == image_size
    if not same and not overwrite:
        raise ExportError(
            f"{directory} holds a bundle of other weights or another image size ({present.weights.source}, "
            f"{present.image_size}); choose another --out, or replace it with --overwrite"
        )
    there = [target for target in targets if target in present.targets]
    if there and not overwrite:
        raise ExportError(f"{directory} already holds {', '.join(there)}; choose another --out, or --overwrite")
    kept = {name: entry for name, entry in present.targets.items() if same and name not in targets}
    found = Destination(directory, present, kept)
    _refuse_what_cannot_be_carried(found)
    return found


def _refuse_what_cannot_be_carried(found: Destination) -> None:
    for path in sorted(found.replaced):
        for part in (found.directory / path, *(found.directory / path).parents):
            if part == found.directory:
                break
            if part.is_symlink():
                raise ExportError(
                    f"{part} is a link, which a new bundle would replace by a folder; remove it or choose another --out"
                )
    for item in _walk(found.directory):
        mode = item.lstat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)):
            raise ExportError(f"{item} is no file, folder or link; remove it or choose another --out")


def _walk(directory: Path) -> Iterator[Path]:
    """Everything below a folder; links are not followed."""
    for item in directory.iterdir():
        yield item
        if item.is_dir() and not item.is_symlink():
            yield from _walk(item)
