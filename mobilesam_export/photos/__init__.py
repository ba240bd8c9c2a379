"""The four photos that parity and calibration use; README.md says where they come from."""

from pathlib import Path

PHOTO_DIR = Path(__file__).parent
