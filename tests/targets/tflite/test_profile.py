"""The profile of the benchmarks is of the file's operators."""

from collections import Counter
from pathlib import Path

from benchmarks.litert_profile import profile
from mobilesam_export.targets.tflite.flatbuffer import Subgraph, read_model


def test_a_profile_has_every_product_of_the_file_and_its_time(float32_files: list[Path]) -> None:
    for path in float32_files:
        graph = Subgraph(read_model(path), 0)
        names = Counter(graph.name(operator) for operator in graph.graph.operators)
        found = profile(path, runs=1)
        for name, kernel in (
            ("BATCH_MATMUL", "Batch Matrix Multiply (NC, F32) GEMM"),
            ("GELU", "GELU (NC)"),
            ("SOFTMAX", "Softmax (NC, F32)"),
        ):
            assert found.counts[kernel] == names[name]
        spent = sum(found.times_ms.values())
        assert found.counts.keys() == found.times_ms.keys()
        assert 0 < spent <= found.wall_ms
