"""What a written Core AI asset says of itself."""

import re
from collections.abc import Mapping
from pathlib import Path

from mobilesam_export.contract import Port, Written, common
from mobilesam_export.errors import ExportError
from mobilesam_export.targets.coreai.asset import open_asset
from mobilesam_export.targets.coreai.metadata import PORTS, read_entries

_TYPE = re.compile(r"NDArray \((\w+)((?:, | × )\d+(?: × \d+)*)\)")  # as "NDArray (Float32, 1 × 8 × 2)"


def read_written(encoder: Path, decoder: Path) -> Written:
    """Read ports and metadata from the asset that has both functions, or from two that have.

    Raises:
        ExportError: no asset, a damaged one, or one whose ports have shapes of another kind than ours.
    """
    first, second = open_asset(encoder), open_asset(decoder)
    said = [read_entries(asset) for asset in (encoder, decoder)]
    summaries = [asset.summary(include_statistics=False) for asset in (first, second)]
    decoder_inputs = _ports(summaries[1].function_inputs("decode"), _meanings(said[1], "decode"), decoder)
    slots = next((port.shape[1] for port in decoder_inputs if port.name == "point_labels"), None)
    return Written(
        _ports(summaries[0].function_inputs("encode"), _meanings(said[0], "encode"), encoder),
        _ports(summaries[0].function_outputs("encode"), _meanings(said[0], "encode"), encoder),
        decoder_inputs,
        _ports(summaries[1].function_outputs("decode"), _meanings(said[1], "decode"), decoder),
        slots if isinstance(slots, int) else None,
        common(*({name: value for name, value in entries.items() if isinstance(value, str)} for entries in said)),
    )


def _meanings(said: Mapping[str, object], function: str) -> Mapping[str, str]:
    """What the asset says of a function's ports, by name."""
    ports = said.get(PORTS)
    meanings = ports.get(function) if isinstance(ports, Mapping) else None
    if not isinstance(meanings, Mapping):
        return {}
    return {str(name): str(meaning) for name, meaning in meanings.items()}


def _ports(described: list[tuple[str, str]], meanings: Mapping[str, str], asset: Path) -> tuple[Port, ...]:
    found = []
    for name, kind in described:
        if not (matched := _TYPE.fullmatch(kind)):
            raise ExportError(f"{asset} has {name} of type {kind}, expected an array of fixed shape; export it again")
        shape = tuple(int(size) for size in re.findall(r"\d+", matched[2]))
        found.append(Port(name, shape, matched[1].lower(), meanings.get(name, "")))
    return tuple(found)
