"""What LiteRT's delegates make of a file: axes, operators, XNNPACK partitions; the gates of the TFLite target.

A phone's GPU delegate refuses tensors of more than four axes and operators it does not know, and every
refusal costs a round trip over the memory bus. XNNPACK's partitions are counted by asking it.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ai_edge_litert.interpreter import Interpreter

from mobilesam_export.chatter import without_native_chatter
from mobilesam_export.targets.tflite.flatbuffer import Subgraph, only, pack, read_model

MAX_RANK = 4
# What the graphs may consist of. All of it runs on XNNPACK and on LiteRT's GPU accelerator (where LOGISTIC, of RepViT,
# and MAX_POOL_2D, MAXIMUM and MINIMUM, of ResNet and HGNetV2, were not run yet); GATHER, CAST, EQUAL, SELECT and the
# like split one of the two.
# fmt: off
ALLOWED_OPERATORS = frozenset({
    "ABS", "ADD", "BATCH_MATMUL", "CONCATENATION", "CONV_2D", "COS", "DEPTHWISE_CONV_2D", "DEPTH_TO_SPACE",
    "DEQUANTIZE", "DIV", "EXP", "FLOOR", "FULLY_CONNECTED", "GELU", "LOGISTIC", "MAXIMUM", "MAX_POOL_2D", "MEAN",
    "MINIMUM", "MUL", "PAD", "REDUCE_MAX", "RELU", "RESHAPE", "RSQRT", "SIN", "SLICE", "SOFTMAX",
    "SQUARED_DIFFERENCE", "SUB", "SUM", "TRANSPOSE",
})
# fmt: on
QUANTISED_OPERATORS = ALLOWED_OPERATORS | {"QUANTIZE"}


@dataclass(frozen=True)
class DelegateReport:
    """How one signature meets the delegates' limits.

    Attributes:
        operators: how many of each kind, constants' DEQUANTIZE included.
        max_rank: most axes of any tensor.
        xnnpack_partitions: pieces that XNNPACK makes of the graph.
        outside_xnnpack: operators left to the interpreter's own kernels.
    """

    file: str
    signature: str
    operators: dict[str, int]
    max_rank: int
    xnnpack_partitions: int
    outside_xnnpack: tuple[str, ...]

    def problems(self, xnnpack: bool = True) -> list[str]:
        """Every gate that is missed, one line each.

        Args:
            xnnpack: whether the graph is meant for it; it has no kernels for 16-bit activations, which are for NPUs.
        """
        where = f"{self.file} ({self.signature})"
        found = []
        if self.max_rank > MAX_RANK:
            found.append(f"{where}: a tensor has {self.max_rank} axes, the GPU delegate takes {MAX_RANK}")
        if foreign := sorted(self.operators.keys() - QUANTISED_OPERATORS):
            found.append(f"{where}: operators outside the allow-list: {', '.join(foreign)}")
        if xnnpack and (self.xnnpack_partitions != 1 or self.outside_xnnpack):
            outside = ", ".join(f"{count} {name}" for name, count in Counter(self.outside_xnnpack).items()) or "none"
            found.append(f"{where}: {self.xnnpack_partitions} XNNPACK partitions, expected 1; outside: {outside}")
        return found

    def as_dict(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "operators": dict(sorted(self.operators.items())),
            "operator_count": sum(self.operators.values()),
            "max_rank": self.max_rank,
            "xnnpack_partitions": self.xnnpack_partitions,
            "outside_xnnpack": list(self.outside_xnnpack),
        }


def inspect_delegates(path: Path) -> list[DelegateReport]:
    """One report for every signature of a TFLite file."""
    model = read_model(path)
    reports = []
    for signature in model.signatureDefs:
        graph = Subgraph(model, signature.subgraphIndex)
        partitions, outside = xnnpack_partitions(pack(only(model, signature)))
        reports.append(
            DelegateReport(
                path.name,
                signature.signatureKey.decode(),
                dict(Counter(graph.name(operator) for operator in graph.graph.operators)),
                max(len(graph.shape(tensor)) for tensor in range(len(graph.graph.tensors))),
                partitions,
                outside,
            )
        )
    return reports


def xnnpack_partitions(content: bytes) -> tuple[int, tuple[str, ...]]:
    """Count the delegate nodes of a model of one subgraph, and name the operators that still run outside them.

    The interpreter lists the original operators even when a delegate has replaced them, so the ones that
    run are found backwards from the outputs, a delegate node taking precedence as the producer.
    """
    with without_native_chatter():
        interpreter = Interpreter(model_content=content, num_threads=1)
        interpreter.allocate_tensors()
    operators = interpreter._get_ops_details()
    producers: dict[int, dict[str, Any]] = {}
    for operator in operators:
        for tensor in operator["outputs"]:
            if operator["op_name"] == "DELEGATE" or int(tensor) not in producers:
                producers[int(tensor)] = operator
    wanted = [int(detail["index"]) for detail in interpreter.get_output_details()]
    running: dict[int, str] = {}
    while wanted:
        operator = producers.get(wanted.pop())
        if operator is not None and operator["index"] not in running:
            running[operator["index"]] = operator["op_name"]
            wanted.extend(int(tensor) for tensor in operator["inputs"] if tensor >= 0)
    outside = [name for _, name in sorted(running.items()) if name != "DELEGATE"]
    return len(running) - len(outside), tuple(outside)
