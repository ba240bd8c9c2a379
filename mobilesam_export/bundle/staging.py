"""Write beside the destination, move into place at the end: an export that fails leaves what was there.

Beside ``dist`` lies, while an export runs, the folder ``.dist.partial`` with

- ``lock``, held by the export and by nobody else: a second export into ``dist`` is refused;
- ``bundle``, which is written, and at the end exchanged with ``dist``; from then on it is what was there before;
- ``old``, what was there before, from the first of two steps on systems that cannot exchange two folders in one, else
  from the exchange on; and ``gone``, the same once nothing in it is needed.

However an export ends, ``_tidy`` follows, at once or, after a SIGKILL, at the next start: it brings ``dist`` back if
it was moved away and nothing took its place, carries over what appeared in it at the last moment, and removes the rest.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mobilesam_export.bundle.destination import Destination, owned
from mobilesam_export.bundle.exchange import exchange
from mobilesam_export.bundle.manifest import Manifest
from mobilesam_export.errors import ExportError, ParityError

try:
    import fcntl
except ImportError:  # Windows: no lock, see _locked
    fcntl = None  # type: ignore[assignment]

_FULL_BYTES = 1 << 20  # less free space than this is none


@contextmanager
def staging_directory(directory: Path) -> Iterator[Path]:
    """A directory beside the destination, for one export at a time; gone at the end, whatever happens.

    What earlier exports, killed since, left beside the destination is put right first.

    Raises:
        ExportError: another export is writing there, or the destination cannot be replaced; and for every OSError
            inside, saying whether the disk is full.
    """
    root = directory.parent / f".{directory.name}.partial"
    try:
        with _locked(root, directory):
            try:
                _tidy(root, directory)
                _refuse_what_cannot_be_moved(directory, root)
                stage = root / "bundle"
                stage.mkdir()
                yield stage
            finally:
                _tidy(root, directory)
    except ParityError:
        raise
    except (OSError, ExportError) as error:
        if _disk_is_full(error, directory):
            raise ExportError(
                f"no space left for {directory}; nothing was written, free some or choose another --out"
            ) from error
        if isinstance(error, ExportError):
            raise
        raise ExportError(f"{directory} cannot be written ({error.strerror or error}); choose another --out") from error


def move_into_place(stage: Path, found: Destination) -> None:
    """Make the staging directory the bundle.

    What the destination holds and the new bundle does not replace is carried over, a user's own files too; links stay
    links. At every moment the destination is the whole old bundle or the whole new one, except for an instant on
    systems that cannot exchange two folders; a kill in that instant is put right by the next export.

    Args:
        stage: complete.
        found: what lies at the destination, looked at just now.

    Raises:
        ExportError: a file that is nobody's but the user's lies where a new one goes.
    """
    directory = found.directory
    if not directory.exists():
        stage.rename(directory)  # fails if anything has appeared there
        return
    _carry(directory, stage, "", found.replaced)
    stage.chmod(directory.stat().st_mode)
    if found.present is None:
        stage.rename(directory)  # over an empty folder; fails if it is empty no more
        return
    (stage.parent / "lock").write_text(f"{os.getpid()} {stage.stat().st_ino}")
    if not exchange(stage, directory):
        directory.rename(stage.parent / "old")
        stage.rename(directory)


@contextmanager
def _locked(root: Path, directory: Path) -> Iterator[None]:
    """Hold ``root/lock``; the folder is gone afterwards.

    A lock of the system's goes with its process, however that ends, and holds between containers that share a folder.
    Where there is none, a folder that is already there may be another export's.
    """
    path = root / "lock"
    was_there = root.exists()
    while True:
        root.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except FileNotFoundError:  # the export before removed the folder after our mkdir
            continue
        try:
            if not _lock(handle) and was_there:
                raise ExportError(f"{root} is there: an export runs or was killed; if none runs, delete that folder")
            ours = path.exists() and os.path.samestat(os.fstat(handle), path.stat())
        except BlockingIOError as error:
            owner = path.read_text().partition(" ")[0] if path.exists() else ""
            os.close(handle)
            raise ExportError(
                f"another export{f' (process {owner})' if owner else ''} is writing {directory}; "
                "wait until it is done, or choose another --out"
            ) from error
        except BaseException:
            os.close(handle)
            raise
        if ours:
            break
        os.close(handle)  # of a file that the export before has removed
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()
            root.rmdir()
        os.close(handle)


def _lock(handle: int) -> bool:
    """Lock an open file for this process; False where system or file system has no locks.

    Raises:
        BlockingIOError: another process holds it.
    """
    if fcntl is None:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            return False
        raise
    return True


def _tidy(root: Path, directory: Path) -> None:
    """Put right what an export left, wherever it ended; the lock is held."""
    stage, old, gone, lock = (root / name for name in ("bundle", "old", "gone", "lock"))
    if not directory.exists() and old.exists():
        old.rename(directory)
    if stage.exists() and directory.exists() and lock.read_text().endswith(f" {directory.stat().st_ino}"):
        stage.rename(old)  # exchanged: it is what was there before
    shutil.rmtree(gone, ignore_errors=True)
    if old.exists():
        _give_back(old, directory)
        old.rename(gone)  # so that nobody reads a manifest of files half removed
    for folder in (stage, gone):
        shutil.rmtree(folder, ignore_errors=True)
    lock.write_text(f"{os.getpid()}")


def _give_back(old: Path, directory: Path) -> None:
    """Move what is the user's in a replaced folder, and not in the new one, into the new one."""
    mine = owned(Manifest.read(old))
    for item in _files(old, "", mine):
        source, there = old / item, directory / item
        if not os.path.lexists(there):
            there.parent.mkdir(parents=True, exist_ok=True)
            source.rename(there)
        elif not there.is_dir() and there.lstat().st_mtime_ns < source.lstat().st_mtime_ns:
            source.replace(there)  # saved again after it had been carried over


def _files(directory: Path, below: str, left_out: set[str]) -> Iterator[str]:
    """Paths of everything in a folder but the paths left out; folders only if empty, links as links."""
    items = sorted(directory.iterdir())
    for item in items:
        path = f"{below}{item.name}"
        if path in left_out:
            continue
        if item.is_dir() and not item.is_symlink() and any(item.iterdir()):
            yield from _files(item, f"{path}/", left_out)
        else:
            yield path


def _carry(directory: Path, stage: Path, below: str, left_out: set[str]) -> None:
    """Bring all but the paths left out from the destination into the new bundle."""
    for path in _files(directory, below, left_out):
        source, copy = directory / path, stage / path
        if os.path.lexists(copy):
            raise ExportError(f"{source} is in the way and not this program's; move it or choose another --out")
        copy.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            copy.symlink_to(source.readlink())
        elif source.is_dir():
            copy.mkdir()
        else:
            _link(source, copy)


def _link(source: Path, copy: Path) -> None:
    """Carry a file over without copying its bytes, where the file system can."""
    try:
        os.link(source, copy)
    except OSError:
        shutil.copy2(source, copy)


def _refuse_what_cannot_be_moved(directory: Path, root: Path) -> None:
    """Ask the system whether it would move the destination away, without doing it.

    A folder cannot be moved to where another one lies that is not empty (``root`` holds the lock), but a mount point,
    a folder of a container's image or one that is not ours is refused for that, before.
    """
    if not directory.is_dir():
        return
    try:
        directory.rename(root)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return
        raise ExportError(
            f"{directory} cannot be replaced in one step ({error.strerror}), as a mount point cannot; "
            f"give a folder inside it: --out {directory / 'dist'}"
        ) from error


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
