"""What Xcode shows of a package: author, licence, descriptions, and user-defined entries."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mobilesam_export.contract import (
    CONTRACT_VERSION,
    DECODER_SUMMARY,
    ENCODER_SUMMARY,
    PAD_COLOUR,
    PAD_COLOUR_8BIT,
    Contract,
    PointLabel,
    Port,
)
from mobilesam_export.targets.coreml.executor.backend import load_coremltools

AUTHOR = "MobileSAM Export"
LICENCE = (
    "Apache-2.0; model after MobileSAM (arXiv 2306.14289) and Segment Anything (arXiv 2304.02643), both Apache-2.0"
)
_SUMMARIES = {"encoder": ENCODER_SUMMARY, "decoder": DECODER_SUMMARY}
_PAD_COLOUR_OF_OTHERS = {"image": "pad_colour", "tensor": "pad_colour_8bit"}


def describe(
    model: Any, part: str, contract: Contract, version: str, image_input: str, metadata: Mapping[str, str]
) -> None:
    """Write the metadata into a converted model that is not saved yet.

    Args:
        model: coremltools' ``MLModel``.
        part: ``encoder`` or ``decoder``.
        version: of this package's exporter.
        image_input: ``image`` or ``tensor``. The package names one pad colour, that of its input.
        metadata: more user-defined entries, such as the weights' sha256.
    """
    inputs = contract.encoder_inputs if part == "encoder" else contract.decoder_inputs
    outputs = contract.encoder_outputs if part == "encoder" else contract.decoder_outputs
    model.author, model.license, model.version = AUTHOR, LICENCE, version
    model.short_description = _SUMMARIES[part]
    for port in inputs:
        model.input_description[port.name] = _sentence(port)
    for port in outputs:
        model.output_description[port.name] = _sentence(port)
    entries = user_defined(contract) | {key: str(value) for key, value in metadata.items()}
    del entries[_PAD_COLOUR_OF_OTHERS[image_input]]
    model.user_defined_metadata.update(entries)


def user_defined(contract: Contract) -> dict[str, str]:
    """What a program that loads the package may want to check."""
    return {
        "contract_version": CONTRACT_VERSION,
        "image_size": str(contract.image_size),
        "pad_colour": str(PAD_COLOUR),
        "pad_colour_8bit": str(PAD_COLOUR_8BIT),
        "point_labels": ",".join(f"{label.value}={label.name.lower()}" for label in PointLabel),
    }


def annotate(package: Path, metadata: Mapping[str, str]) -> None:
    """Add user-defined entries, such as measured parity, to a saved package."""
    load_coremltools()
    from coremltools.proto import Model_pb2

    path = package / "Data" / "com.apple.CoreML" / "model.mlmodel"
    spec = Model_pb2.Model()
    spec.ParseFromString(path.read_bytes())
    for key, value in metadata.items():
        spec.description.metadata.userDefined[key] = value
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_bytes(spec.SerializeToString())
    unfinished.replace(path)


def _sentence(port: Port) -> str:
    return f"{port.meaning[0].upper()}{port.meaning[1:]}."
