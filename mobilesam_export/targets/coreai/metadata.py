"""What Xcode and Apple's readers show of an asset: author, licence, a description, and entries of our own.

They lie in the asset's ``metadata.json``. Apple's package writes it with the time of day and in an order that changes;
it is written again without the one and in a fixed order. The program's own bytes differ from one export to the next:
Apple's converter ends the names of its composites with random letters.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mobilesam_export.contract import DECODER_SUMMARY, ENCODER_SUMMARY, Contract
from mobilesam_export.errors import ExportError
from mobilesam_export.targets.coreai.convert import ports_of

FILE = "metadata.json"
AUTHOR = "MobileSAM Export"
LICENCE = (
    "Apache-2.0; model after MobileSAM (arXiv 2306.14289) and Segment Anything (arXiv 2304.02643), both Apache-2.0"
)
PORTS = "ports"  # the entry that says what inputs and outputs mean: an asset itself has their names and shapes only
_ENTRIES, _DATE = "creatorDefinedMetadata", "creationDate"
_MOST_BYTES = 1 << 20  # ours has 4 kB


def shown_metadata() -> Any:
    """An ``AIModelAssetMetadata`` for an asset that is to be saved."""
    from coreai.runtime import AIModelAssetMetadata

    shown = AIModelAssetMetadata()
    shown.author, shown.license = AUTHOR, LICENCE
    shown.model_description = f"encode: {ENCODER_SUMMARY} decode: {DECODER_SUMMARY}"
    return shown


def meanings_of(contract: Contract) -> dict[str, dict[str, str]]:
    """By function and name, what an input or output is."""
    return {
        function: {port.name: port.meaning for side in sides for port in side}
        for function, sides in ports_of(contract).items()
    }


def read_entries(asset: Path) -> dict[str, Any]:
    """Our entries of a saved asset.

    Raises:
        ExportError: its metadata are damaged.
    """
    entries = _read(asset).get(_ENTRIES, {})
    if not isinstance(entries, dict):
        raise ExportError(f"{asset / FILE} is damaged ({_ENTRIES} is no object); copy it again or export again")
    return entries


def annotate(asset: Path, entries: Mapping[str, Any]) -> None:
    """Add entries, such as measured parity, to a saved asset."""
    found = _read(asset)
    found.pop(_DATE, None)
    found[_ENTRIES] = {**read_entries(asset), **entries}
    unfinished = asset / f"{FILE}.unfinished"
    unfinished.write_text(json.dumps(found, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    unfinished.replace(asset / FILE)


def _read(asset: Path) -> dict[str, Any]:
    path = asset / FILE
    try:
        if (size := path.stat().st_size) > _MOST_BYTES:
            raise ExportError(f"{path} has {size:,} bytes, expected {_MOST_BYTES:,} at most; export again")
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ExportError(f"{path} is damaged ({error}); copy it again or export again") from error
    if not isinstance(found, dict):
        raise ExportError(f"{path} is damaged (no object); copy it again or export again")
    return found
