"""Sizes are told in one unit, the MB of a million bytes, wherever a person reads them."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLACES = ("mobilesam_export", "reference", "benchmarks")
BINARY = re.compile(r"\b[KMG]iB\b|_[kmg]ib\b|(?i:[km]ebibyte)")


def test_no_size_is_told_in_binary_units() -> None:
    files = [
        path for place in PLACES for ending in ("py", "md", "json") for path in (ROOT / place).rglob(f"*.{ending}")
    ]
    assert len(files) > 150
    assert [str(path.relative_to(ROOT)) for path in files if BINARY.search(path.read_text(encoding="utf-8"))] == []
