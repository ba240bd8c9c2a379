"""What a manifest says of a target's files, for the tests that open the files with each target's own runtime."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mobilesam_export.bundle.described_contract import describe_contract
from mobilesam_export.bundle.manifest import FileEntry, TargetEntry
from mobilesam_export.bundle.written import read_written
from mobilesam_export.contract import Contract

Ports = Mapping[str, tuple[tuple[int | str, ...], str]]  # name -> shape, dtype


def described(target: str, paths: Sequence[Path], image_size: int) -> dict[str, Any]:
    """The part ``contract`` of the target's manifest entry."""
    directory = paths[0].parent
    entry = TargetEntry(target, "float32", {}, {}, [FileEntry.of(path, directory) for path in paths], None, {})
    return describe_contract(image_size, read_written(entry, directory))


def ports(contract: Mapping[str, Any], graph: str, side: str) -> Ports:
    """One graph's inputs or outputs."""
    return {port["name"]: (tuple(port["shape"]), port["dtype"]) for port in contract[graph][side]}


def canonical(contract: Contract, graph: str, side: str) -> Ports:
    """What ``contract.py`` says: NCHW and float32."""
    found = getattr(contract, f"{graph}_{side}")
    return {port.name: (port.shape, port.dtype) for port in found}


def assert_meanings_are_there(contract: Mapping[str, Any]) -> None:
    """Every port says what it is."""
    for graph in ("encoder", "decoder"):
        for side in ("inputs", "outputs"):
            assert all(len(port["meaning"]) > 20 for port in contract[graph][side])
