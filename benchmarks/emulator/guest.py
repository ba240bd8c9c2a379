"""Answers for a pair of files inside the emulated Python: ``python guest.py ENCODER DECODER``.

Imports NumPy and the files' runtime, nothing else. A request comes on standard input, its answer goes to standard
output, each as eight bytes of length (big-endian) and an .npz file. A request holds ``graph`` (``encode`` or
``decode``) and named arrays, of which the graph takes what it knows; the answer holds the graph's outputs. What a
plugin of QEMU has counted when the answer comes is one run of the graph, see count_instructions.c.
"""

import ctypes
import io
import os
import sys
from collections.abc import Callable

import numpy as np

MARK_SYSCALL = 7777
Arrays = dict[str, np.ndarray]
Graph = Callable[[Arrays], Arrays]


def onnx(path: str) -> Graph:
    """ONNX Runtime with one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # it warns of what the emulated machine does not tell of itself
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(given: Arrays) -> Arrays:
        feeds = {entry.name: given[entry.name] for entry in session.get_inputs()}
        outputs = counted(lambda: session.run(names, feeds))
        return dict(zip(names, outputs, strict=True))

    return run


def tflite(path: str, signature: str) -> Graph:
    """LiteRT's interpreter with XNNPACK and one thread."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=path, num_threads=1)
    interpreter.allocate_tensors()
    runner = interpreter.get_signature_runner(signature)
    inputs = runner.get_input_details()

    def run(given: Arrays) -> Arrays:
        feeds = {name: given[name].astype(details["dtype"]) for name, details in inputs.items()}
        return counted(lambda: runner(**feeds))

    return run


def counted(run: Callable[[], Arrays]) -> Arrays:
    """Mark the beginning and the end of a run; outside the emulator the calls do nothing."""
    call = ctypes.CDLL(None).syscall
    call(MARK_SYSCALL, 0)
    outputs = run()
    call(MARK_SYSCALL, 1)
    return outputs


def main(encoder: str, decoder: str) -> None:
    """Answer until standard input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the runtimes print must not come between the answers
    paths = {"encode": encoder, "decode": decoder}
    graphs = {name: onnx(path) if path.endswith(".onnx") else tflite(path, name) for name, path in paths.items()}
    while size := sys.stdin.buffer.read(8):
        request = dict(np.load(io.BytesIO(sys.stdin.buffer.read(int.from_bytes(size, "big")))))
        file = io.BytesIO()
        np.savez(file, **graphs[str(request.pop("graph"))](request))  # type: ignore[arg-type]  # see arm64.py
        answers.write(len(file.getvalue()).to_bytes(8, "big") + file.getvalue())
        answers.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
