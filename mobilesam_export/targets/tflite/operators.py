"""The operators of a written TFLite signature, for ``npu_lint``."""

from collections.abc import Iterator

from mobilesam_export.npu_lint import Operator, Tensor
from mobilesam_export.targets.tflite.flatbuffer import TENSOR_DTYPES, Subgraph


def operators_of(graph: Subgraph) -> Iterator[Operator]:
    """One signature's operators."""

    def tensor(number: int) -> Tensor:
        found = graph.graph.tensors[number]
        dtype = TENSOR_DTYPES.get(found.type)
        constant = graph.constant(number) is not None
        return Tensor(graph.shape(number), "unknown" if dtype is None else dtype.name, constant)

    for operator in graph.graph.operators:
        inputs, outputs = (
            tuple(tensor(int(number)) for number in numbers if number >= 0)
            for numbers in (operator.inputs, operator.outputs)
        )
        yield Operator(graph.name(operator), inputs, outputs)
