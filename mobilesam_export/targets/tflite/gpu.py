"""Run a TFLite file on LiteRT's GPU accelerator, without a phone and without a GPU.

ai-edge-litert carries the accelerator that Android apps use (ML Drift) over WebGPU. Any Vulkan driver
serves it, also a software one: SwiftShader lies in Debian's ``chromium`` package (with ``libvulkan1``).
Neither the accelerator's exit nor its flag ``is_fully_accelerated`` can be trusted alone: it falls back
to the CPU in silence and only logs a texture that is too large. So its log *and* its numbers are judged,
and it runs in a process of its own, whose log can be read and whose crash does no harm.

    python -m mobilesam_export.targets.tflite.gpu mobile_sam_encoder.tflite
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from ctypes.util import find_library
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilesam_export.errors import ExportError
from mobilesam_export.targets.tflite.flatbuffer import TENSOR_DTYPES, Subgraph, read_model

MODULE = "mobilesam_export.targets.tflite.gpu"  # also when this file runs as __main__
DRIVER_VARIABLES = ("VK_DRIVER_FILES", "VK_ICD_FILENAMES")
SOFTWARE_DRIVERS = (
    Path("/usr/lib/chromium/vk_swiftshader_icd.json"),
    Path("/usr/lib/chromium-browser/vk_swiftshader_icd.json"),
)
# The accelerator's words for an operator it leaves to the CPU or a tensor its textures cannot hold.
FALLBACK_LOG = re.compile(
    r"not supported by GPU delegate|will run on the CPU|bad input dims|runtime input tensor|"
    r"exceeds? .*(limit|maximum)|is larger than|validation error|out of memory|"
    r"Failed to (apply|build|compile|create) .*(delegate|graph|shader|pipeline)",
    re.IGNORECASE,
)
ADAPTER_LOG = re.compile(r"Selected adapter: ([^,]+)")
STARTED_LOG = "Initializing WebGPU-based API from graph"
# The accelerator sums in another order and approximates sine and cosine; a wrong kernel is off by far more.
LEAST_COSINE = 0.9999999


@dataclass(frozen=True)
class GpuReport:
    """One signature on the GPU accelerator against XNNPACK on the same inputs.

    Attributes:
        adapter: the Vulkan device, "" if none was found.
        cosine: the least over all outputs; None if it did not run.
        complaints: log lines that tell of a fallback or a limit, and the error that ended the run.
        operators: how many were accelerated.
    """

    file: str
    signature: str
    adapter: str
    operators: int
    cosine: float | None
    complaints: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """All operators accelerated, nothing logged against it, numbers equal to the CPU's."""
        return self.cosine is not None and self.cosine >= LEAST_COSINE and not self.complaints

    @property
    def refused(self) -> str:
        """What speaks against the graph: a fallback or other numbers; "" also for a run that merely ended early."""
        if fallback := [line for line in self.complaints if FALLBACK_LOG.search(line)]:
            return "; ".join(fallback)
        off = self.cosine is not None and self.cosine < LEAST_COSINE
        return f"cosine to the CPU {self.cosine} < {LEAST_COSINE}" if off else ""

    def as_dict(self) -> dict[str, Any]:
        """For the manifest."""
        return {"passed": self.passed, **{k: v for k, v in asdict(self).items() if k not in ("file", "signature")}}


def named_driver() -> Path | None:
    """The Vulkan driver description that the environment names; None without one, or without the loader."""
    if find_library("vulkan") is None:
        return None
    named = [
        Path(path) for variable in DRIVER_VARIABLES for path in os.environ.get(variable, "").split(os.pathsep) if path
    ]
    return next((path for path in named if path.is_file()), None)


def vulkan_driver() -> Path | None:
    """The environment's driver, else Chromium's SwiftShader if it is installed with the loader, else None."""
    software = SOFTWARE_DRIVERS if find_library("vulkan") is not None else ()
    return named_driver() or next((path for path in software if path.is_file()), None)


def run_on_gpu(path: Path, driver: Path, signature: str, float32: bool = True, timeout_s: float = 1800) -> GpuReport:
    """Run one signature on random inputs, on the GPU accelerator and on the CPU, each in a process of its own.

    Args:
        path: the TFLite file.
        driver: Vulkan driver description, see ``vulkan_driver``.
        signature: ``encode`` or ``decode``.
        float32: forbid the accelerator float16 arithmetic.
    """
    model = read_model(path)
    entry = next(entry for entry in model.signatureDefs if entry.signatureKey.decode() == signature)
    graph = Subgraph(model, entry.subgraphIndex)
    count = sum(graph.name(operator) != "DEQUANTIZE" for operator in graph.graph.operators)
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder) / "inputs.npz"
        np.savez(inputs, **random_inputs(graph, entry))  # type: ignore[arg-type]
        environment = os.environ | {variable: str(driver) for variable in DRIVER_VARIABLES}
        environment["PYTHONPATH"] = os.pathsep.join(sys.path)
        results: dict[str, dict[str, NDArray[Any]]] = {}
        log = ""
        for device in ("cpu", "gpu32" if float32 else "gpu16"):
            outputs = Path(folder) / f"{device}.npz"
            command = [sys.executable, "-m", MODULE, str(path), signature, device, str(inputs), str(outputs)]
            try:
                process = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout_s)
                log = process.stdout + process.stderr
            except subprocess.TimeoutExpired:
                log = f"RuntimeError: no result after {timeout_s:.0f} s"
            results[device[:3]] = dict(np.load(outputs)) if outputs.exists() else {}
    adapter = ADAPTER_LOG.search(log)
    complaints = complaints_in(log)
    if not results["gpu"] or not results["cpu"]:
        errors = [line for line in log.splitlines() if "Error" in line]
        complaints.append(errors[-1] if errors else "the run ended without a result")
        cosine = None
    else:
        cosine = min(cosine_of(results["cpu"][name], results["gpu"][name]) for name in results["cpu"])
    return GpuReport(path.name, signature, adapter.group(1) if adapter else "", count, cosine, tuple(complaints))


def complaints_in(log: str) -> list[str]:
    """Lines of the accelerator's log that tell of a fallback or a limit; or that it never started."""
    found = [line.strip() for line in log.splitlines() if FALLBACK_LOG.search(line)]
    return found if STARTED_LOG in log else [*found, "the accelerator did not start"]


def random_inputs(graph: Subgraph, signature: Any) -> dict[str, NDArray[Any]]:
    """Inputs in the contract's ranges: pixels, pixel coordinates, labels, unit normals for the rest."""
    rng = np.random.default_rng(0)
    arrays: dict[str, NDArray[Any]] = {}
    for port in signature.inputs:
        name, shape = port.name.decode(), graph.shape(port.tensorIndex)
        dtype = TENSOR_DTYPES[graph.graph.tensors[port.tensorIndex].type]
        if name == "image":
            values = rng.uniform(0, 255, shape)
        elif name == "point_coords":
            values = rng.uniform(0, 224, shape)
        elif name == "point_labels":
            values = np.resize([1, 0, -1, -2], shape)
        else:
            values = np.ones(shape) if name == "has_mask_input" else rng.standard_normal(shape)
        arrays[name] = values.astype(dtype)
    return arrays


def cosine_of(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Cosine of two arrays, 0 where one is not finite."""
    x, y = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
    value = float(x @ y / np.sqrt((x @ x) * (y @ y)))
    return value if np.isfinite(value) else 0.0


def run_here(path: str, signature: str, device: str, inputs: str, outputs: str) -> None:
    """The child process: one signature on one device, arrays from and to files."""
    from ai_edge_litert.compiled_model import CompiledModel
    from ai_edge_litert.hardware_accelerator import HardwareAccelerator
    from ai_edge_litert.options import CpuOptions, GpuOptions, Options

    if device == "cpu":
        options = Options(HardwareAccelerator.CPU, cpu_options=CpuOptions(num_threads=1))
    else:  # the GPU alone: with the CPU allowed, refused operators would go there
        options = Options(HardwareAccelerator.GPU, gpu_options=GpuOptions(enforce_f32=device == "gpu32"))
    model = CompiledModel.from_file(path, options=options)
    given = np.load(inputs)
    sources = {name: model.create_input_buffer_by_name(signature, name) for name in given}
    for name, buffer in sources.items():
        buffer.write(given[name])
    details = model.get_output_tensor_details(signature)
    targets = {name: model.create_output_buffer_by_name(signature, name) for name in details}
    model.run_by_name(signature, sources, targets)
    shapes = {name: tuple(int(side) for side in detail["shape"]) for name, detail in details.items()}
    results = {name: targets[name].read(int(np.prod(shapes[name])), np.float32) for name in details}
    np.savez(outputs, **{name: values.reshape(shapes[name]) for name, values in results.items()})  # type: ignore[arg-type]


def main(arguments: list[str]) -> int:
    """Report on every signature of the given files, or be the child of ``run_on_gpu``."""
    if len(arguments) == 5 and arguments[2] in ("cpu", "gpu16", "gpu32"):
        run_here(*arguments)
        return 0
    parser = argparse.ArgumentParser(
        prog=f"python -m {MODULE}",
        description="Run TFLite files on LiteRT's GPU accelerator and compare with the CPU. Exits with 0 if all "
        "operators ran on the GPU with the CPU's numbers, 1 if not, 2 without a Vulkan driver.",
        epilog=f"example: python -m {MODULE} dist/tflite/mobile_sam_encoder.tflite",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="a .tflite file")
    files: list[Path] = parser.parse_args(arguments).files
    driver = vulkan_driver()
    if driver is None:
        print("GPU delegate: not run (no Vulkan driver; on Debian: apt-get install chromium libvulkan1)")
        return 2
    passed = True
    for path in files:
        try:
            signatures = read_model(path).signatureDefs
        except ExportError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        for entry in signatures:
            report = run_on_gpu(path, driver, entry.signatureKey.decode())
            passed &= report.passed
            print(json.dumps({"file": report.file, "signature": report.signature, **report.as_dict()}, indent=2))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
