"""Replace two large, redundant constants of a TFLite graph by operators that compute them from small ones.

What: an attention bias (1, heads, N, N) that depends on |dy| and |dx| only comes from its (heads, side, side)
table through two products with a one-hot matrix, which are exact; a dense positional table whose every
channel is a matrix of rank 2 over y and x (sin(a + b) is) comes from two pairs of factors.
Why: 4.6 MB and 4.2 MB at 1024 that no quantisation recipe reaches. The operators add half a percent to the
encoder's work, and all of them stay on the delegates.
When: for the compressed precisions; a float32 file keeps its constants. It must happen on the finished
file, because the converter folds every operator whose inputs are constant.
Refuses: constants without that structure stay as they are.
"""

import math
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from mobilesam_export.targets.tflite.flatbuffer import EXACT, Subgraph, prune

FLOAT32 = np.dtype(np.float32)
LEAST_ELEMENTS = 1 << 14
FACTOR_TOLERANCE = 1e-5  # the table of a sine of up to 30 radians in float32 is itself off by as much

Floats = NDArray[np.float32]


def compact(model: Any) -> int:
    """Replace what can be replaced in every signature of a ``ModelT``; returns how many constants."""
    count = 0
    for index in range(len(model.subgraphs)):
        graph = Subgraph(model, index)
        for tensor in range(len(graph.graph.tensors)):
            values = graph.constant(tensor)
            if values is None or values.dtype != np.float32 or values.size < LEAST_ELEMENTS:
                continue
            builder = Builder(graph)
            replacement = builder.attention_bias(values)
            if replacement is None:
                replacement = builder.positional_table(values)
            if replacement is not None:
                graph.replace_uses(tensor, replacement)
                graph.graph.operators = builder.operators + list(graph.graph.operators)
                count += 1
    prune(model)
    return count


def offset_one_hot(side: int) -> Floats:
    """(side, side * side) matrix with a one where row a is |i - k| of column (i, k)."""
    i, k = np.divmod(np.arange(side * side), side)
    one_hot: Floats = (np.arange(side)[:, None] == np.abs(i - k)).astype(np.float32)
    return one_hot


def bias_from_table(table: Floats) -> Floats:
    """(heads, side, side) values by |dy| and |dx| as (heads, side^2, side^2)."""
    side = table.shape[1]
    y, x = np.divmod(np.arange(side * side), side)
    bias: Floats = table[:, np.abs(y[:, None] - y), np.abs(x[:, None] - x)]
    return bias


def rank_two_factors(table: Floats) -> tuple[list[Floats], list[Floats]] | None:
    """Factors of an (H, W, C) table: two (H, C) and two (W, C) whose products add up to it; None if it has none."""
    left, strength, right = np.linalg.svd(table.astype(np.float64).transpose(2, 0, 1))  # a matrix a channel
    root = np.sqrt(strength[:, :2])
    rows = [(left[:, :, r] * root[:, r : r + 1]).T.astype(np.float32) for r in range(2)]
    columns = [(right[:, r] * root[:, r : r + 1]).T.astype(np.float32) for r in range(2)]
    rebuilt = np.sum([row[:, None] * column for row, column in zip(rows, columns, strict=True)], axis=0)
    return (rows, columns) if np.abs(rebuilt - table).max() < FACTOR_TOLERANCE * max(1.0, np.abs(table).max()) else None


class Builder:
    """Appends operators over constants to a list of its own."""

    def __init__(self, graph: Subgraph) -> None:
        self.graph = graph
        self.operators: list[Any] = []

    def constant(self, values: NDArray[Any]) -> int:
        """A constant that no precision touches."""
        return self.graph.add_constant(f"{EXACT}_{len(self.graph.graph.tensors)}", values)

    def apply(self, name: str, inputs: list[int], shape: tuple[int, ...], options: Any = None) -> int:
        """Append an operator with one float32 output of ``shape``."""
        output = self.graph.add_tensor(f"{name.lower()}_{len(self.graph.graph.tensors)}", shape, FLOAT32)
        self.operators.append(self.graph.operator(name, inputs, [output], options))
        return output

    def reshape(self, source: int, shape: tuple[int, ...]) -> int:
        """RESHAPE."""
        return self.apply("RESHAPE", [source, self.constant(np.array(shape, np.int32))], shape)

    def transpose(self, source: int, permutation: tuple[int, ...]) -> int:
        """TRANSPOSE."""
        shape = self.graph.shape(source)
        moved = tuple(shape[axis] for axis in permutation)
        return self.apply("TRANSPOSE", [source, self.constant(np.array(permutation, np.int32))], moved)

    def matmul(self, source: int, matrix: int) -> int:
        """(1, M, K) times a constant (K, N); BATCH_MATMUL, which the recipes for linear layers do not quantise."""
        shape = (*self.graph.shape(source)[:-1], self.graph.shape(matrix)[-1])
        return self.apply("BATCH_MATMUL", [source, matrix], shape, schema.BatchMatMulOptionsT())

    def attention_bias(self, bias: Floats) -> int | None:
        """Operators for (1, heads, N, N) or (heads, N, 1, N), N a square, if it depends on |dy| and |dx| only."""
        if bias.ndim != 4 or 1 not in (bias.shape[0], bias.shape[2]) or math.isqrt(bias.shape[3]) ** 2 != bias.shape[3]:
            return None
        side, tokens = math.isqrt(bias.shape[3]), bias.shape[3]
        if bias.size % tokens**2:
            return None
        square = bias.reshape(-1, tokens, tokens)
        heads = len(square)
        table = square[:, 0].reshape(heads, side, side)  # seen from the top-left token
        if not np.array_equal(bias_from_table(table), square):
            return None
        one_hot = self.constant(offset_one_hot(side))
        x = self.constant(table.transpose(0, 2, 1).reshape(1, heads * side, side).copy())  # head, dx; dy
        # The GPU accelerator refuses a matrix product of two constants, but multiplies them element by element.
        one = self.constant(np.ones((1, 1, 1), np.float32))
        x = self.apply("MUL", [x, one], self.graph.shape(x), schema.MulOptionsT())
        x = self.reshape(self.matmul(x, one_hot), (heads, side, tokens))  # head, dx, (i, k)
        x = self.reshape(self.transpose(x, (0, 2, 1)), (1, heads * tokens, side))  # head, i, k; dx
        x = self.reshape(self.matmul(x, one_hot), (heads * side, side, side, side))  # head i, k, j, l
        return self.reshape(self.transpose(x, (0, 2, 1, 3)), bias.shape)  # head, (i, j), (k, l)

    def positional_table(self, table: Floats) -> int | None:
        """Operators for (1, H * H, C), if every channel has rank 2 over rows and columns."""
        if table.ndim != 3 or table.shape[0] != 1 or math.isqrt(table.shape[1]) ** 2 != table.shape[1]:
            return None
        side, channels = math.isqrt(table.shape[1]), table.shape[2]
        factors = rank_two_factors(table.reshape(side, side, channels))
        if factors is None:
            return None
        shape = (1, side, side, channels)
        products = [
            self.apply(
                "MUL",
                [self.constant(row.reshape(1, side, 1, channels)), self.constant(column.reshape(1, 1, side, channels))],
                shape,
                schema.MulOptionsT(),
            )
            for row, column in zip(*factors, strict=True)
        ]
        return self.reshape(self.apply("ADD", products, shape, schema.AddOptionsT()), table.shape)
