"""Fetch the official MobileSAM checkpoint once, resumably, and trust only its known sha256."""

import hashlib
import http.client
import urllib.request
from pathlib import Path

from platformdirs import user_cache_path
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from reference.errors import CheckpointError

OFFICIAL_URL = (
    "https://github.com/ChaoningZhang/MobileSAM/raw/f706ad9c4eb7f219c00d9050e46328518ffb65d2/weights/mobile_sam.pt"
)
OFFICIAL_SIZE_BYTES = 40_728_226
OFFICIAL_SHA256 = "6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f"
_CHUNK_BYTES = 1 << 20


def cached_official_checkpoint() -> Path:
    """Where the official checkpoint lies once fetched."""
    return user_cache_path("mobilesam-export") / "mobile_sam.pt"


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes, as hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def official_checkpoint(url: str = OFFICIAL_URL, timeout_s: float = 20) -> Path:
    """Path of the official checkpoint, downloaded if it is not in the user's cache yet.

    A broken download is kept beside it as ``.part`` and continued the next time.

    Raises:
        CheckpointError: offline, interrupted, or the file is not the known one.
    """
    path = cached_official_checkpoint()
    if path.is_file() and path.stat().st_size == OFFICIAL_SIZE_BYTES and file_sha256(path) == OFFICIAL_SHA256:
        return path
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _download(url, part, timeout_s)
    except (OSError, http.client.HTTPException) as error:  # URLError and timeouts are OSErrors
        raise CheckpointError(
            f"the official checkpoint could not be downloaded ({error}); connect and try again (it resumes), "
            f'place mobile_sam.pt at {path}, or use the bundled weights with "demo"'
        ) from error
    got = file_sha256(part)
    if got != OFFICIAL_SHA256:
        part.unlink()
        raise CheckpointError(
            f"the download has sha256 {got[:12]}, expected {OFFICIAL_SHA256[:12]}; it was removed, try again"
        )
    part.replace(path)
    return path


def _download(url: str, part: Path, timeout_s: float) -> None:
    """Append what is missing to ``part``; an OSError if it does not end at the known size."""
    have = part.stat().st_size if part.is_file() else 0
    if have > OFFICIAL_SIZE_BYTES:
        part.unlink()
        have = 0
    if have == OFFICIAL_SIZE_BYTES:
        return
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    columns = (
        TextColumn("official checkpoint"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with (
        urllib.request.urlopen(request, timeout=timeout_s) as response,
        Progress(*columns, console=Console(stderr=True)) as progress,
    ):
        if response.status != 206:  # a server without ranges sends all of it again
            have = 0
        announced = response.headers.get("Content-Length")
        if announced is not None and have + int(announced) != OFFICIAL_SIZE_BYTES:  # such as a network's login page
            raise OSError(f"the server offers {have + int(announced):,} bytes, expected {OFFICIAL_SIZE_BYTES:,}")
        task = progress.add_task("", total=OFFICIAL_SIZE_BYTES, completed=have)
        with part.open("ab" if have else "wb") as file:
            while have < OFFICIAL_SIZE_BYTES and (chunk := response.read(_CHUNK_BYTES)):
                file.write(chunk)
                have += len(chunk)
                progress.advance(task, len(chunk))
    if have != OFFICIAL_SIZE_BYTES:
        raise OSError(f"the connection ended after {have:,} of {OFFICIAL_SIZE_BYTES:,} bytes")
