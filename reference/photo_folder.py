"""The photos in a folder."""

from pathlib import Path

from reference.errors import ImageError

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".heic", ".heif")


def photo_files(directory: str | Path, most: int) -> list[Path]:
    """The files in a folder that a photo's ending names, by name; folders, pipes and hidden files are passed over.

    Args:
        directory: looked into itself, not into its folders.
        most: more photos than this are refused: each costs time and memory.

    Raises:
        ImageError: no such folder, no photo in it, or too many.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise ImageError(f"got {directory}, expected a folder with photos; check the path")
    files = sorted(
        path
        for path in directory.iterdir()
        if path.suffix.lower() in ENDINGS and not path.name.startswith(".") and path.is_file()
    )
    if not files:
        raise ImageError(f"{directory} holds no photo, expected files that end in {', '.join(ENDINGS)}")
    if len(files) > most:
        raise ImageError(f"{directory} holds {len(files):,} photos, expected at most {most}; give a folder of fewer")
    return files
