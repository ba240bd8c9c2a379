"""Files that ONNX Runtime cannot open: what is wrong, and which version is needed if it is too old."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from mobilesam_export.errors import ExportError
from mobilesam_export.targets.onnx.runtime import session

INSTALLED = onnxruntime.__version__


def write(path: Path, opset: int, ir_version: int) -> Path:
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", ports[:1], ports[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = ir_version
    onnx.save(model, path)
    return path


def test_a_file_that_the_runtime_knows_is_opened(tmp_path: Path) -> None:
    opened = session(write(tmp_path / "a.onnx", 17, 8), 1)
    np.testing.assert_array_equal(opened.run(None, {"x": np.array([-1], np.float32)})[0], [0])


@pytest.mark.parametrize(("opset", "ir_version"), [(99, 10), (17, 99)])
def test_a_file_newer_than_the_runtime_says_so_in_one_line(tmp_path: Path, opset: int, ir_version: int) -> None:
    with pytest.raises(ExportError) as caught:
        session(write(tmp_path / "a.onnx", opset, ir_version))
    assert str(caught.value) == (
        f"{tmp_path / 'a.onnx'} needs an ONNX Runtime later than {INSTALLED} (it has opset {opset} and IR version "
        f"{ir_version}), {INSTALLED} is installed; pip install -U onnxruntime, or export with --opset 17"
    )


@pytest.mark.parametrize(
    "refusal",
    [  # what 1.22.1 says of an opset and of an IR version
        "Opset 23 is under development. Current official support for domain ai.onnx is till opset 22.",
        "Unsupported model IR version: 11, max supported IR version: 10",
    ],
)
def test_an_older_runtime_is_told_the_version_that_loads_our_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError(refusal)

    path = write(tmp_path / "a.onnx", 23, 10)
    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)
    monkeypatch.setattr(onnxruntime, "__version__", "1.22.1")
    with pytest.raises(ExportError, match=r"needs ONNX Runtime 1\.23 or later \(it has opset 23 .*1\.22\.1 is install"):
        session(path)


def test_damaged_files_say_why_and_what_to_do(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.onnx", 17, 8).read_bytes()
    (tmp_path / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    for name in ("cut.onnx", "missing.onnx"):
        with pytest.raises(
            ExportError, match=rf"{name} cannot be loaded by ONNX Runtime .*; export it again"
        ) as caught:
            session(tmp_path / name)
        assert "\n" not in str(caught.value)
