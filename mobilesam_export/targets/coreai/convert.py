"""Make one Core AI program of both graphs: its functions are ``encode`` and ``decode``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from mobilesam_export.contract import Contract, Port
from mobilesam_export.targets.coreai.backend import quiet
from mobilesam_export.targets.coreai.lowering import KEPT_WHOLE, register

FUNCTIONS = ("encode", "decode")


def ports_of(contract: Contract) -> Mapping[str, tuple[tuple[Port, ...], tuple[Port, ...]]]:
    """Inputs and outputs of each function."""
    encode = contract.encoder_inputs, contract.encoder_outputs
    return dict(zip(FUNCTIONS, (encode, (contract.decoder_inputs, contract.decoder_outputs)), strict=True))


def example_of(inputs: Sequence[Port]) -> tuple[torch.Tensor, ...]:
    """Zeros for every input."""
    return tuple(torch.zeros([int(size) for size in port.shape]) for port in inputs)


def convert(graphs: Mapping[str, nn.Module], contract: Contract) -> Any:
    """The ``AIProgram`` of graphs by the name of their function."""
    from coreai_torch import TorchConverter, get_decomp_table

    converter = TorchConverter(mode=TorchConverter.Mode.RELEASE)  # without the paths of sources
    register(converter)
    decompositions = get_decomp_table()
    for operator in KEPT_WHOLE:
        decompositions.pop(getattr(torch.ops.aten, operator).default, None)
    with quiet(), torch.no_grad():
        for function, (inputs, outputs) in ports_of(contract).items():
            exported = torch.export.export(graphs[function], example_of(inputs))
            converter.add_exported_program(
                exported.run_decompositions(decompositions),
                input_names=[port.name for port in inputs],
                output_names=[port.name for port in outputs],
                entrypoint_name=function,
            )
        return converter.to_coreai()
