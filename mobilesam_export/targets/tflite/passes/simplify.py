"""Passes over a converted TFLite graph that keep every value and leave fewer or better-placed operators.

The converter offers no PyTorch spelling for DEPTH_TO_SPACE, writes a crop as one SLICE an axis and wraps
every batched product in reshapes. Each pass says what it looks for; what it does not find it leaves alone.
"""

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from mobilesam_export.targets.tflite.flatbuffer import Subgraph, prune

SUB_PIXEL_PERMUTATION = [0, 1, 3, 2, 4, 5]


def simplify(model: Any) -> None:
    """Apply every pass to every signature of a ``ModelT``."""
    for index in range(len(model.subgraphs)):
        graph = Subgraph(model, index)
        use_depth_to_space(graph)
        merge_reshapes(graph)
        merge_slices(graph)
        use_batch_matmul(graph)
        use_dequantize(graph)
    prune(model)
    for index in range(len(model.subgraphs)):
        widen_batch_matmul(Subgraph(model, index))
    prune(model)


def reshape(graph: Subgraph, source: int, target: int) -> Any:
    """A RESHAPE of ``source`` into the existing tensor ``target``."""
    shape = graph.add_constant("shape", np.array(graph.shape(target), np.int32))
    return graph.operator("RESHAPE", [source, shape], [target])


def use_depth_to_space(graph: Subgraph) -> None:
    """A TRANSPOSE of (1, H, W, 2, 2, C) that interleaves pixels becomes DEPTH_TO_SPACE between reshapes."""
    operators = []
    for operator in graph.graph.operators:
        operators.append(operator)
        if graph.name(operator) != "TRANSPOSE":
            continue
        source, target = int(operator.inputs[0]), int(operator.outputs[0])
        permutation = graph.constant(int(operator.inputs[1]))
        shape = graph.shape(source)
        if permutation is None or permutation.tolist() != SUB_PIXEL_PERMUTATION or shape[3:5] != (2, 2):
            continue
        batch, height, width, _, _, channels = shape
        dtype = np.dtype(np.float32)
        deep = graph.add_tensor("deep", (batch, height, width, 4 * channels), dtype)
        wide = graph.add_tensor("wide", (batch, 2 * height, 2 * width, channels), dtype)
        options = schema.DepthToSpaceOptionsT()
        options.blockSize = 2
        operators[-1:] = [
            reshape(graph, source, deep),
            graph.operator("DEPTH_TO_SPACE", [deep], [wide], options),
            reshape(graph, wide, target),
        ]
    graph.graph.operators = operators


def merge_reshapes(graph: Subgraph) -> None:
    """A RESHAPE of a RESHAPE reads the first one's input; one that changes nothing is skipped."""
    producers, outputs = graph.producers(), set(map(int, graph.graph.outputs))
    for operator in graph.graph.operators:
        if graph.name(operator) != "RESHAPE":
            continue
        before = producers.get(int(operator.inputs[0]))
        if before is not None and graph.name(before) == "RESHAPE":
            operator.inputs = np.array([before.inputs[0], operator.inputs[1]], np.int32)
        source, target = int(operator.inputs[0]), int(operator.outputs[0])
        if graph.shape(source) == graph.shape(target) and target not in outputs:
            graph.replace_uses(target, source)


def merge_slices(graph: Subgraph) -> None:
    """A SLICE of a SLICE becomes one; begins add up, the sizes are the second one's."""
    producers = graph.producers()
    for operator in graph.graph.operators:
        before = producers.get(int(operator.inputs[0])) if graph.name(operator) == "SLICE" else None
        if before is None or graph.name(before) != "SLICE":
            continue
        begins = [graph.constant(int(op.inputs[1])) for op in (before, operator)]
        if begins[0] is None or begins[1] is None:
            continue
        begin = graph.add_constant("begin", (begins[0] + begins[1]).astype(np.int32))
        size = graph.add_constant("size", np.array(graph.shape(int(operator.outputs[0])), np.int32))
        operator.inputs = np.array([before.inputs[0], begin, size], np.int32)


def use_batch_matmul(graph: Subgraph) -> None:
    """A FULLY_CONNECTED whose weight is computed, which XNNPACK leaves to the interpreter, becomes BATCH_MATMUL."""
    producers, operators = graph.producers(), []
    for operator in graph.graph.operators:
        operators.append(operator)
        weight = int(operator.inputs[1]) if graph.name(operator) == "FULLY_CONNECTED" else -1
        fused = operator.builtinOptions.fusedActivationFunction if weight >= 0 else 0
        if weight not in producers or any(int(tensor) >= 0 for tensor in operator.inputs[2:]) or fused:
            continue
        options = schema.BatchMatMulOptionsT()
        options.adjX, options.adjY = False, True
        operators[-1] = graph.operator(
            "BATCH_MATMUL", [int(operator.inputs[0]), weight], [int(out) for out in operator.outputs], options
        )
    graph.graph.operators = operators


def use_dequantize(graph: Subgraph) -> None:
    """A CAST of 8-bit input to float32, which XNNPACK leaves out, becomes DEQUANTIZE with scale 1 and zero point 0."""
    operators = []
    for operator in graph.graph.operators:
        operators.append(operator)
        if graph.name(operator) != "CAST":
            continue
        source, target = (graph.graph.tensors[int(tensor)] for tensor in (operator.inputs[0], operator.outputs[0]))
        if source.type != schema.TensorType.UINT8 or target.type != schema.TensorType.FLOAT32:
            continue
        source.quantization = schema.QuantizationParametersT()
        source.quantization.scale = np.array([1.0], np.float32)
        source.quantization.zeroPoint = np.array([0], np.int64)
        operators[-1] = graph.operator("DEQUANTIZE", [int(operator.inputs[0])], [int(operator.outputs[0])], version=2)
    graph.graph.operators = operators


def widen_batch_matmul(graph: Subgraph) -> None:
    """A BATCH_MATMUL between reshapes that only merge (A, B, M, K) to (A * B, M, K) keeps the four axes."""
    producers, consumers = graph.producers(), graph.consumers()
    outputs = set(map(int, graph.graph.outputs))
    for operator in graph.graph.operators:
        if graph.name(operator) != "BATCH_MATMUL":
            continue
        before = [producers.get(int(tensor)) for tensor in operator.inputs]
        target = int(operator.outputs[0])
        after = consumers.get(target, [])
        around = [*before, *after]
        if target in outputs or len(after) != 1 or any(op is None or graph.name(op) != "RESHAPE" for op in around):
            continue
        sources = [int(op.inputs[0]) for op in before if op is not None]
        wide = int(after[0].outputs[0])
        shapes = [graph.shape(tensor) for tensor in (*sources, wide)]
        narrow = [graph.shape(int(tensor)) for tensor in (*operator.inputs, target)]
        batch = shapes[0][:-2]
        if all(len(s) == 4 and s[:-2] == batch and s[-2:] == n[-2:] for s, n in zip(shapes, narrow, strict=True)):
            operator.inputs = np.array(sources, np.int32)
            operator.outputs = np.array([wide], np.int32)
            after[0].outputs = np.array([target], np.int32)  # nobody reads it any more
            graph.replace_uses(target, wide)
