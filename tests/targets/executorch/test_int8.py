"""Dynamic int8: linear layers of the encoder are rounded, one partition is left, and the masks hold."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from reference.mobile_sam import MobileSam

pytest.importorskip("executorch", reason="needs pip install 'mobilesam-export[executorch]'")

from mobilesam_export.targets.executorch.copies import read_graph
from mobilesam_export.targets.executorch.partition import calls_of, program_of
from mobilesam_export.targets.executorch.ports import read_written
from mobilesam_export.targets.executorch.runtime import ExecutorchRuntime
from mobilesam_export.targets.executorch.write import write

LINEAR = 10 * 6 + 3 * 2 + 2 * 2 + 1  # of ten blocks, three mergings, two MBConvs and the neck


@pytest.fixture(scope="module")
def int8_files(sam: MobileSam, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write(sam, tmp_path_factory.mktemp("int8"), precision="int8_dynamic")


def graph_of(path: Path) -> dict[str, Any]:
    (delegate,) = program_of(path).backend_delegate_data
    return read_graph(bytes(delegate.data))


def test_each_file_is_still_one_partition_and_says_its_precision(int8_files: list[Path]) -> None:
    for path in int8_files:
        assert calls_of(path) == {"backends": ["XnnpackBackend"], "partitions": 1, "outside": []}
    assert read_written(*int8_files).metadata["precision"] == "int8_dynamic"


def test_linear_layers_have_8_bit_weights_and_means_do_not(int8_files: list[Path]) -> None:
    graph = graph_of(int8_files[0])
    kinds: dict[int, str] = {}
    for entry in graph["xvalues"]:
        tensor = entry["xvalue_union"].get("tensor_value", entry["xvalue_union"])
        kinds[tensor["id_out"]] = str(tensor["datatype"]).removeprefix("xnn_datatype_")
    products = [node["xnode_union"] for node in graph["xnodes"] if node["xnode_union_type"] == "XNNFullyConnected"]
    found = Counter((kinds[node["input1_id"]], kinds[node["filter_id"]]) for node in products)
    # A LayerNorm without affine takes two means: two in each block, two in the neck.
    assert found == {("qdint8", "qcint8"): LINEAR, ("fp32", "fp32"): 2 * (2 * 10 + 2)}


def test_the_encoder_is_close_and_a_third_of_the_size_and_the_decoder_is_the_float_one(
    int8_files: list[Path], files: list[Path], image: Tensor, embeddings: Tensor
) -> None:
    got = ExecutorchRuntime(*int8_files).encode(image.numpy())
    error = float(np.abs(got - embeddings.numpy()).mean() / embeddings.std())
    assert 1e-4 < error < 0.1  # rounded, and not broken
    assert int8_files[0].stat().st_size < 0.5 * files[0].stat().st_size
    assert int8_files[1].stat().st_size == pytest.approx(files[1].stat().st_size, rel=0.001)
    assert torch.isfinite(torch.from_numpy(got)).all()
