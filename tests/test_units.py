"""Sizes are told in one unit, the MB of a million bytes, wherever a person reads them."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLACES = ("README.md", "mobilesam_export", "reference", "benchmarks", "docs")
BINARY = re.compile(r"\b[KMG]iB\b|_[kmg]ib\b|(?i:[km]ebibyte)")


def test_no_size_is_told_in_binary_units() -> None:
    files = [
        path
        for place in PLACES
        for path in ((ROOT / place).rglob("*") if (ROOT / place).is_dir() else [ROOT / place])
        if path.suffix in (".py", ".md", ".json")
    ]
    assert len(files) > 150
    assert [str(path.relative_to(ROOT)) for path in files if BINARY.search(path.read_text(encoding="utf-8"))] == []
