"""Say in an ONNX file what it is, check it, and write it."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import onnx

from mobilesam_export.contract import Port
from mobilesam_export.version import __version__


def describe_ports(model: onnx.ModelProto, summary: str, ports: Iterable[Port]) -> None:
    """Say in the file what the graph is, and what each port means; viewers show both."""
    model.doc_string = summary
    meanings = {port.name: port.meaning for port in ports}
    for value in (*model.graph.input, *model.graph.output):
        value.doc_string = meanings[value.name]


def save(model: onnx.ModelProto, metadata: Mapping[str, str], path: Path) -> None:
    """Write a model that the checker accepts, with named strings and who made it."""
    onnx.helper.set_model_props(model, dict(metadata))
    versions = {entry.domain: entry.version for entry in model.opset_import}  # merged models name theirs twice
    del model.opset_import[:]
    model.opset_import.extend(onnx.helper.make_opsetid(domain, version) for domain, version in versions.items())
    model.producer_name, model.producer_version = "mobilesam-export", __version__
    onnx.checker.check_model(model, full_check=True)
    onnx.save_model(model, path)
