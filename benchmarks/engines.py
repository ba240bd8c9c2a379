"""An ONNX file as a function in other engines than ONNX Runtime; each is imported when it is asked for."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Graph = Callable[[dict[str, Floats]], list[Floats]]


def opencv(path: Path, inputs: list[str], outputs: list[str], threads: int) -> Graph:
    """OpenCV's DNN module; it wants to be told every input again before each pass."""
    import cv2

    cv2.setNumThreads(threads)
    net = cv2.dnn.readNetFromONNX(str(path))

    def run(feeds: dict[str, Floats]) -> list[Floats]:
        for name in inputs:
            net.setInput(feeds[name], name)
        return [np.array(output) for output in net.forward(outputs)]

    return run


def openvino(path: Path, inputs: list[str], outputs: list[str], threads: int) -> Graph:
    """OpenVINO, told to compute in float32: on CPUs with bfloat16 it would not by itself."""
    import openvino

    hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    model = openvino.Core().compile_model(path, "CPU", hints)

    def run(feeds: dict[str, Floats]) -> list[Floats]:
        answers = model({name: feeds[name] for name in inputs})
        return [np.array(answers[name]) for name in outputs]

    return run


def mnn(path: Path, inputs: list[str], outputs: list[str], threads: int) -> Graph:
    """MNN, over its own format, written beside the file.

    Its converter is called below its command line, which installs a package and sends statistics home.
    """
    import _tools
    from MNN import expr, nn

    converted = path.with_suffix(".mnn")
    arguments = ["-f", "ONNX", "--modelFile", str(path), "--MNNModel", str(converted), "--bizCode", "test"]
    _tools.mnnconvert(["mnnconvert", *arguments])
    runtime = nn.create_runtime_manager(({"backend": 0, "precision": "high", "numThread": threads},))
    module = nn.load_module_from_file(str(converted), inputs, outputs, runtime_manager=runtime)

    def run(feeds: dict[str, Floats]) -> list[Floats]:
        tensors = []
        for name in inputs:
            tensors.append(expr.placeholder(list(feeds[name].shape), expr.NCHW, expr.float))
            tensors[-1].write(np.ascontiguousarray(feeds[name]))
        return [np.array(expr.convert(output, expr.NCHW).read()) for output in module.forward(tensors)]

    return run


ENGINES = {"opencv": opencv, "openvino": openvino, "mnn": mnn}
PACKAGES = {"opencv": "cv2", "openvino": "openvino", "mnn": "MNN"}  # what each is imported as
