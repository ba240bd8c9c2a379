"""Store a TFLite graph's constants in float16, each behind a DEQUANTIZE: the format every LiteRT delegate knows.

What: every float32 constant of at least ``LEAST_ELEMENTS`` values, whatever operator reads it; quantiser
recipes only reach the weights of layers they know and leave attention biases and tables in float32.
Delegates unpack or use the float16 values at load; the arithmetic stays what the delegate chooses.
Left alone: vectors (XNNPACK wants a quantised layer's bias in float32), small constants (norms, and above
all the Fourier frequencies: half of float16's spacing moves a point by a pixel), those marked ``EXACT``,
integers, and constants that float16 cannot hold.
"""

from typing import Any

import numpy as np

from mobilesam_export.targets.tflite.flatbuffer import EXACT, Subgraph, prune

LEAST_ELEMENTS = 1024
FLOAT16_MAX = 65504.0


def store_float16(model: Any) -> None:
    """Rewrite the constants of every signature of a ``ModelT``."""
    buffers: dict[int, int] = {}  # float32 buffer -> float16 buffer, for constants that signatures share
    for index in range(len(model.subgraphs)):
        graph = Subgraph(model, index)
        readers = graph.consumers()
        unpack = []
        for tensor in range(len(graph.graph.tensors)):
            values = graph.constant(tensor)
            if values is None or values.dtype != np.float32 or values.size < LEAST_ELEMENTS or tensor not in readers:
                continue
            if values.ndim < 2 or np.abs(values).max() > FLOAT16_MAX:
                continue
            entry = graph.graph.tensors[tensor]
            if entry.name.startswith(EXACT.encode()):
                continue
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
