"""The masks of a bundle's vectors as Python makes them from the same files, for hosts to be compared with."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from mobilesam_export.segmenter import Mask, Segmenter
from reference.transforms import upscale_logits

# A host's arithmetic adds in another order: where Python's logit is nearer to zero than this, it may say otherwise.
UNDECIDED = 1e-4


class Case(NamedTuple):
    """One prompt on one photo.

    Attributes:
        label: photo and case.
        file: what the hosts call their mask of it, without what they put before.
        pixels: (H, W) uint8, Python's mask.
        expected: (H, W) uint8, the reference's mask.
        undecided: (H, W), pixels whose logit is within ``UNDECIDED`` of zero.
    """

    label: str
    file: str
    pixels: NDArray[np.uint8]
    expected: NDArray[np.uint8]
    undecided: NDArray[np.bool_]

    def differing(self, mask: NDArray[np.uint8]) -> int:
        """Pixels of a host's mask that are not Python's and have no excuse."""
        return int(np.count_nonzero((mask != self.pixels) & ~self.undecided))


def python_masks(bundle: Path, target: str) -> Iterator[Case]:
    """Answer every case of ``bundle/vectors`` with a target's files."""
    photos = json.loads((bundle / "vectors" / "vectors.json").read_text())["bundle"]["photos"]

    def stored(array: dict[str, Any]) -> NDArray[Any]:
        values = np.fromfile(bundle / "vectors" / array["file"], np.dtype(array["dtype"]).newbyteorder("<"))
        return values.reshape(array["shape"])

    with Segmenter.open(bundle, target) as segmenter:
        for photo in photos:
            segmenter.set_image(stored(photo["pixels"]))
            for case in photo["cases"]:
                logits = case["previous_mask"]
                previous = None if logits is None else Mask(np.zeros((1, 1), np.bool_), stored(logits))
                points = [(x, y, label) for x, y, label in case["points"]]
                mask, _ = segmenter.predict(points, case["box"], previous)
                file = f"{photo['name']}-{case['name']}.u8".replace(" ", "_")
                label = f"{photo['name']}, {case['name']}"
                low = torch.from_numpy(np.ascontiguousarray(mask.logits))[None, None]
                side = 4 * mask.logits.shape[0]
                undecided = upscale_logits(low, mask.pixels.shape, side)[0, 0].abs().numpy() < UNDECIDED
                assert undecided.mean() < 1e-3, label  # an excuse for single pixels
                yield Case(label, file, mask.pixels.astype(np.uint8), stored(case["mask"]), undecided)
