"""The photos in a folder."""

from collections.abc import Sequence
from pathlib import Path

from reference.errors import ImageError

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")  # what PIL reads wherever it is installed
ENDINGS = (*PICTURES, ".gif", ".heic", ".heif", ".avif")


def files_ending(directory: Path, endings: Sequence[str] = ENDINGS) -> list[Path]:
    """The files in a folder with one of those endings, by name; folders, pipes and hidden files are passed over."""
    return sorted(
        path
        for path in directory.iterdir()
        if path.suffix.lower() in endings and not path.name.startswith(".") and path.is_file()
    )


def photo_files(directory: str | Path, most: int | None = None) -> list[Path]:
    """The photos in a folder, see ``files_ending``.

    Args:
        directory: looked into itself, not into its folders.
        most: more photos than this are refused where each costs time and memory; None for any number.

    Raises:
        ImageError: no such folder, no photo in it, or too many.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise ImageError(f"got {directory}, expected a folder with photos; check the path")
    files = files_ending(directory)
    if not files:
        raise ImageError(f"{directory} holds no photo, expected files that end in {', '.join(ENDINGS)}")
    if most is not None and len(files) > most:
        raise ImageError(f"{directory} holds {len(files):,} photos, expected at most {most}; give a folder of fewer")
    return files
