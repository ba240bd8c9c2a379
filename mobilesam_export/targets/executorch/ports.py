"""What written ExecuTorch files say of themselves."""

import json
from pathlib import Path
from typing import Any

from mobilesam_export.contract import Contract, Port, Written, common
from mobilesam_export.targets.executorch.programs import METHOD, constant, load

DTYPES = {0: "uint8", 1: "int8", 3: "int32", 4: "int64", 5: "float16", 6: "float32"}  # of PyTorch's ScalarType


def read_written(encoder: Path, decoder: Path) -> Written:
    """Read ports and metadata from the files.

    Raises:
        ExportError: a file is no ExecuTorch file.
        LookupError: it is one of other things.
    """
    first, second = load(encoder), load(decoder)
    encoder_ports, decoder_ports = _ports(first), _ports(second)
    contract = Contract()
    for graph, found, expected in (
        ("encoder", encoder_ports[0], contract.encoder_inputs),
        ("decoder", decoder_ports[0], contract.decoder_inputs),
    ):
        if (names := [port.name for port in found]) != (known := [port.name for port in expected]):
            raise LookupError(f"the {graph} takes {', '.join(names)}, expected {', '.join(known)}")
    slots = next(port.shape[1] for port in decoder_ports[0] if port.name == "point_labels")
    assert isinstance(slots, int)
    metadata = common(json.loads(constant(first, "metadata")), json.loads(constant(second, "metadata")))
    return Written(*encoder_ports, *decoder_ports, slots, metadata)


def _ports(program: Any) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    """Inputs and outputs of ``forward``; the file has no room for meanings, which are the contract's."""
    meta = program.metadata(METHOD)
    inputs, outputs = constant(program, "input_names"), constant(program, "output_names")
    if (len(inputs), len(outputs)) != (meta.num_inputs(), meta.num_outputs()):
        raise LookupError(f"{len(inputs)} names for {meta.num_inputs()} inputs")
    tensors = {
        **{name: meta.input_tensor_meta(i) for i, name in enumerate(inputs)},
        **{name: meta.output_tensor_meta(i) for i, name in enumerate(outputs)},
    }
    grid = tensors["image_embeddings"].sizes()[1]
    contract = Contract(16 * int(grid))
    known = [*contract.encoder_inputs, *contract.decoder_inputs, *contract.decoder_outputs]
    meanings = {port.name: port.meaning for port in known}

    def ports(names: list[str]) -> tuple[Port, ...]:
        return tuple(
            Port(name, tuple(map(int, tensors[name].sizes())), DTYPES[tensors[name].dtype()], meanings[name])
            for name in names
        )

    return ports(inputs), ports(outputs)
