"""The passes over a TFLite graph: they fire, they refuse, they keep the numbers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from mobilesam_export.errors import ExportError
from mobilesam_export.targets.tflite.decoder import depth_to_space
from mobilesam_export.targets.tflite.delegates import inspect_delegates
from mobilesam_export.targets.tflite.flatbuffer import (
    EXACT,
    Subgraph,
    get_metadata,
    read_model,
    set_metadata,
    write_model,
)
from mobilesam_export.targets.tflite.passes.compact import bias_from_table, compact, rank_two_factors
from mobilesam_export.targets.tflite.passes.float16 import store_float16
from mobilesam_export.targets.tflite.passes.simplify import simplify
from mobilesam_export.targets.tflite.write import convert, load_converter
from reference.prompt_encoder import PromptEncoder


class Toy(nn.Module):
    """What the passes look for, and nothing else."""

    bias: Tensor
    other: Tensor
    scale: Tensor
    table: Tensor

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(16, 16)
        table = torch.randn(5, 14, 14).numpy()
        self.register_buffer("bias", torch.from_numpy(bias_from_table(table))[None])  # (1, 5, 196, 196)
        self.register_buffer("scale", torch.randn(2, 5, 1, 1))
        self.register_buffer("other", torch.randn(1, 5, 196, 196))
        self.register_buffer("table", PromptEncoder(image_size=512).image_pe().flatten(2).transpose(1, 2).contiguous())

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """(1, 8, 8, 16) uint8 to a few sums, through every pattern."""
        x = self.linear(image.float()[:, 1:7, 2:8])  # two SLICE operators
        x = depth_to_space(F.pad(x, (0, 0, 0, 1, 0, 1)))  # (1, 14, 14, 4)
        tokens = x.reshape(1, 1, 196, 4) * self.scale  # (2, 5, 196, 4)
        scores = tokens @ tokens.transpose(2, 3)
        first, second = torch.softmax(scores + self.bias, -1) @ tokens, torch.softmax(scores + self.other, -1) @ tokens
        gram = x.reshape(1, 196, 4) @ x.reshape(1, 196, 4).transpose(1, 2)
        return {"attended": first + second, "gram": gram, "located": self.table * x.mean()}


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("toy") / "toy.tflite"
    convert(load_converter(), [("encode", Toy().eval(), {"image": torch.zeros(1, 8, 8, 16, dtype=torch.uint8)})], path)
    return path


def run(path: Path) -> dict[str, NDArray[np.float32]]:
    """The toy's outputs."""
    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    image = np.arange(1024, dtype=np.uint8).reshape(1, 8, 8, 16)
    outputs: dict[str, NDArray[np.float32]] = interpreter.get_signature_runner("encode")(image=image)
    return outputs


def names(model: Any) -> list[str]:
    """The operators in order."""
    graph = Subgraph(model, 0)
    return [graph.name(operator) for operator in graph.graph.operators]


def test_simplify_fires_and_keeps_the_numbers(toy: Path, tmp_path: Path) -> None:
    model = read_model(toy)
    before = names(model)
    simplify(model)
    after = names(model)
    assert before.count("DEPTH_TO_SPACE") == 0 and after.count("DEPTH_TO_SPACE") == 1
    assert before.count("CAST") == 1 and after.count("CAST") == 0 and after.count("DEQUANTIZE") == 1
    assert before.count("SLICE") == 2 and after.count("SLICE") == 1
    assert after.count("BATCH_MATMUL") == before.count("BATCH_MATMUL") + 1  # the product of two computed matrices
    assert after.count("RESHAPE") < before.count("RESHAPE")
    simple = write_model(model, tmp_path / "simple.tflite")
    for name, value in run(toy).items():
        np.testing.assert_allclose(run(simple)[name], value, rtol=1e-5, atol=1e-5)


def test_the_converters_own_graph_misses_the_delegates_gates(toy: Path, tmp_path: Path) -> None:
    (report,) = inspect_delegates(toy)
    problems = " ".join(report.problems())
    assert "a tensor has 6 axes, the GPU delegate takes 4" in problems
    assert "operators outside the allow-list: CAST" in problems
    assert "XNNPACK partitions" in problems
    model = read_model(toy)
    simplify(model)
    (report,) = inspect_delegates(write_model(model, tmp_path / "simple.tflite"))
    assert report.problems() == []


def test_compact_replaces_what_has_structure_and_leaves_the_rest(toy: Path, tmp_path: Path) -> None:
    model = read_model(toy)
    simplify(model)
    whole = write_model(model, tmp_path / "whole.tflite")
    assert compact(model) == 2  # the Toeplitz bias and the positional table, not the random bias
    small = write_model(model, tmp_path / "small.tflite")
    assert whole.stat().st_size - small.stat().st_size > 4 * (5 * 196**2 + 1024 * 256) - 200_000
    for name, value in run(whole).items():  # the factors' rounding, 2e-6, times the toy's mean of 18
        np.testing.assert_allclose(run(small)[name], value, rtol=1e-5, atol=5e-5)


def test_compact_refuses_a_bias_with_one_other_value(toy: Path) -> None:
    model = read_model(toy)
    graph = Subgraph(model, 0)
    for tensor in range(len(graph.graph.tensors)):
        values = graph.constant(tensor)
        if values is not None and values.shape == (1, 5, 196, 196):
            changed = values.copy()
            changed[0, 4, 195, 195] += 1e-3
            graph.graph.tensors[tensor].buffer = graph.graph.tensors[graph.add_constant("changed", changed)].buffer
    assert compact(model) == 1


def test_factors_of_the_positional_table_rebuild_it() -> None:
    table = PromptEncoder(image_size=512).image_pe()[0].permute(1, 2, 0).numpy()
    factors = rank_two_factors(table)
    assert factors is not None
    rebuilt = sum(row[:, None] * column for row, column in zip(*factors, strict=True))
    np.testing.assert_allclose(rebuilt, table, atol=2e-6)  # twice the rounding of four float32 factors
    table = table.copy()
    table[3, 3, 3] += 0.01
    assert rank_two_factors(table) is None


def test_float16_reaches_every_large_constant_but_the_exact_ones(toy: Path) -> None:
    model = read_model(toy)
    graph = Subgraph(model, 0)
    spared = next(
        t for t in range(len(graph.graph.tensors)) if graph.shape(t) == (1, 5, 196, 196) and is_constant(graph, t)
    )
    graph.graph.tensors[spared].name = f"{EXACT}_1".encode()
    store_float16(model)
    graph = Subgraph(model, 0)
    large = [values for values in map(graph.constant, range(len(graph.graph.tensors))) if values is not None]
    assert sorted(values.dtype.name for values in large if values.size >= 1024) == ["float16", "float16", "float32"]


def is_constant(graph: Subgraph, tensor: int) -> bool:
    """Whether the tensor has a stored value."""
    return graph.constant(tensor) is not None


def test_metadata_round_trips_and_is_replaced(toy: Path, tmp_path: Path) -> None:
    model = read_model(toy)
    set_metadata(model, {"weights": "a", "licence": "Apache-2.0"})
    set_metadata(model, {"weights": "b"})
    found = get_metadata(read_model(write_model(model, tmp_path / "named.tflite")))
    assert found.items() >= {"weights": "b", "licence": "Apache-2.0"}.items()


@pytest.mark.parametrize("content", [b"", b"no model at all", b"\x1c\0\0\0TFL3" + b"\xff" * 40])
def test_a_file_that_is_no_model_is_one_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bad.tflite"
    path.write_bytes(content)
    with pytest.raises(ExportError, match="export it again") as caught:
        read_model(path)
    assert "\n" not in str(caught.value)
