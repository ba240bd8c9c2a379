"""CPU latency of the exported files against what people use today, as a user of ONNX Runtime would see it.

    python benchmarks/cpu_latency.py                  # 1024 and 512, 1 and 2 threads, about ten minutes
    python benchmarks/cpu_latency.py --rounds 3 --threads 1 --image-size 512

The yardstick is "official style": the modules of the reference by the TorchScript exporter of PyTorch at opset 17, as
the official project and samexporter export theirs, in a session with ONNX Runtime's defaults; "official style, int8" is
that file as samexporter quantises it. "new exporter" is the present exporter of PyTorch on the same modules, at the
opset it takes by itself. Ours are opened as `load_bundle` opens them. Where OpenVINO and MNN are installed (the extra
[bench] brings them), they run the same files in float32; so does ExecuTorch its own where [executorch] is. LiteRT's
decoder and ExecuTorch's have the eight slots of the default export, the others get the two that a click needs.

Encoder and decoder are timed apart, one prompt (one click) at a time; so are the host's pre- and post-processing. The
contenders take turns, round by round, so that a machine that slows down slows all of them: quote the ratios, not the
milliseconds. "PyTorch" is the reference in eager mode. Cold load (first session and first run) and peak memory come
from a fresh process for each ONNX file. The roofline is a float32 matrix product measured in the same run.
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
import torch
from matplotlib import pyplot as plt
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import RESULTS
from benchmarks.contenders import BASE, Feeds, open_contender, write_contenders
from benchmarks.interleaved import PHOTO, Timing, interleave, machine, ratio_to, require_a_round
from mobilesam_export.bundle.predictor import decoder_points
from mobilesam_export.model_frame import model_frame
from mobilesam_export.rewrites.plain import PlainImageEncoder, PlainPromptDecoder
from reference import MobileSam, Predictor, load_mobile_sam
from reference.images import read_image
from reference.prompts import check_prompts
from reference.transforms import logits_to_masks, resize_longest_side

COLD = ("load ms", "first run ms", "peak MB", "file MB")
OUTPUTS = {"encoder": ["image_embeddings"], "decoder": ["low_res_masks", "iou_predictions"]}


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


def measure(arguments: argparse.Namespace, image_size: int) -> dict[str, Any]:
    """Everything at one image size, as it goes into the JSON file."""
    sam = load_mobile_sam(arguments.checkpoint, image_size)
    photo = read_image(PHOTO)
    size = (photo.shape[0], photo.shape[1])
    click = np.array([[[size[1] / 2, size[0] / 2]]])
    predictor = Predictor(sam)
    predictor.set_image(photo)
    assert predictor.image_embeddings is not None
    prompts = check_prompts(click, np.ones((1, 1)), None, None, size, sam.image_size)
    coords, labels = decoder_points(prompts)
    low_res = sam.image_size // 4
    feeds: dict[str, Feeds] = {
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
        folder = Path(temporary)
        contenders = write_contenders(sam, folder)
        for graph, named in contenders.items():
            feeds_path = folder / f"{graph}.npz"
            np.savez(feeds_path, **feeds[graph])  # type: ignore[arg-type]  # mypy takes an array for `allow_pickle`
            for name, contender in named.items():
                result["size_bytes"][f"{graph}/{name}"] = contender.path.stat().st_size
                if contender.engine == "onnxruntime":
                    result["cold"][f"{graph}/{name}"] = measure_cold(contender.path, feeds_path, contender.save_memory)
        for threads in arguments.threads:
            result["roofline_gflops"][threads] = sgemm_gflops(threads)
            for graph, named in contenders.items():
                runs: dict[str, Callable[[], object]] = {}
                for name, contender in named.items():
                    runs[name] = open_contender(contender, threads, feeds[graph], OUTPUTS[graph])
                runs["PyTorch"] = _eager(graph, sam, feeds[graph])
                torch.set_num_threads(threads)
                rounds = arguments.rounds * (1 if graph == "encoder" else 5)
                timings = interleave(runs, rounds, f"{graph}, {threads} thread(s)")
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
    return result


def _eager(graph: str, sam: MobileSam, feeds: Feeds) -> Callable[[], object]:
    module = (PlainImageEncoder(sam) if graph == "encoder" else PlainPromptDecoder(sam)).eval()
    tensors = [torch.from_numpy(value) for value in feeds.values()]

    def run() -> object:
        with torch.inference_mode():
            return module(*tensors)

    return run


def _summary(timings: dict[str, Timing], base: str | None = BASE) -> dict[str, dict[str, float]]:
    return {
        name: {
            "p50_ms": timing.percentile(50),
            "p90_ms": timing.percentile(90),
            **({"times_faster": ratio_to(timings, base, name)} if base else {}),
        }
        for name, timing in timings.items()
    }


def print_tables(result: dict[str, Any]) -> None:
    """Tables on the terminal."""
    out = Console(width=max(120, Console().width))
    for key, rows in result["latency"].items():
        graph, threads = key.split("/")
        table = Table(title=f"{graph}, {threads} thread(s), S = {result['image_size']}")
        table.add_column("", no_wrap=True)
        for heading in (
            "p50 ms",
            "p90 ms",
            "vs official style",
            "of sgemm",
            "load ms",
            "first run ms",
            "peak MB",
            "file MB",
        ):
            table.add_column(heading, justify="right")
        for name, row in rows.items():
            gflops = result["encoder_gflop"] / row["p50_ms"] * 1e3
            table.add_row(
                name,
                f"{row['p50_ms']:.1f}",
                f"{row['p90_ms']:.1f}",
                f"{row['times_faster']:.2f}x" if "times_faster" in row else "",
                f"{gflops / result['roofline_gflops'][int(threads)]:.0%}" if graph == "encoder" else "",
                *cold_and_size(result, graph, name),
            )
        out.print(table)


def cold_and_size(result: dict[str, Any], graph: str, name: str) -> list[str]:
    """Milliseconds of load and first run, megabytes of peak and file; empty where there is none."""
    key = f"{graph}/{name}"
    cold = result["cold"].get(key, {})
    cells = [f"{cold[figure]:.0f}" if cold else "" for figure in ("load_ms", "first_run_ms", "session_peak_mb")]
    return [*cells, f"{result['size_bytes'][key] / 1e6:.1f}" if key in result["size_bytes"] else ""]


def plot(sizes: dict[int, dict[str, Any]], where: dict[str, Any], path: Path) -> None:
    """How many times faster than official style: a panel for each graph and size, a bar for each number of threads."""
    figure, panels = plt.subplots(2, len(sizes), figsize=(6.5 * len(sizes), 10), layout="constrained", squeeze=False)
    for column, (size, result) in enumerate(sizes.items()):
        for panel, graph in zip(panels[:, column], ("encoder", "decoder"), strict=True):
            keys = [key for key in result["latency"] if key.startswith(graph)]
            names = list(result["latency"][keys[0]])
            for i, key in enumerate(keys):
                rows = result["latency"][key]
                positions = np.arange(len(names)) + (i - (len(keys) - 1) / 2) * 0.8 / len(keys)
                ratios = [rows[name]["times_faster"] for name in names]
                bars = panel.barh(positions, ratios, 0.8 / len(keys), label=f"{key.split('/')[1]} thread(s)")
                labels = [
                    f"{ratio:.2f}x, {rows[name]['p50_ms']:.0f} ms" for name, ratio in zip(names, ratios, strict=True)
                ]
                panel.bar_label(bars, labels, padding=2, fontsize=8)
            panel.set_xlim(right=1.3 * max(bar.get_width() for bar in panel.patches))
            panel.set_yticks(range(len(names)), names)
            panel.invert_yaxis()
            panel.set_title(f"{graph}, S = {size}" + (", one click" if graph == "decoder" else ""))
            panel.legend(loc="lower right", fontsize=8)
    figure.suptitle(f"Times faster than {BASE}; {where['cpu']}, ONNX Runtime {where['onnxruntime']}")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def markdown(sizes: dict[int, dict[str, Any]]) -> str:
    """The table of docs/onnx.md."""
    threads = sorted({int(key.split("/")[1]) for r in sizes.values() for key in r["latency"] if "coder" in key})
    columns = [f"{size}, {n} thread(s)" for size in sizes for n in threads]
    first = next(iter(sizes.values()))
    lines = [f"| graph | file | {' | '.join(columns)} | p50 ms | {' | '.join(COLD)} |"]
    lines.append(f"|---|---|{'---|' * (len(columns) + 5)}")
    for graph in ("encoder", "decoder"):
        for name, row in first["latency"][f"{graph}/{threads[0]}"].items():
            ratios = [
                f"{r['latency'][f'{graph}/{n}'][name]['times_faster']:.2f}x" for r in sizes.values() for n in threads
            ]
            more = " | ".join(cold_and_size(first, graph, name))
            lines.append(f"| {graph} | {name} | {' | '.join(ratios)} | {row['p50_ms']:.0f} | {more} |")
    return "\n".join(lines)


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--checkpoint", default="demo", help='path, "official" or "demo" (default); speed hardly depends on it'
    )
    parser.add_argument("--image-size", type=int, nargs="+", default=[1024, 512], metavar="S", help="default: 1024 512")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=10, help="of the encoder; the decoder gets five times as many")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for JSON and plot")
    arguments = parser.parse_args()
    require_a_round(parser, arguments.rounds, arguments.threads)
    sizes = {}
    for size in arguments.image_size:
        sizes[size] = measure(arguments, size)
        print_tables(sizes[size])
    where = machine()
    arguments.out.mkdir(parents=True, exist_ok=True)
    json_path, plot_path = arguments.out / "cpu_latency.json", arguments.out / "cpu_latency.png"
    json_path.write_text(json.dumps({"machine": where, "sizes": sizes}, indent=1) + "\n")
    plot(sizes, where, plot_path)
    print(markdown(sizes), json_path, plot_path, sep="\n")


if __name__ == "__main__":
    main()
