"""Masks as a folder of black-and-white pictures, which ``mobilesam-export accuracy`` and most tools read."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from reference.found_mask import FoundMask
from reference.images import save_picture


def write_stack(masks: Sequence[FoundMask], folder: Path) -> None:
    """Write ``000.png``, ``001.png`` ... in the masks' order; further ones of an earlier run go."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, found in enumerate(masks):
        save_picture(Image.fromarray(found.mask), folder / f"{number:03d}.png")
    for path in folder.glob("*.png"):
        if path.stem.isdigit() and int(path.stem) >= len(masks):
            path.unlink()
