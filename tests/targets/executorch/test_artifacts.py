"""What was written: parity, ports, one partition each; and what is refused. Runs ExecuTorch's own runtime."""

from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mobilesam_export.contract import Contract
from mobilesam_export.errors import ExportError
from reference.mobile_sam import MobileSam
from tests.ports import assert_meanings_are_there, canonical, described, ports
from tests.randomised import randomised_sam
from tests.targets.executorch.conftest import IMAGE_SIZE
from tests.targets.prompts import every_kind

pytest.importorskip("executorch", reason="needs pip install 'mobilesam-export[executorch]'")

from mobilesam_export.targets.executorch import write as to_executorch
from mobilesam_export.targets.executorch.copies import read_graph
from mobilesam_export.targets.executorch.encoder import ImageEncoderExecutorch
from mobilesam_export.targets.executorch.partition import calls_of, program_of
from mobilesam_export.targets.executorch.ports import read_written
from mobilesam_export.targets.executorch.runtime import ExecutorchRuntime

KINDS = ("point", "points", "box", "box and points", "mask", "refinement")
FLOAT32 = 5e-5  # XNNPACK sums in another order than PyTorch, over the standard deviation


def relative_error(got: np.ndarray, expected: Tensor) -> float:
    """Largest difference over the expected standard deviation."""
    return float(np.abs(got - expected.numpy()).max() / expected.std())


@pytest.fixture(scope="module")
def runtime(files: list[Path]) -> ExecutorchRuntime:
    return ExecutorchRuntime(*files)


def test_encoder_file_equals_the_reference(runtime: ExecutorchRuntime, image: Tensor, embeddings: Tensor) -> None:
    assert relative_error(runtime.encode(image.numpy()), embeddings) < FLOAT32


@pytest.mark.parametrize("kind", KINDS)
def test_decoder_file_equals_the_reference(
    kind: str, runtime: ExecutorchRuntime, sam: MobileSam, embeddings: Tensor
) -> None:
    prompt = every_kind(IMAGE_SIZE)[kind]
    with torch.no_grad():
        expected = sam.predict_masks(embeddings, prompt.points, prompt.box, prompt.mask)
    coords, labels = (tensor.numpy() for tensor in prompt.slots())
    got = runtime.decode(embeddings.numpy(), coords, labels, None if prompt.mask is None else prompt.mask.numpy())
    for answer, wanted in zip(got, expected, strict=True):
        assert relative_error(answer, wanted) < FLOAT32


def test_swapped_axes_and_a_forgotten_padding_point_show(
    runtime: ExecutorchRuntime, sam: MobileSam, embeddings: Tensor
) -> None:
    prompt = every_kind(IMAGE_SIZE)["points"]
    with torch.no_grad():
        masks, _ = sam.predict_masks(embeddings, prompt.points)
    coords, labels = (tensor.numpy() for tensor in prompt.slots())
    for wrong in ((coords[..., ::-1], labels), (coords[:, :-1], labels[:, :-1])):
        assert relative_error(runtime.decode(embeddings.numpy(), *wrong)[0], masks) > 100 * FLOAT32


def test_a_batch_of_prompts_is_decoded_one_by_one(runtime: ExecutorchRuntime, embeddings: Tensor) -> None:
    coords = np.array([[[10, 20]], [[70, 60]]], np.float32)
    labels = np.ones((2, 1), np.float32)
    both = runtime.decode(embeddings.numpy(), coords, labels)
    for i in range(2):
        one = runtime.decode(embeddings.numpy(), coords[i : i + 1], labels[i : i + 1])
        np.testing.assert_array_equal(both[0][i : i + 1], one[0])
        np.testing.assert_array_equal(both[1][i : i + 1], one[1])


def test_the_manifest_says_the_ports_of_the_files(files: list[Path]) -> None:
    said = described("executorch", files, IMAGE_SIZE)
    assert said["max_points"] == 8
    assert_meanings_are_there(said)
    for graph in ("encoder", "decoder"):
        for side in ("inputs", "outputs"):
            expected = dict(canonical(Contract(IMAGE_SIZE, 8), graph, side))
            for name in ("image", "image_embeddings"):
                if name in expected:
                    (batch, channels, height, width), dtype = expected[name]
                    expected[name] = (batch, height, width, channels), dtype
            assert ports(said, graph, side) == expected
            assert list(ports(said, graph, side)) == list(expected)  # by position: the order is the contract's


def test_metadata_is_in_the_files(files: list[Path]) -> None:
    expected = {"contract_version": "1", "pad_colour": "mean", "precision": "float32"}
    assert read_written(*files).metadata == expected


def test_each_file_is_one_partition_without_an_operator_outside(files: list[Path]) -> None:
    for path in files:
        assert calls_of(path) == {"backends": ["XnnpackBackend"], "partitions": 1, "outside": []}


def test_no_transpose_is_left_but_those_of_windows_heads_and_masks(files: list[Path]) -> None:
    counts, products = [], []
    for path in files:
        (delegate,) = program_of(path).backend_delegate_data
        kinds = [entry["xnode_union_type"] for entry in read_graph(bytes(delegate.data))["xnodes"]]
        counts.append(kinds.count("XNNStaticTranspose"))
        products.append(kinds.count("XNNFullyConnected"))
        assert kinds.count("XNNConv2d") + kinds.count("XNNDepthwiseConv2d") > 0
    assert counts == [60, 29]  # six in each of ten blocks
    assert products == [123, 61]  # 115 in the encoder, and eight second halves


class Fragmented(nn.Module):
    """Two products with an operator between them that XNNPACK does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.second(torch.cumsum(self.first(x), dim=-1))
        return result


def test_a_graph_that_falls_apart_is_refused_and_the_operator_named() -> None:
    expected = r"Fragmented: got 2 XNNPACK partitions, expected 1 with nothing outside, outside are .*cumsum"
    with pytest.raises(ExportError, match=expected):
        to_executorch.lower(Fragmented().eval(), (torch.zeros(1, 8),), {})


def test_a_block_whose_windows_fill_the_map_is_one_partition() -> None:
    """At sizes such as 224 nothing is padded, so nothing may be cut off: a cut of no width is a copy outside."""
    encoder = ImageEncoderExecutorch(randomised_sam(seed=0, image_size=224))
    block = encoder.stages[1].blocks[0]  # type: ignore[union-attr, index]  # mypy sees Modules
    assert to_executorch.lower(block, (torch.zeros(1, 14, 14, 160),), {})  # type: ignore[arg-type]  # as above


def test_a_wrong_weight_shows(
    sam: MobileSam, image: Tensor, embeddings: Tensor, files: list[Path], tmp_path: Path
) -> None:
    content = bytearray(files[0].read_bytes())
    layer = sam.image_encoder.body.get_submodule("stages.1.blocks.0.mlp.fc2")
    weight = cast(nn.Linear, layer).bias.detach().numpy().tobytes()
    where = content.index(weight)
    assert content.count(weight) == 1
    content[where : where + 4] = np.float32(1).tobytes()
    broken = tmp_path / "broken.pte"
    broken.write_bytes(content)
    assert relative_error(ExecutorchRuntime(broken, files[1]).encode(image.numpy()), embeddings) > 10 * FLOAT32


def test_too_many_points_are_refused(runtime: ExecutorchRuntime, embeddings: Tensor) -> None:
    with pytest.raises(ExportError, match=r"got 9 point slots .* holds 8"):
        runtime.decode(embeddings.numpy(), np.zeros((1, 9, 2), np.float32), np.ones((1, 9), np.float32))


def test_an_image_of_another_size_is_refused(runtime: ExecutorchRuntime) -> None:
    with pytest.raises(ExportError, match=r"expected \(1, 3, 96, 96\)"):
        runtime.encode(np.zeros((1, 3, 64, 64), np.float32))


@pytest.mark.parametrize("kept", [0, 100, 0.1, 0.5, 0.99])
def test_a_truncated_file_is_one_line(kept: float, files: list[Path], tmp_path: Path) -> None:
    content = files[1].read_bytes()
    cut = tmp_path / "cut.pte"
    cut.write_bytes(content[: int(kept if kept >= 1 else kept * len(content))])
    for read in (ExecutorchRuntime, read_written):
        with pytest.raises(ExportError, match="damaged or no ExecuTorch file; export it again") as caught:
            read(files[0], cut)
        assert "\n" not in str(caught.value)
    with pytest.raises(ExportError, match="damaged or no ExecuTorch file; export it again"):
        calls_of(cut)


def test_missing_and_swapped_files_are_named(files: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="there is no"):
        ExecutorchRuntime(tmp_path / "no.pte", files[1])
    told = "the encoder takes image_embeddings, point_coords, point_labels, mask_input, has_mask_input, expected image"
    with pytest.raises(ExportError, match=told):
        ExecutorchRuntime(files[1], files[0])


@pytest.mark.parametrize("names", [[], ["x", "y"]])
def test_a_program_of_other_things_is_one_line(names: list[str], files: list[Path], tmp_path: Path) -> None:
    said = {"input_names": names, "output_names": ["z"], "metadata": "{}"} if names else {}
    encoder, other = tmp_path / files[0].name, tmp_path / files[1].name
    encoder.write_bytes(files[0].read_bytes())
    other.write_bytes(to_executorch.lower(nn.Linear(8, 8).eval(), (torch.zeros(1, 8),), said))
    with pytest.raises(ExportError, match="are not as this program writes them") as caught:
        ExecutorchRuntime(encoder, other)
    assert "\n" not in str(caught.value)
    with pytest.raises(ExportError, match="are not as this program writes them"):
        described("executorch", [encoder, other], IMAGE_SIZE)


@pytest.mark.parametrize("options", [{"precision": "int3"}, {"max_points": 0}])
def test_unknown_options_are_refused_before_any_work(
    options: dict[str, object], sam: MobileSam, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=r"got .* expected"):
        to_executorch.write(sam, tmp_path, **options)  # type: ignore[arg-type]  # a dict of several types
    assert list(tmp_path.iterdir()) == []
