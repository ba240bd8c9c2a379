"""Store a TFLite graph's constants in float16, each behind a DEQUANTIZE: the format every LiteRT delegate knows.

What: every float32 constant of at least ``LEAST_ELEMENTS`` values, whatever operator reads it; quantiser
recipes only reach the weights of layers they know and leave attention biases and tables in float32.
Delegates unpack or use the float16 values at load; the arithmetic stays what the delegate chooses.
Left alone: vectors (XNNPACK wants a quantised layer's bias in float32), small constants (norms, and above
all the Fourier frequencies: half of float16's spacing moves a point by a pixel), those marked ``EXACT``,
integers, and constants that float16 cannot hold.
"""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilesam_export.rewrites.parts import part_of
from mobilesam_export.targets.tflite.flatbuffer import EXACT, Subgraph, prune
from mobilesam_export.targets.tflite.layers import layer_of

LEAST_ELEMENTS = 1024
FLOAT16_MAX = 65504.0


def store_float16(model: Any, exceptions: Collection[str] = ()) -> None:
    """Rewrite the constants of every signature of a ``ModelT``.

    Args:
        exceptions: parts (see ``rewrites.parts``) whose constants stay float32.
    """
    buffers: dict[int, int] = {}  # float32 buffer -> float16 buffer, for constants that signatures share
    for index in range(len(model.subgraphs)):
        graph = Subgraph(model, index)
        readers = graph.consumers()
        unpack = []
        for tensor in range(len(graph.graph.tensors)):
            values = rounded_constant(graph, tensor)
            if values is None or tensor not in readers or readers_part(graph, readers[tensor]) in exceptions:
                continue
            entry = graph.graph.tensors[tensor]
            name, source = entry.name.decode(), entry.buffer
            packed = graph.add_tensor(f"{name}_float16", values.shape, np.dtype(np.float16))
            if source not in buffers:
                packed_values = graph.add_constant("values", values.astype(np.float16))
                buffers[source] = graph.graph.tensors[packed_values].buffer
            graph.graph.tensors[packed].buffer = buffers[source]
            entry.buffer = 0  # now computed
            unpack.append(graph.operator("DEQUANTIZE", [packed], [tensor], version=2))
        graph.graph.operators = unpack + list(graph.graph.operators)
    prune(model)


def rounded_constant(graph: Subgraph, tensor: int) -> NDArray[np.float32] | None:
    """A constant's value if it is one that is stored in float16."""
    values = graph.constant(tensor)
    if values is None or values.dtype != np.float32 or values.size < LEAST_ELEMENTS or values.ndim < 2:
        return None
    if np.abs(values).max() > FLOAT16_MAX or graph.graph.tensors[tensor].name.startswith(EXACT.encode()):
        return None
    return values


def readers_part(graph: Subgraph, readers: Sequence[Any]) -> str | None:
    """The part of the first operator that reads a constant."""
    return part_of(layer_of(graph.graph.tensors[int(readers[0].outputs[0])].name.decode()))


def rounded_parts(model: Any) -> list[str]:
    """Parts with constants that are stored in float16."""
    found: dict[str, None] = {}
    for index in range(len(model.subgraphs)):
        graph = Subgraph(model, index)
        for tensor, readers in graph.consumers().items():
            if rounded_constant(graph, tensor) is not None and (part := readers_part(graph, readers)):
                found[part] = None
    return list(found)
