"""CPU latency of the exported ONNX files, as a user of ONNX Runtime would see it.

    python benchmarks/cpu_latency.py                  # the bundled weights, 1 and 2 threads, about six minutes
    python benchmarks/cpu_latency.py --rounds 3 --threads 1 --image-size 512

Method. Encoder and decoder are timed apart, one prompt (one click) at a time; so are the host's pre- and
post-processing. The contenders take turns, round by round, so that a machine that slows down slows all of
them: quote the ratios, not the milliseconds. "plain" is the same exporter on the reference without rewrites,
"plain + onnxsim" that file simplified, "PyTorch" the reference in eager mode. Cold load (first session and
first run) and peak memory come from a fresh process for each file. The roofline is a float32 matrix product
measured in the same run.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import numpy as np
import onnx
import onnxsim
import torch
from matplotlib import pyplot as plt
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import RESULTS
from benchmarks.interleaved import PHOTO, Timing, console, interleave, machine, ratio_to, require_a_round
from mobilesam_export.bundle.predictor import decoder_points
from mobilesam_export.contract import Contract
from mobilesam_export.model_frame import model_frame
from mobilesam_export.rewrites.plain import PlainImageEncoder, PlainPromptDecoder
from mobilesam_export.targets.onnx.runtime import session
from mobilesam_export.targets.onnx.write import export_graph, write
from reference import MobileSam, Predictor, load_mobile_sam
from reference.images import read_image
from reference.prompts import check_prompts
from reference.transforms import logits_to_masks, resize_longest_side


def sgemm_gflops(threads: int) -> float:
    """Best of several float32 1024-cubed matrix products, in GFLOP/s."""
    torch.set_num_threads(threads)
    a, b = torch.randn(2, 1024, 1024)
    best = float("inf")
    for _ in range(20):
        begin = time.perf_counter()
        torch.mm(a, b)
        best = min(best, time.perf_counter() - begin)
    return 2 * 1024**3 / best / 1e9


def measure_cold(path: Path, feeds: Path, save_memory: bool) -> dict[str, float]:
    """Load time, first run and peak memory of one file in a process of its own."""
    command = [sys.executable, str(Path(__file__).with_name("cold_start.py")), str(path), str(feeds)]
    command += ["--save-memory"] if save_memory else []
    measured: dict[str, float] = json.loads(
        subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    )
    return measured


def encoder_gflop(sam: MobileSam) -> float:
    """Matrix and convolution work of one encoder pass, multiply and add counted apart."""
    side = sam.image_size
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        sam.image_encoder(torch.zeros(1, 3, side, side))
    return float(counter.get_total_flops()) / 1e9


def write_files(sam: MobileSam, folder: Path) -> dict[str, dict[str, Path]]:
    """Export the contenders: graph -> contender -> file."""
    contract = Contract(sam.image_size)
    console.print("exporting the plain and the deploy-shaped files")
    ours = write(sam, folder)
    files: dict[str, dict[str, Path]] = {"encoder": {}, "decoder": {}}
    for graph, module, inputs, outputs, file in (
        ("encoder", PlainImageEncoder(sam), contract.encoder_inputs, contract.encoder_outputs, ours[0]),
        ("decoder", PlainPromptDecoder(sam), contract.decoder_inputs, contract.decoder_outputs, ours[1]),
    ):
        plain = folder / f"plain_{graph}.onnx"
        model = export_graph(module.eval(), inputs, outputs, 18)
        onnx.save(model, plain)
        simplified = folder / f"plain_onnxsim_{graph}.onnx"
        onnx.save(onnxsim.simplify(model)[0], simplified)
        ours_simplified = folder / f"ours_onnxsim_{graph}.onnx"
        onnx.save(onnxsim.simplify(onnx.load(file))[0], ours_simplified)
        files[graph] = {
            "plain": plain,
            "plain + onnxsim": simplified,
            "ours": file,
            "ours + onnxsim": ours_simplified,
        }
    opset_17 = folder / "opset_17"
    opset_17.mkdir()
    for graph, file in zip(("encoder", "decoder"), write(sam, opset_17, opset=17), strict=True):
        files[graph]["ours, opset 17"] = file
    int8 = folder / "int8"
    int8.mkdir()
    files["encoder"]["ours, int8"] = write(sam, int8, precision="int8")[0]
    return files


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything, as it goes into the JSON file."""
    sam = load_mobile_sam(arguments.checkpoint, arguments.image_size)
    photo = read_image(PHOTO)
    size = (photo.shape[0], photo.shape[1])
    click = np.array([[[size[1] / 2, size[0] / 2]]])
    predictor = Predictor(sam)
    predictor.set_image(photo)
    assert predictor.image_embeddings is not None
    prompts = check_prompts(click, np.ones((1, 1)), None, None, size, sam.image_size)
    coords, labels = decoder_points(prompts)
    low_res = sam.image_size // 4
    feeds = {
        "encoder": {"image": model_frame(resize_longest_side(photo, sam.image_size), sam.image_size)},
        "decoder": {
            "image_embeddings": predictor.image_embeddings,
            "point_coords": coords,
            "point_labels": labels,
            "mask_input": np.zeros((1, 1, low_res, low_res), np.float32),
            "has_mask_input": np.zeros(1, np.float32),
        },
    }
    logits = predictor.predict_logits(click, np.ones((1, 1)))[1][:, :1]
    result: dict[str, Any] = {
        "encoder_gflop": encoder_gflop(sam),
        "latency": {},
        "roofline_gflops": {},
        "cold": {},
        "size_bytes": {},
    }
    with tempfile.TemporaryDirectory() as temporary:
        files = write_files(sam, Path(temporary))
        for graph, named in files.items():
            np.savez(Path(temporary) / f"{graph}.npz", **feeds[graph])  # type: ignore[arg-type]
            for name, path in named.items():
                result["size_bytes"][f"{graph}/{name}"] = path.stat().st_size
                feeds_path = Path(temporary) / f"{graph}.npz"
                result["cold"][f"{graph}/{name}"] = measure_cold(path, feeds_path, graph == "encoder")
        for threads in arguments.threads:
            result["roofline_gflops"][threads] = sgemm_gflops(threads)
            for graph, named in files.items():
                contenders: dict[str, Callable[[], object]] = {}
                for name, path in named.items():
                    contenders[name] = _runner(path, threads, feeds[graph], save_memory=graph == "encoder")
                contenders["PyTorch"] = _eager(graph, sam, feeds[graph])
                torch.set_num_threads(threads)
                rounds = arguments.rounds * (1 if graph == "encoder" else 5)
                timings = interleave(contenders, rounds, f"{graph}, {threads} thread(s)")
                result["latency"][f"{graph}/{threads}"] = _summary(timings)
        host: dict[str, Callable[[], object]] = {
            "pre-processing": lambda: model_frame(resize_longest_side(photo, sam.image_size), sam.image_size),
            "post-processing": lambda: logits_to_masks(logits, size, sam.image_size),
        }
        torch.set_num_threads(1)
        result["latency"]["host/1"] = _summary(interleave(host, 5 * arguments.rounds, "host"), base=None)
    result["photo"] = {"name": PHOTO.name, "size": list(size)}
    result["weights"] = sam.weights_source
    result["image_size"] = sam.image_size
    result["rounds"] = arguments.rounds
    result["machine"] = machine()
    return result


def _runner(path: Path, threads: int, feeds: dict[str, np.ndarray], save_memory: bool) -> Callable[[], object]:
    opened = session(path, threads, save_memory=save_memory)
    return lambda: opened.run(None, feeds)


def _eager(graph: str, sam: MobileSam, feeds: dict[str, np.ndarray]) -> Callable[[], object]:
    module = (PlainImageEncoder(sam) if graph == "encoder" else PlainPromptDecoder(sam)).eval()
    tensors = [torch.from_numpy(value) for value in feeds.values()]

    def run() -> object:
        with torch.inference_mode():
            return module(*tensors)

    return run


def _summary(timings: dict[str, Timing], base: str | None = "plain") -> dict[str, dict[str, float]]:
    return {
        name: {
            "p50_ms": timing.percentile(50),
            "p90_ms": timing.percentile(90),
            **({"times_faster_than_plain": ratio_to(timings, base, name)} if base else {}),
        }
        for name, timing in timings.items()
    }


def print_tables(result: dict[str, Any]) -> None:
    """Tables on the terminal."""
    out = Console(width=max(100, Console().width))
    for key, rows in result["latency"].items():
        graph, threads = key.split("/")
        table = Table(title=f"{graph}, {threads} thread(s), S = {result['image_size']}")
        table.add_column("", no_wrap=True)
        for heading in ("p50 ms", "p90 ms", "vs plain", "of sgemm", "load ms", "session peak MB", "file MB"):
            table.add_column(heading, justify="right")
        for name, row in rows.items():
            cold_figures = result["cold"].get(f"{graph}/{name}")
            gflops = result["encoder_gflop"] / row["p50_ms"] * 1e3
            table.add_row(
                name,
                f"{row['p50_ms']:.1f}",
                f"{row['p90_ms']:.1f}",
                f"{row['times_faster_than_plain']:.2f}x" if "times_faster_than_plain" in row else "",
                f"{gflops / result['roofline_gflops'][int(threads)]:.0%}" if graph == "encoder" else "",
                f"{cold_figures['load_ms']:.0f}" if cold_figures else "",
                f"{cold_figures['session_peak_mb']:.0f}" if cold_figures else "",
                f"{result['size_bytes'][f'{graph}/{name}'] / 1e6:.1f}" if cold_figures else "",
            )
        out.print(table)


def plot(result: dict[str, Any], path: Path) -> None:
    """Medians as bars, one panel for encoder and decoder each, one group for each number of threads."""
    figure, panels = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for panel, graph in zip(panels, ("encoder", "decoder"), strict=True):
        keys = [key for key in result["latency"] if key.startswith(graph)]
        names = list(result["latency"][keys[0]])
        for i, key in enumerate(keys):
            rows = result["latency"][key]
            positions = np.arange(len(names)) + (i - (len(keys) - 1) / 2) * 0.8 / len(keys)
            medians = [rows[name]["p50_ms"] for name in names]
            bars = panel.barh(positions, medians, 0.8 / len(keys), label=f"{key.split('/')[1]} thread(s)")
            panel.bar_label(bars, [f"{median:.0f}" for median in medians], padding=2, fontsize=8)
        panel.set_yticks(range(len(names)), names)
        panel.invert_yaxis()
        panel.set_title(f"{graph}, median ms, one prompt" if graph == "decoder" else f"{graph}, median ms")
        panel.legend()
    figure.suptitle(f"{result['machine']['cpu']}, ONNX Runtime {result['machine']['onnxruntime']}")
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--checkpoint", default="demo", help='path, "official" or "demo" (default); speed hardly depends on it'
    )
    parser.add_argument("--image-size", type=int, default=1024)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=15, help="of the encoder; the decoder gets five times as many")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for JSON and plot")
    arguments = parser.parse_args()
    require_a_round(parser, arguments.rounds, arguments.threads)
    result = measure(arguments)
    print_tables(result)
    arguments.out.mkdir(parents=True, exist_ok=True)
    json_path, plot_path = arguments.out / "cpu_latency.json", arguments.out / "cpu_latency.png"
    json_path.write_text(json.dumps(result, indent=1) + "\n")
    plot(result, plot_path)
    print(json_path, plot_path, sep="\n")


if __name__ == "__main__":
    main()
