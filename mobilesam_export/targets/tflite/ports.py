"""What written TFLite files say of themselves."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mobilesam_export.contract import Contract, Port, Written, common
from mobilesam_export.errors import ExportError
from mobilesam_export.targets.tflite.flatbuffer import TENSOR_DTYPES, get_metadata, read_model


def read_written(encoder: Path, decoder: Path) -> Written:
    """Read ports and metadata from the files, or from one that has both signatures.

    A signature lists its ports in any order, and apps bind them by name; here they come in the contract's.

    Raises:
        ExportError: a file is no TFLite file, or lacks its signature.
    """
    first = read_model(encoder)
    second = first if decoder == encoder else read_model(decoder)
    encoder_ports, decoder_ports = _ports(first, encoder, "encode"), _ports(second, decoder, "decode")
    slots = next((port.shape[1] for port in decoder_ports[0] if port.name == "point_labels"), None)
    return Written(
        *encoder_ports,
        *decoder_ports,
        slots if isinstance(slots, int) else None,
        common(get_metadata(first), get_metadata(second)),
    )


def _ports(model: Any, path: Path, key: str) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    """Inputs and outputs of a signature; the file has no room for meanings, which are the contract's."""
    signature = next((entry for entry in model.signatureDefs or [] if entry.signatureKey == key.encode()), None)
    if signature is None:
        raise ExportError(f"{path} has no signature {key}; export it again with --target tflite")
    tensors = model.subgraphs[signature.subgraphIndex].tensors
    grids = [
        tensors[port.tensorIndex].shape[1]
        for port in (*signature.inputs, *signature.outputs)
        if port.name == b"image_embeddings"
    ]
    contract = Contract(16 * int(grids[0]))
    known = [*contract.encoder_inputs, *contract.decoder_inputs, *contract.decoder_outputs]
    meanings = {port.name: port.meaning for port in known}
    order = list(meanings)

    def ports(entries: Iterable[Any]) -> tuple[Port, ...]:
        found = []
        for entry in entries:
            name, tensor = entry.name.decode(), tensors[entry.tensorIndex]
            shape = tuple(int(size) for size in tensor.shape)
            found.append(Port(name, shape, TENSOR_DTYPES[tensor.type].name, meanings[name]))
        return tuple(sorted(found, key=lambda port: order.index(port.name)))

    return ports(signature.inputs), ports(signature.outputs)
