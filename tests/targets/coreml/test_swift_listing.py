"""The Swift of docs/ios.md: its length, its numbers and, rewritten in Python, its post-processing."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mobilesam_export.contract import DEFAULT_MAX_POINTS, PAD_COLOUR_8BIT, PointLabel
from reference.transforms import logits_to_masks, resized_size

PAGE = Path(__file__).parents[3] / "docs" / "ios.md"


@pytest.fixture(scope="module")
def listing() -> str:
    blocks = re.findall(r"^```swift\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    assert len(blocks) == 1
    return str(blocks[0])


def test_it_is_at_most_forty_lines(listing: str) -> None:
    lines = listing.splitlines()
    assert len(lines) <= 40 and max(map(len, lines)) <= 120


def test_its_numbers_are_the_contracts(listing: str) -> None:
    red, green, blue = PAD_COLOUR_8BIT
    assert f"0xFF{red:02X}_{green:02X}{blue:02X}".replace("_", "") in listing.replace("_", "").replace("0xff", "0xFF")
    labels = re.search(r"scalars: \[([-\d, ]+)\], shape: \[1, 8\]", listing)
    assert labels is not None
    absent = [PointLabel.ABSENT] * (DEFAULT_MAX_POINTS - 2)
    assert [int(label) for label in labels[1].split(",")] == [PointLabel.FOREGROUND, PointLabel.PADDING, *absent]


def _sampler(w: int, h: int, at: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Callable[..., np.ndarray]:
    """The listing's ``sampler``, line by line, over arrays."""

    def sample(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        x, y = x.clip(0, w - 1), y.clip(0, h - 1)
        left, top = x.astype(int), y.astype(int)
        right, below = np.minimum(left + 1, w - 1), np.minimum(top + 1, h - 1)
        across, down = x - left, y - top
        upper = at(left, top) * (1 - across) + at(right, top) * across
        lower = at(left, below) * (1 - across) + at(right, below) * across
        return upper * (1 - down) + lower * down

    return sample


@pytest.mark.parametrize("size", [(60, 90), (400, 600), (701, 433)])
def test_its_post_processing_is_the_references(listing: str, size: tuple[int, int]) -> None:
    for line in (
        "{ low((Float($0) + 0.5) / 4 - 0.5, (Float($1) + 0.5) / 4 - 0.5) }",
        "(Float(v) + 0.5) * sy - 0.5) > 0",
    ):
        assert line in listing
    logits = np.random.default_rng(0).standard_normal((256, 256)).astype(np.float32)
    height, width = size
    h, w = resized_size(size, 1024)
    low = _sampler(256, 256, lambda x, y: logits[y, x])
    full = _sampler(w, h, lambda x, y: low((x + 0.5) / 4 - 0.5, (y + 0.5) / 4 - 0.5))
    y, x = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    got = full((x + 0.5) * (w / width) - 0.5, (y + 0.5) * (h / height) - 0.5) > 0
    expected = logits_to_masks(logits[None, None], size, 1024)[0, 0]
    # Another order of float32 sums: a pixel whose logit is within 1e-5 of zero may differ.
    assert (got == expected).mean() > 0.9999
