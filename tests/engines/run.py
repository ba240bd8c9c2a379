"""Run a pair of ONNX files in another engine: ``python run.py ENGINE ENCODER DECODER FEEDS.npz ANSWERS.npz``.

A process of its own, which imports nothing but the engine: an importer that does not like a file ends in a
segmentation fault (OpenCV's did), and two engines in one process fight over their threads.

FEEDS holds ``image`` and, for P prompts, ``point_coords`` (P, N, 2), ``point_labels`` (P, N), ``mask_input`` (P, 1,
S/4, S/4) and ``has_mask_input`` (P,). ANSWERS gets ``image_embeddings``, ``low_res_masks`` (P, 4, S/4, S/4) and
``iou_predictions`` (P, 4).
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Graph = Callable[[dict[str, Floats]], list[Floats]]

MASKS = ["low_res_masks", "iou_predictions"]


def opencv(path: Path, inputs: list[str], outputs: list[str]) -> Graph:
    """OpenCV's DNN module; it wants to be told every input again before each pass."""
    import cv2

    net = cv2.dnn.readNetFromONNX(str(path))

    def run(feeds: dict[str, Floats]) -> list[Floats]:
        for name in inputs:
            net.setInput(feeds[name], name)
        return [np.array(output) for output in net.forward(outputs)]

    return run


def openvino(path: Path, inputs: list[str], outputs: list[str]) -> Graph:
    """OpenVINO, told to compute in float32: on CPUs with bfloat16 it would not by itself."""
    import openvino

    model = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(feeds: dict[str, Floats]) -> list[Floats]:
        answers = model({name: feeds[name] for name in inputs})
        return [np.array(answers[name]) for name in outputs]

    return run


def mnn(path: Path, inputs: list[str], outputs: list[str]) -> Graph:
    """MNN, over its own format.

    Its converter is called below its command line, which installs a package and sends statistics home.
    """
    import _tools
    from MNN import expr, nn

    converted = path.with_suffix(".mnn")
    arguments = ["-f", "ONNX", "--modelFile", str(path), "--MNNModel", str(converted), "--bizCode", "test"]
    _tools.mnnconvert(["mnnconvert", *arguments])
    runtime = nn.create_runtime_manager(({"backend": 0, "precision": "high", "numThread": 1},))
    module = nn.load_module_from_file(str(converted), inputs, outputs, runtime_manager=runtime)

    def run(feeds: dict[str, Floats]) -> list[Floats]:
        tensors = []
        for name in inputs:
            tensors.append(expr.placeholder(list(feeds[name].shape), expr.NCHW, expr.float))
            tensors[-1].write(np.ascontiguousarray(feeds[name]))
        return [np.array(expr.convert(output, expr.NCHW).read()) for output in module.forward(tensors)]

    return run


ENGINES = {"opencv": opencv, "openvino": openvino, "mnn": mnn}


def main(engine: str, encoder: str, decoder: str, feeds: str, answers: str) -> None:
    """One encoder pass, then one decoder pass a prompt."""
    given = dict(np.load(feeds))
    encode = ENGINES[engine](Path(encoder), ["image"], ["image_embeddings"])
    (embedding,) = encode({"image": given.pop("image")})
    decode = ENGINES[engine](Path(decoder), ["image_embeddings", *given], MASKS)
    prompts = range(len(given["point_labels"]))
    rows = [
        decode({"image_embeddings": embedding, **{name: values[i : i + 1] for name, values in given.items()}})
        for i in prompts
    ]
    masks, iou = (np.concatenate([row[output] for row in rows]) for output in range(len(MASKS)))
    np.savez(answers, image_embeddings=embedding, low_res_masks=masks, iou_predictions=iou)


if __name__ == "__main__":
    main(*sys.argv[1:])
