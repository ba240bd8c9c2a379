"""CPU latency of the TFLite files against ONNX Runtime, in one interleaved run on the same threads.

    python benchmarks/tflite_latency.py                   # the bundled weights, 1 and 2 threads, about ten minutes
    python benchmarks/tflite_latency.py --threads 2 --rounds 5 --precisions float32 --image-size 512

"ORT plain" is the reference exported without rewrites; "ORT ours" is this project's ONNX file. LiteRT runs through its
Interpreter (XNNPACK). One click needs two slots: ONNX Runtime's decoders get two, LiteRT's the eight of the default
export and, as a contender of its own, two. The contenders take turns, round by round: quote the ratios, not the
milliseconds. Nothing here says anything about a phone.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import ai_edge_litert
import numpy as np
import onnx
from rich.console import Console
from rich.table import Table

from benchmarks import RESULTS
from benchmarks.interleaved import PHOTO, Timing, console, interleave, machine, ratio_to, require_a_round
from mobilesam_export.contract import Contract
from mobilesam_export.model_frame import model_frame
from mobilesam_export.rewrites.plain import PlainImageEncoder, PlainPromptDecoder
from mobilesam_export.targets.onnx import write as to_onnx
from mobilesam_export.targets.onnx.runtime import session
from mobilesam_export.targets.tflite import write as to_tflite
from mobilesam_export.targets.tflite.runtime import TFLiteRuntime
from reference import MobileSam, load_mobile_sam
from reference.checkpoint import weights_sha256
from reference.images import read_image
from reference.transforms import resize_longest_side

BASE = "ORT plain"


def write_files(sam: MobileSam, folder: Path, precisions: list[str]) -> dict[str, list[Path]]:
    """Encoder and decoder of every contender."""
    contract = Contract(sam.image_size)
    plain = [folder / "plain_encoder.onnx", folder / "plain_decoder.onnx"]
    graphs = (
        (PlainImageEncoder(sam), contract.encoder_inputs, contract.encoder_outputs),
        (PlainPromptDecoder(sam), contract.decoder_inputs, contract.decoder_outputs),
    )
    for path, (module, inputs, outputs) in zip(plain, graphs, strict=True):
        onnx.save(to_onnx.export_graph(module.eval(), inputs, outputs, 18), path)
    files = {BASE: plain}
    (folder / "onnx").mkdir()
    files["ORT ours"] = to_onnx.write(sam, folder / "onnx")
    for precision in precisions:
        console.print(f"exporting TFLite {precision}")
        (folder / precision).mkdir()
        files[f"LiteRT {precision}"] = to_tflite.write(sam, folder / precision, precision=precision)
    console.print("exporting TFLite float32 with 2 slots")
    (folder / "two").mkdir()
    files["LiteRT float32, 2 slots"] = to_tflite.write(sam, folder / "two", max_points=2)
    return files


def runners(files: dict[str, list[Path]], threads: int, feeds: dict[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """For encoder and decoder, a function a contender."""
    encode: dict[str, Callable[[], object]] = {}
    decode: dict[str, Callable[[], object]] = {}
    image = {"image": feeds["image"]}
    prompt = {name: value for name, value in feeds.items() if name != "image"}
    for name, (encoder, decoder) in files.items():
        if encoder.suffix == ".onnx":
            encode[name] = partial(session(encoder, threads).run, None, image)
            decode[name] = partial(session(decoder, threads).run, None, prompt)
        else:  # through the signature itself, so that the wrapper's transposes are not timed
            runtime = TFLiteRuntime(encoder, decoder, threads=threads)
            slots = runtime.max_points
            coords, labels = np.zeros((1, slots, 2), np.float32), np.full((1, slots), -2, np.float32)
            coords[:, :2], labels[:, :2] = prompt["point_coords"], prompt["point_labels"]
            cells = np.ascontiguousarray(prompt["image_embeddings"].transpose(0, 2, 3, 1))
            filled = prompt | {"point_coords": coords, "point_labels": labels, "image_embeddings": cells}
            pixels = np.ascontiguousarray(feeds["image"].transpose(0, 2, 3, 1))
            encode[name] = partial(runtime._encoder, image=pixels)
            decode[name] = partial(runtime._decoder, **filled)
    return {"encoder": encode, "decoder": decode}


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything, as it goes into the JSON file."""
    sam = load_mobile_sam(arguments.checkpoint, arguments.image_size)
    side = sam.image_size
    embeddings = np.random.default_rng(0).standard_normal((1, 256, side // 16, side // 16)).astype(np.float32)
    feeds = {
        "image": model_frame(resize_longest_side(read_image(PHOTO), side), side),
        "image_embeddings": embeddings,
        "point_coords": np.array([[[side / 2, side / 3], [0, 0]]], np.float32),
        "point_labels": np.array([[1, -1]], np.float32),
        "mask_input": np.zeros((1, 1, side // 4, side // 4), np.float32),
        "has_mask_input": np.zeros(1, np.float32),
    }
    result: dict[str, Any] = {"image_size": side, "weights": sam.weights_source, "weights_sha256": weights_sha256(sam)}
    result["rounds"] = arguments.rounds
    result["machine"] = {**machine(), "ai_edge_litert": ai_edge_litert.__version__}
    result["latency"], result["size_mb"] = {}, {}
    with tempfile.TemporaryDirectory() as temporary:
        files = write_files(sam, Path(temporary), arguments.precisions)
        for name, paths in files.items():
            result["size_mb"][name] = [round(path.stat().st_size / 1e6, 2) for path in paths]
        for threads in arguments.threads:
            for graph, contenders in runners(files, threads, feeds).items():
                rounds = arguments.rounds * (1 if graph == "encoder" else 5)
                timings = interleave(contenders, rounds, f"{graph}, {threads} thread(s)")
                result["latency"][f"{graph}/{threads}"] = {name: row(timings, name) for name in timings}
    return result


def row(timings: dict[str, Timing], name: str) -> dict[str, float]:
    """One contender's figures; the ratio is of times, below 1 is faster than the plain export in ONNX Runtime."""
    return {
        "p50_ms": timings[name].percentile(50),
        "p90_ms": timings[name].percentile(90),
        "time_over_ort_plain": 1 / ratio_to(timings, BASE, name),
    }


def print_tables(result: dict[str, Any]) -> None:
    """Tables on the terminal."""
    out = Console(width=max(90, Console().width))
    for key, rows in result["latency"].items():
        graph, threads = key.split("/")
        table = Table(title=f"{graph}, {threads} thread(s), S = {result['image_size']}")
        for heading in ("", "p50 ms", "p90 ms", "time / ORT plain", "file MB"):
            table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
        for name, figures in rows.items():
            size = result["size_mb"][name][0 if graph == "encoder" else 1]
            values = (f"{figures['p50_ms']:.1f}", f"{figures['p90_ms']:.1f}", f"{figures['time_over_ort_plain']:.2f}")
            table.add_row(name, *values, f"{size:.1f}")
        out.print(table)


def markdown(result: dict[str, Any]) -> str:
    """Time over ORT plain, for the README."""
    columns = {key: f"{key.split('/')[0]}, {key.split('/')[1]} thread(s)" for key in result["latency"]}
    lines = ["| time / ORT plain | " + " | ".join(columns.values()) + " |", "|---" * (len(columns) + 1) + "|"]
    for name in result["size_mb"]:
        ratios = [f"{result['latency'][key][name]['time_over_ort_plain']:.2f}" for key in columns]
        lines.append(f"| {name} | " + " | ".join(ratios) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="demo", help="speed hardly depends on the weights")
    parser.add_argument("--image-size", type=int, default=1024)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=15, help="of the encoder; the decoder gets five times as many")
    parser.add_argument("--precisions", nargs="+", default=["float32", "float16", "int8_dynamic"])
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the JSON file")
    arguments = parser.parse_args()
    require_a_round(parser, arguments.rounds, arguments.threads)
    result = measure(arguments)
    print_tables(result)
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "tflite_latency.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    path.with_suffix(".md").write_text(markdown(result))
    print(path, path.with_suffix(".md"), sep="\n")


if __name__ == "__main__":
    main()
