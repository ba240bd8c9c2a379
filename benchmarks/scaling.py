"""How time and memory grow with the image size and with the number of prompts: the float32 ONNX files on a CPU.

    python benchmarks/scaling.py                      # five minutes
    python benchmarks/scaling.py --image-size 320 512 --prompts 1 8 --rounds 2

The encoder is timed at each size, the decoder on batches of clicks on one image of the largest size; all sizes, and all
batches, take turns, round by round. Peak memory comes from a fresh process for each, on one thread. An exponent is the
slope of the medians in logarithms, over pixels or prompts: 1 is linear.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.ticker import LogLocator, StrMethodFormatter
from numpy.typing import NDArray

from benchmarks import RESULTS
from benchmarks.cpu_latency import measure_cold
from benchmarks.interleaved import console, interleave, machine, require_a_round
from mobilesam_export.targets.onnx.runtime import session
from mobilesam_export.targets.onnx.write import write
from reference import load_mobile_sam

SIZES = (320, 448, 512, 672, 768, 896, 1024)
PROMPTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
Feeds = dict[str, NDArray[np.float32]]
Figures = dict[int, float]


def encoder_feeds(size: int) -> Feeds:
    """Noise: the time does not depend on the picture."""
    return {"image": np.random.default_rng(0).uniform(0, 255, (1, 3, size, size)).astype(np.float32)}


def decoder_feeds(size: int, prompts: int) -> Feeds:
    """One click, with its padding point, for each prompt."""
    random = np.random.default_rng(0)
    clicks = np.stack([random.uniform(0, size, (prompts, 2)), np.zeros((prompts, 2))], axis=1)
    return {
        "image_embeddings": random.standard_normal((1, 256, size // 16, size // 16), np.float32),
        "point_coords": clicks.astype(np.float32),
        "point_labels": np.tile(np.array([1, -1], np.float32), (prompts, 1)),
        "mask_input": np.zeros((prompts, 1, size // 4, size // 4), np.float32),
        "has_mask_input": np.zeros(1, np.float32),
    }


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Medians and peaks: for each graph, time by threads, and memory."""
    largest = max(arguments.image_size)
    result: dict[str, Any] = {"encoder": {"time_ms": {}}, "decoder": {"time_ms": {}}, "decoder_image_size": largest}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        files: dict[str, dict[int, tuple[Path, Feeds]]] = {"encoder": {}, "decoder": {}}
        for size in sorted(arguments.image_size):
            console.print(f"exporting the files of {size} pixels")
            into = folder / str(size)
            into.mkdir()
            encoder, decoder = write(load_mobile_sam(arguments.checkpoint, size), into)
            files["encoder"][size] = encoder, encoder_feeds(size)
        files["decoder"] = {count: (decoder, decoder_feeds(largest, count)) for count in arguments.prompts}
        for graph, each in files.items():
            result[graph]["peak_mb"] = {steps: peak_mb(*file, graph, folder) for steps, file in each.items()}
            for threads in arguments.threads:
                result[graph]["time_ms"][threads] = time_ms(each, threads, graph, arguments.rounds)
    return result | {"rounds": arguments.rounds, "machine": machine()}


def peak_mb(path: Path, feeds: Feeds, graph: str, folder: Path) -> float:
    """What loading a file and running it once takes in a process of its own, in MB."""
    np.savez(folder / "feeds.npz", **feeds)  # type: ignore[arg-type]
    return measure_cold(path, folder / "feeds.npz", graph == "encoder")["session_peak_mb"]


def time_ms(files: Mapping[int, tuple[Path, Feeds]], threads: int, graph: str, rounds: int) -> Figures:
    """Medians in ms."""
    opened = {path: session(path, threads, save_memory=graph == "encoder") for path, _ in files.values()}

    def runner(path: Path, feeds: Feeds) -> Callable[[], object]:
        return lambda: opened[path].run(None, feeds)

    contenders = {str(steps): runner(*file) for steps, file in files.items()}
    timings = interleave(contenders, rounds, f"{graph}, {threads} thread(s)")
    return {int(steps): timing.percentile(50) for steps, timing in timings.items()}


def exponent(figures: Figures, of_pixels: bool) -> float:
    """Slope in logarithms, over the square of the keys where these are sides."""
    steps = np.array(list(figures), float) ** (2 if of_pixels else 1)
    return float(np.polyfit(np.log(steps), np.log(list(figures.values())), 1)[0])


def line(figures: Figures, of_pixels: bool) -> tuple[float, float]:
    """MB at nothing, and MB for each megapixel or prompt."""
    steps = np.array(list(figures), float) ** 2 / 1e6 if of_pixels else np.array(list(figures), float)
    slope, start = np.polyfit(steps, list(figures.values()), 1)
    return float(start), float(slope)


def plot(result: dict[str, Any], path: Path) -> None:
    """Time (logarithmic) and memory, over pixels and over prompts."""
    figure, panels = plt.subplots(2, 2, figsize=(11, 8), layout="constrained")
    for column, (graph, unit) in enumerate((("encoder", "megapixel"), ("decoder", "prompt"))):
        of_pixels = graph == "encoder"
        times, memory = panels[:, column]
        for threads, figures in result[graph]["time_ms"].items():
            steps = [step**2 / 1e6 if of_pixels else step for step in figures]
            label = f"{threads} thread(s), exponent {exponent(figures, of_pixels):.2f}"
            times.loglog(steps, list(figures.values()), "o-", label=label)
        linear = [figures[max(figures)] * step / steps[-1] for step in steps]
        times.loglog(steps, linear, "--", color="grey", label="linear")
        times.set_xticks(steps, [str(step) for step in figures])
        times.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        times.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        times.minorticks_off()
        times.set_ylabel("ms")
        peaks = result[graph]["peak_mb"]
        start, slope = line(peaks, of_pixels)
        memory.plot(steps, list(peaks.values()), "o", label="peak of a fresh process")
        memory.plot([0, steps[-1]], [start, start + slope * steps[-1]], "--", color="grey")
        memory.plot([], [], "--", color="grey", label=f"{start:.0f} MB + {slope:.0f} MB a {unit}")
        memory.set_ylabel("MB")
        memory.set_ylim(bottom=0)
        memory.set_xlabel("megapixels" if of_pixels else "prompts in one batch")
        times.set_xlabel("image size S" if of_pixels else "prompts in one batch")
        times.set_title(graph if of_pixels else f"{graph}, one click a prompt, S = {result['decoder_image_size']}")
        for panel in (times, memory):
            panel.grid(alpha=0.3)
            panel.legend(fontsize=9)
    figure.suptitle(f"{result['machine']['cpu']}, ONNX Runtime {result['machine']['onnxruntime']}, float32")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="demo", help='path, "official" or "demo" (default)')
    parser.add_argument("--image-size", type=int, nargs="+", default=SIZES)
    parser.add_argument("--prompts", type=int, nargs="+", default=PROMPTS)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for JSON and plot")
    arguments = parser.parse_args()
    require_a_round(parser, arguments.rounds, arguments.threads)
    result = measure(arguments)
    for graph, unit in (("encoder", "megapixel"), ("decoder", "prompt")):
        start, slope = line(result[graph]["peak_mb"], graph == "encoder")
        print(f"{graph}: {start:.0f} MB and {slope:.1f} MB a {unit}")
        for threads, figures in result[graph]["time_ms"].items():
            shown = ", ".join(f"{steps}: {figure:.1f}" for steps, figure in figures.items())
            power = exponent(figures, graph == "encoder")
            print(f"{graph}, {threads} thread(s): exponent {power:.3f}; ms {shown}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    json_path, plot_path = arguments.out / "scaling.json", arguments.out / "scaling.png"
    json_path.write_text(json.dumps(result, indent=1) + "\n")
    plot(result, plot_path)
    print(json_path, plot_path, sep="\n")


if __name__ == "__main__":
    main()
