"""What an NPU would refuse is found in a graph, and what it takes is not."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from mobilesam_export.bundle.tables import _npu
from mobilesam_export.npu_lint import Operator, Tensor, lint
from mobilesam_export.targets.onnx.operators import operators_of


def floats(*shape: int | str) -> Tensor:
    return Tensor(shape, "float32")


def test_a_graph_within_the_limits_has_no_problem_and_is_counted() -> None:
    x, table = floats(1, 8, 8, 16), Tensor((5, 256), "float32", constant=True)
    report = lint(
        [
            Operator("TRANSPOSE", (x, Tensor((4,), "int32", constant=True)), (x,)),
            Operator("Reshape", (x, Tensor((2,), "int64", constant=True)), (floats(64, 16),)),
            Operator("SOFTMAX", (x,), (floats(1, 8, 8, 196),)),
            Operator("Attention", (floats(1, 4, 49, 32), floats(1, 4, 256, 32)), (floats(1, 4, 49, 32),)),
            Operator("Gather", (table, floats(3)), (floats(3, 256),)),
        ]
    )
    expected: dict[str, Any] = {
        "problems": [], "max_rank": 4, "transposes": 1, "reshapes": 1, "softmax_widths": {"196": 1, "256": 1},
        "a16w8": False,
    }  # fmt: skip
    assert report == expected


@pytest.mark.parametrize(
    ("operator", "problem"),
    [
        (Operator("Reshape", (floats(4),), (floats(1, 1, 1, 2, 2),)), "a tensor has 5 axes, an NPU takes 4"),
        (Operator("Shape", (floats(4),), (Tensor((1,), "int64"),)), "1 activations are int64"),
        (Operator("GATHER_ND", (floats(4, 4), floats(1, 2)), (floats(1),)), "1 gathers read an activation"),
        (Operator("Add", (floats("points", 4),), (floats("points", 4),)), "shapes vary, an NPU takes fixed ones"),
    ],
)
def test_what_an_npu_refuses_is_a_problem(operator: Operator, problem: str) -> None:
    assert lint([operator])["problems"] == [problem]


def test_a_softmax_of_more_weights_than_8_bits_have_levels_wants_16() -> None:
    report = lint([Operator("Softmax", (floats(2, 257),), (floats(2, 257),))])
    assert (report["a16w8"], report["softmax_widths"], report["problems"]) == (True, {"257": 1}, [])


def test_an_onnx_file_is_read_with_its_constants_and_the_shapes_between(tmp_path: Path) -> None:
    rows = onnx.numpy_helper.from_array(np.zeros((5, 8), np.float32), "rows")
    nodes = [
        helper.make_node("Gather", ["rows", "which"], ["found"]),
        helper.make_node("Gather", ["found", "which"], ["again"]),
        helper.make_node("Unsqueeze", ["again", "axes"], ["wide"]),
        helper.make_node("Softmax", ["wide"], ["answer"]),
    ]
    axes = onnx.numpy_helper.from_array(np.array([0, 1, 2]), "axes")
    which = helper.make_tensor_value_info("which", TensorProto.INT32, [3])
    answer = helper.make_tensor_value_info("answer", TensorProto.FLOAT, [1, 1, 1, 3, 8])
    graph = helper.make_graph(nodes, "graph", [which], [answer], [rows, axes])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "graph.onnx")
    report = lint(operators_of(tmp_path / "graph.onnx"))
    assert report["problems"] == ["a tensor has 5 axes, an NPU takes 4", "1 gathers read an activation"]
    assert report["softmax_widths"] == {"8": 1}


def test_it_is_told_in_a_line_whatever_an_edited_manifest_has_there() -> None:
    good = {"encoder": {"problems": []}, "decoder": {"problems": ["1 activations are int64", "shapes vary"]}}
    assert _npu({"npu": good}) == (
        "published limits of NPUs: encoder: within the limits; decoder: 1 activations are int64, shapes vary"
    )
    for other in ({}, {"npu": None}, {"npu": [1]}, {"npu": {"encoder": 1}}, {"npu": {"encoder": {"problems": 2}}}):
        assert _npu(other) is None
