"""The files that `cpu_latency` times: what people export today, ours, and the same models in other engines."""

import importlib.util
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import nn

from benchmarks.engines import ENGINES, PACKAGES
from benchmarks.interleaved import console
from mobilesam_export.chatter import without_native_chatter
from mobilesam_export.contract import Contract, Port
from mobilesam_export.point_slots import fill_slots
from mobilesam_export.rewrites.plain import PlainPromptDecoder
from mobilesam_export.targets.executorch.programs import METHOD, load
from mobilesam_export.targets.executorch.write import write as write_executorch
from mobilesam_export.targets.onnx.runtime import session
from mobilesam_export.targets.onnx.write import DEFAULT_OPSET, NEW_OPSET, write
from mobilesam_export.targets.tflite.engines import InterpreterSignature
from mobilesam_export.targets.tflite.write import write as write_tflite
from reference import MobileSam

BASE = "official style"
Feeds = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Contender:
    """A file and who runs it."""

    path: Path
    engine: Literal["onnxruntime", "openvino", "mnn", "litert", "executorch"] = "onnxruntime"
    save_memory: bool = False  # as `load_bundle` opens the encoder; others are opened with ONNX Runtime's defaults


def write_contenders(sam: MobileSam, folder: Path) -> dict[str, dict[str, Contender]]:
    """Export everything: graph -> name -> contender, the yardstick first, peers as far as they are installed."""
    contract = Contract(sam.image_size)
    console.print(f"exporting the files of {sam.image_size} pixels")
    contenders: dict[str, dict[str, Contender]] = {"encoder": {}, "decoder": {}}
    for graph, module, inputs, outputs in (
        # What people export takes a normalised image; ours normalises in the graph.
        ("encoder", sam.image_encoder, contract.encoder_inputs, contract.encoder_outputs),
        ("decoder", PlainPromptDecoder(sam), contract.decoder_inputs, contract.decoder_outputs),
    ):
        style, new = folder / f"style_{graph}.onnx", folder / f"new_{graph}.onnx"
        _export_in_official_style(module.eval(), inputs, outputs, style)
        _export_by_new_exporter(module, inputs, outputs, new)
        contenders[graph] = {BASE: Contender(style), "new exporter": Contender(new)}
    encoders, decoders = contenders["encoder"], contenders["decoder"]
    quantised = folder / "style_int8_encoder.onnx"
    logging.disable(logging.WARNING)  # of shapes that it cannot infer, one warning a tensor
    quantize_dynamic(encoders[BASE].path, quantised, per_channel=False, weight_type=QuantType.QUInt8)
    logging.disable(logging.NOTSET)
    encoders[f"{BASE}, int8"] = Contender(quantised)
    for name, opset, precision in (
        ("ours", DEFAULT_OPSET, "float32"),
        ("ours, opset 23", NEW_OPSET, "float32"),
        ("ours, int8", DEFAULT_OPSET, "int8"),
    ):
        into = folder / name.replace(", ", "_").replace(" ", "_")
        into.mkdir()
        encoder, decoder = write(sam, into, opset=opset, precision=precision)
        encoders[name] = Contender(encoder, save_memory=True)
        if precision == "float32":  # int8 leaves the decoder in float32
            decoders[name] = Contender(decoder)
    for precision in ("float32", "int8_dynamic"):
        console.print(f"exporting LiteRT's files, {precision}")
        into = folder / f"litert_{precision}"
        into.mkdir()
        encoder, decoder = write_tflite(sam, into, precision=precision)
        encoders[f"LiteRT, {precision}"] = Contender(encoder, "litert")
        decoders[f"LiteRT, {precision}"] = Contender(decoder, "litert")
    for precision in ("float32", "int8_dynamic") if importlib.util.find_spec("executorch") else ():
        console.print(f"exporting ExecuTorch's files, {precision}")
        into = folder / f"executorch_{precision}"
        into.mkdir()
        encoder, decoder = write_executorch(sam, into, precision=precision)
        encoders[f"ExecuTorch, {precision}"] = Contender(encoder, "executorch")
        if precision == "float32":  # int8 leaves the decoder in float32
            decoders[f"ExecuTorch, {precision}"] = Contender(decoder, "executorch")
    for named in contenders.values():
        if importlib.util.find_spec(PACKAGES["openvino"]):
            named[f"OpenVINO, {BASE}"] = Contender(named[BASE].path, "openvino")
            named["OpenVINO, ours"] = Contender(named["ours"].path, "openvino")
        if importlib.util.find_spec(PACKAGES["mnn"]):
            named["MNN, ours"] = Contender(named["ours"].path, "mnn")
    return contenders


def open_contender(contender: Contender, threads: int, feeds: Feeds, outputs: list[str]) -> Callable[[], object]:
    """A function that runs the file once on the feeds, which are in ONNX's layout."""
    if contender.engine == "onnxruntime":
        opened = session(contender.path, threads, save_memory=contender.save_memory)
        return lambda: opened.run(outputs, feeds)
    if contender.engine == "litert":
        return _litert(contender.path, threads, feeds)
    if contender.engine == "executorch":
        return _executorch(contender.path, threads, feeds)
    with without_native_chatter():  # of MNN's converter
        run = ENGINES[contender.engine](contender.path, list(feeds), outputs, threads)
    return lambda: run(feeds)


def _litert(path: Path, threads: int, feeds: Feeds) -> Callable[[], object]:
    """The signature itself, with feeds in its layout, so that no transpose of ours is timed."""
    signature = InterpreterSignature(path, "encode" if "image" in feeds else "decode", threads)
    slots = signature.inputs["point_coords"].shape[1] if "point_coords" in feeds else 0
    given: dict[str, Any] = _channels_last(feeds, slots)
    return lambda: signature(**given)


def _executorch(path: Path, threads: int, feeds: Feeds) -> Callable[[], object]:
    """The method itself, likewise; its threads are of the whole process."""
    from executorch.extension.pybindings import portable_lib

    with without_native_chatter():
        portable_lib._unsafe_reset_threadpool(threads)
    method = load(path).load_method(METHOD)
    slots = method.metadata.input_tensor_meta(1).sizes()[1] if "point_coords" in feeds else 0
    given = [torch.from_numpy(value) for value in _channels_last(feeds, slots).values()]
    return lambda: method.execute(given)


def _channels_last(feeds: Feeds, slots: int) -> Feeds:
    """Feeds in the layout of LiteRT's and ExecuTorch's files, their points in that many slots."""
    given = {
        name: np.ascontiguousarray(value.transpose(0, 2, 3, 1)) if name in ("image", "image_embeddings") else value
        for name, value in feeds.items()
    }
    if "point_coords" in given:
        given["point_coords"], given["point_labels"] = fill_slots(given["point_coords"], given["point_labels"], slots)
    return given


def _examples(inputs: tuple[Port, ...]) -> tuple[torch.Tensor, ...]:
    """An example of each input, with one prompt of two points (a click and the padding point)."""
    sizes = {"prompts": 1, "points": 2}
    return tuple(torch.zeros([sizes[s] if isinstance(s, str) else s for s in port.shape]) for port in inputs)


def _export_in_official_style(
    module: nn.Module, inputs: tuple[Port, ...], outputs: tuple[Port, ...], path: Path
) -> None:
    dynamic = {
        port.name: {i: size for i, size in enumerate(port.shape) if isinstance(size, str)}
        for port in (*inputs, *outputs)
    }
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an old exporter that is still the one in use
        torch.onnx.export(
            module, _examples(inputs), str(path), dynamo=False, opset_version=17, do_constant_folding=True,
            input_names=[port.name for port in inputs], output_names=[port.name for port in outputs],
            dynamic_axes={name: axes for name, axes in dynamic.items() if axes},
        )  # fmt: skip


def _export_by_new_exporter(module: nn.Module, inputs: tuple[Port, ...], outputs: tuple[Port, ...], path: Path) -> None:
    with torch.no_grad():
        program = torch.onnx.export(
            module, _examples(inputs), dynamo=True, verbose=False,
            input_names=[port.name for port in inputs], output_names=[port.name for port in outputs],
        )  # fmt: skip
    assert program is not None
    onnx.save(program.model_proto, path)
