"""Where the time of a TFLite file goes on the CPU: milliseconds by operator, from LiteRT's own profiler.

    python -m benchmarks.litert_profile dist/tflite/mobile_sam_encoder.tflite

One thread, one signature, random inputs; the fastest of several runs. XNNPACK tells its operators by kernel, as "Fully
Connected (NC, F32) GEMM". The profiler is in the C library of ai-edge-litert and not in its Python interface, so the
library is called as its headers declare it.
"""

import argparse
import ctypes
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ai_edge_litert
import numpy as np
from rich.console import Console
from rich.table import Table

from mobilesam_export.chatter import without_native_chatter

CPU, WRITE, DELEGATED_OPERATOR = 1, 1, 8  # of the library's enumerations
SIZE = ctypes.c_size_t


class _Layout(ctypes.Structure):
    _fields_ = (
        ("rank", ctypes.c_uint32, 7),
        ("has_strides", ctypes.c_uint32, 1),
        ("sides", ctypes.c_int32 * 8),
        ("strides", ctypes.c_uint32 * 8),
    )


class _TensorType(ctypes.Structure):
    _fields_ = (("element", ctypes.c_int), ("layout", _Layout))


class _Event(ctypes.Structure):
    _fields_ = (
        ("tag", ctypes.c_char_p),
        ("kind", ctypes.c_int),
        ("begin_us", ctypes.c_uint64),
        ("elapsed_us", ctypes.c_uint64),
        ("memory", SIZE * 6),
        ("metadata", ctypes.c_uint64 * 2),
        ("source", ctypes.c_int),
    )


@dataclass(frozen=True)
class Profile:
    """One run: its wall time, and for each operator how often it ran and how long in all."""

    wall_ms: float
    counts: dict[str, int]
    times_ms: dict[str, float]


class _Library:
    """LiteRT's C functions; each returns a status, and most put a handle out last."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(str(Path(ai_edge_litert.__file__).with_name("libLiteRt.so")))

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function.

        Raises:
            RuntimeError: its status is not 0.
        """
        if status := getattr(self._library, name)(*arguments):
            raise RuntimeError(f"{name} gives status {status}; is ai-edge-litert another version than 2.3?")

    def get(self, name: str, *arguments: Any) -> ctypes.c_void_p:
        """The handle that a function puts out."""
        handle = ctypes.c_void_p()
        self.call(name, *arguments, ctypes.byref(handle))
        return handle


def profile(path: Path, runs: int = 5) -> Profile:
    """Run a file's first signature and take the fastest of ``runs``."""
    library = _Library()
    with without_native_chatter():
        environment = library.get("LiteRtCreateEnvironment", 0, None)
        model = library.get("LiteRtCreateModelFromFile", environment, str(path).encode())
        options = library.get("LiteRtCreateOptions")
        library.call("LiteRtSetOptionsHardwareAccelerators", options, CPU)
        payload = ctypes.create_string_buffer(b"enable_profiling = true\n")
        keep = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: None)  # Python frees the payload
        own = library.get("LiteRtCreateOpaqueOptions", b"runtime_options_string", payload, keep)
        library.call("LiteRtAddOpaqueOptions", options, own)
        compiled = library.get("LiteRtCreateCompiledModel", environment, model, options)
        inputs, outputs = (_buffers(library, environment, model, compiled, kind) for kind in ("Input", "Output"))
        profiler = library.get("LiteRtCompiledModelGetProfiler", compiled)
        found = []
        for _ in range(runs + 1):
            library.call("LiteRtResetProfiler", profiler)
            library.call("LiteRtStartProfiler", profiler)
            begin = time.perf_counter()
            library.call(
                "LiteRtRunCompiledModel", compiled, SIZE(0), SIZE(len(inputs)), inputs, SIZE(len(outputs)), outputs
            )
            wall_ms = 1e3 * (time.perf_counter() - begin)
            library.call("LiteRtStopProfiler", profiler)
            found.append(_read(library, profiler, wall_ms))
    return min(found[1:], key=lambda each: each.wall_ms)


def _buffers(library: _Library, environment: Any, model: Any, compiled: Any, kind: str) -> Any:
    """A buffer for each input or output of the first signature; inputs are noise in [0, 1]."""
    signature, count, buffers = library.get("LiteRtGetModelSignature", model, SIZE(0)), SIZE(), []
    library.call(f"LiteRtGetNumSignature{kind}s", signature, ctypes.byref(count))
    for i in range(count.value):
        tensor, shape = library.get(f"LiteRtGetSignature{kind}TensorByIndex", signature, SIZE(i)), _TensorType()
        library.call("LiteRtGetRankedTensorType", tensor, ctypes.byref(shape))
        needs = library.get(f"LiteRtGetCompiledModel{kind}BufferRequirements", compiled, SIZE(0), SIZE(i))
        buffers.append(
            library.get("LiteRtCreateManagedTensorBufferFromRequirements", environment, ctypes.byref(shape), needs)
        )
        if kind == "Input":
            noise = np.random.default_rng(0).random(list(shape.layout.sides)[: shape.layout.rank], np.float32)
            memory = ctypes.c_void_p()
            library.call("LiteRtLockTensorBuffer", buffers[-1], ctypes.byref(memory), WRITE)
            ctypes.memmove(memory, noise.ctypes.data, noise.nbytes)
            library.call("LiteRtUnlockTensorBuffer", buffers[-1])
    return (ctypes.c_void_p * len(buffers))(*(each.value for each in buffers))


def _read(library: _Library, profiler: Any, wall_ms: float) -> Profile:
    count = ctypes.c_int()
    library.call("LiteRtGetNumProfilerEvents", profiler, ctypes.byref(count))
    events = (_Event * count.value)()
    library.call("LiteRtGetProfilerEvents", profiler, count, events)
    counts: Counter[str] = Counter()
    times_ms: dict[str, float] = defaultdict(float)
    for event in events:
        if event.kind == DELEGATED_OPERATOR:
            counts[event.tag.decode()] += 1
            times_ms[event.tag.decode()] += event.elapsed_us / 1e3
    return Profile(wall_ms, dict(counts), dict(times_ms))


def main() -> None:
    """Parse the command line, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="of float32 inputs")
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    found = profile(arguments.file, arguments.runs)
    table = Table(title=f"{arguments.file.name}, one thread: {found.wall_ms:.0f} ms")
    for heading in ("operator", "count", "ms"):
        table.add_column(heading, justify="left" if heading == "operator" else "right")
    for name, spent in sorted(found.times_ms.items(), key=lambda item: -item[1]):
        table.add_row(name, str(found.counts[name]), f"{spent:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
