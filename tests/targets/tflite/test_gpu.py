"""LiteRT's GPU accelerator: the real one where a Vulkan driver lies, and the judgement of its log everywhere.

apt-get install chromium libvulkan1 && pytest tests/targets/tflite -m gpu_delegate
"""

from pathlib import Path

import pytest

from mobilesam_export.targets.tflite import gpu as tflite_gpu
from mobilesam_export.targets.tflite.flatbuffer import read_model, write_model
from mobilesam_export.targets.tflite.gpu import GpuReport, complaints_in, main, run_on_gpu, vulkan_driver
from mobilesam_export.targets.tflite.write import write
from tests.randomised import randomised_repvit

NAMES = {"mobile_sam_encoder.tflite": "encode", "mobile_sam_decoder.tflite": "decode"}


@pytest.mark.gpu_delegate
def test_gpu_accelerator_takes_every_operator_and_agrees_with_the_cpu(
    float32_files: list[Path], float16_files: list[Path]
) -> None:
    driver = vulkan_driver()
    assert driver is not None, "no Vulkan driver; apt-get install chromium libvulkan1"
    for path in (*float32_files, *float16_files):
        report = run_on_gpu(path, driver, NAMES[path.name])
        assert report.complaints == ()
        assert report.cosine is not None and report.cosine > tflite_gpu.LEAST_COSINE
        assert report.passed and report.adapter


@pytest.mark.gpu_delegate
def test_gpu_accelerator_takes_a_repvit_whole(tmp_path: Path) -> None:
    """It has two operators of its own: the mean over a map, and LOGISTIC."""
    driver = vulkan_driver()
    assert driver is not None, "no Vulkan driver; apt-get install chromium libvulkan1"
    encoder, _ = write(randomised_repvit(image_size=96), tmp_path)
    report = run_on_gpu(encoder, driver, "encode")
    assert report.complaints == ()
    assert report.cosine is not None and report.cosine > tflite_gpu.LEAST_COSINE
    assert report.passed and report.adapter


@pytest.mark.gpu_delegate
def test_gpu_accelerator_refuses_a_graph_of_six_axes(float32_files: list[Path], tmp_path: Path) -> None:
    driver = vulkan_driver()
    assert driver is not None, "no Vulkan driver; apt-get install chromium libvulkan1"
    model = read_model(float32_files[1])
    six_axes(model)
    report = run_on_gpu(write_model(model, tmp_path / "six.tflite"), driver, "decode")
    assert not report.passed
    assert any("bad input dims size: 6" in line for line in report.complaints)


def six_axes(model: object) -> None:
    """Undo DEPTH_TO_SPACE: the reshape, transpose and reshape that the converter writes."""
    import numpy as np

    from mobilesam_export.targets.tflite.flatbuffer import Subgraph

    graph = Subgraph(model, 0)
    operators = []
    for operator in graph.graph.operators:
        if graph.name(operator) != "DEPTH_TO_SPACE":
            operators.append(operator)
            continue
        source, target = int(operator.inputs[0]), int(operator.outputs[0])
        _, height, width, channels = graph.shape(source)
        before, after = (1, height, width, 2, 2, channels // 4), (1, height, 2, width, 2, channels // 4)
        deep, wide = (graph.add_tensor(str(shape), shape, np.dtype(np.float32)) for shape in (before, after))
        shapes = [graph.add_constant("shape", np.array(graph.shape(tensor), np.int32)) for tensor in (deep, target)]
        permutation = graph.add_constant("permutation", np.array([0, 1, 3, 2, 4, 5], np.int32))
        operators += [
            graph.operator("RESHAPE", [source, shapes[0]], [deep]),
            graph.operator("TRANSPOSE", [deep, permutation], [wide], version=4),
            graph.operator("RESHAPE", [wide, shapes[1]], [target]),
        ]
    graph.graph.operators = operators


def test_a_fallback_in_the_log_is_a_complaint() -> None:
    log = """INFO: fine
ERROR: Following operations are not supported by GPU delegate:
TRANSPOSE: Tensor "x" has bad input dims size: 6.
50 operations will run on the GPU, and the remaining 702 operations will run on the CPU.
I0000 delegate_kernel.cc:984] Initializing WebGPU-based API from graph."""
    found = complaints_in(log)
    assert [line.split()[0] for line in found] == ["ERROR:", "TRANSPOSE:", "50"]
    assert complaints_in("INFO: fine") == ["the accelerator did not start"]


def test_equal_numbers_after_a_fallback_do_not_pass() -> None:
    assert GpuReport("f", "encode", "SwiftShader", 500, 1.0, ()).passed
    assert not GpuReport("f", "encode", "SwiftShader", 500, 1.0, ("702 operations will run on the CPU",)).passed
    assert not GpuReport("f", "encode", "SwiftShader", 500, 0.99, ()).passed
    assert not GpuReport("f", "encode", "", 500, None, ()).passed


def test_a_run_that_times_out_says_nothing_against_the_graph() -> None:
    assert GpuReport("f", "encode", "SwiftShader", 500, None, ("no result after 1800 s",)).refused == ""
    assert "702" in GpuReport("f", "encode", "SwiftShader", 500, 1.0, ("702 operations will run on the CPU",)).refused
    assert "0.99" in GpuReport("f", "encode", "SwiftShader", 500, 0.99, ()).refused


def test_without_a_driver_the_report_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tflite_gpu, "find_library", lambda _: None)
    assert vulkan_driver() is None
    assert main(["some.tflite"]) == 2
    assert "GPU delegate: not run" in capsys.readouterr().out


def test_a_damaged_file_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tflite_gpu, "vulkan_driver", lambda: Path("driver.json"))
    (tmp_path / "cut.tflite").write_bytes(b"\x1c\0\0\0TFL3")
    assert main([str(tmp_path / "cut.tflite")]) == 1
    error = capsys.readouterr().err
    assert "export it again" in error and error.count("\n") == 1


def test_help_is_help_and_no_file_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["--help"])
    assert raised.value.code == 0
    shown = capsys.readouterr().out
    assert "example: python -m mobilesam_export.targets.tflite.gpu dist" in shown and "a .tflite file" in shown
    with pytest.raises(SystemExit) as raised:
        main([])
    assert raised.value.code == 2
    assert "the following arguments are required: FILE" in capsys.readouterr().err
