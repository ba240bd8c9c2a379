"""How fast our ML Program executor runs the Core ML packages, against PyTorch eager on the reference.

For each size, precision and number of threads both graphs are run: the encoder on a photo, the decoder on a click. All
take turns in one run, after a round that is not counted; quote the medians of the ratios within each round, and run it
on an idle machine. Writes benchmarks/results/coreml_executor.json. Exits 1 where a graph is above the limit.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import RESULTS
from benchmarks.interleaved import PHOTO, interleave, machine, ratio_to, require_a_round
from mobilesam_export.bundle.manifest import versions_for
from mobilesam_export.contract import DEFAULT_MAX_POINTS, PointLabel
from mobilesam_export.model_frame import model_frame
from mobilesam_export.point_slots import fill_slots
from mobilesam_export.targets.coreml.executor import MLProgram
from mobilesam_export.targets.coreml.write import write
from reference import load_mobile_sam
from reference.checkpoint import weights_sha256
from reference.images import read_image
from reference.mobile_sam import MobileSam
from reference.transforms import resize_longest_side

RESULT = RESULTS / "coreml_executor.json"
LIMIT = 3.0  # times PyTorch eager
EAGER = "PyTorch eager"
CLICK = (490.0, 258.0)  # x, y where the photo is 1024 wide
DECODER_ROUNDS = 5
Runs = dict[str, Callable[[], object]]


def runners(sam: MobileSam, precisions: list[str], folder: Path) -> tuple[dict[str, Runs], dict[str, float]]:
    """What takes turns at each graph, and how long both packages of a precision take to load, in milliseconds."""
    image = np.rint(model_frame(resize_longest_side(read_image(PHOTO), sam.image_size), sam.image_size))
    normalised = (torch.from_numpy(image) - sam.pixel_mean) / sam.pixel_std
    embeddings = sam.image_encoder(normalised)
    side = sam.image_size
    points = np.array([[np.array(CLICK) * side / 1024, (0, 0)]])
    kinds = np.array([[PointLabel.FOREGROUND, PointLabel.PADDING]], np.float32)
    coords, labels = fill_slots(points, kinds, DEFAULT_MAX_POINTS)
    prompt = {
        "image_embeddings": embeddings.numpy(),
        "point_coords": coords,
        "point_labels": labels,
        "mask_input": np.zeros((1, 1, side // 4, side // 4), np.float32),
        "has_mask_input": np.zeros(1, np.float32),
    }
    click = torch.from_numpy(coords[:, :1]), torch.from_numpy(labels[:, :1])
    runs: dict[str, Runs] = {
        "encoder": {EAGER: lambda: sam.image_encoder(normalised)},
        "decoder": {EAGER: lambda: sam.predict_masks(embeddings, click)},
    }
    load_ms = {}
    for precision in precisions:
        paths = write(sam, folder / precision, precision=precision)
        begin = time.perf_counter()
        encoder, decoder = map(MLProgram, paths)
        load_ms[precision] = 1e3 * (time.perf_counter() - begin)
        runs["encoder"][precision] = partial(encoder.run, {"image": image})
        runs["decoder"][precision] = partial(decoder.run, prompt)
    return runs, load_ms


def measure(sam: MobileSam, precisions: list[str], threads: list[int], rounds: int) -> dict[str, Any]:
    """Both graphs of one size, with each number of threads."""
    result: dict[str, Any] = {"load_ms": {}, "graphs": {}}
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        graphs, result["load_ms"] = runners(sam, precisions, Path(folder))
        for count in threads:
            torch.set_num_threads(count)
            for graph, runs in graphs.items():
                many = rounds * (1 if graph == "encoder" else DECODER_ROUNDS)
                timings = interleave(runs, many, f"{graph}, S = {sam.image_size}, {count} thread(s)")
                result["graphs"][f"{graph}/{count}"] = {
                    name: {
                        "median_ms": statistics.median(timing.samples_ms),
                        "times_pytorch_eager": 1 / ratio_to(timings, EAGER, name),
                        "samples_ms": timing.samples_ms,
                    }
                    for name, timing in timings.items()
                }
    return result


def main() -> int:
    """Convert, take turns, report."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: python benchmarks/coreml_executor.py    (about three minutes on two cores)",
    )
    parser.add_argument("--checkpoint", default="demo", help="official, demo or a path (default: demo)")
    parser.add_argument("--image-size", type=int, nargs="+", default=[1024, 512], metavar="S", dest="sizes")
    parser.add_argument("--precision", nargs="+", default=["float16", "w8a8"], dest="precisions")
    parser.add_argument(
        "--rounds", type=int, default=6, help=f"of the encoder; the decoder's are {DECODER_ROUNDS} times"
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()
    require_a_round(parser, arguments.rounds, arguments.threads)
    result: dict[str, Any] = {"rounds": arguments.rounds, "limit": LIMIT, "sizes": {}}
    for size in arguments.sizes:
        sam = load_mobile_sam(arguments.checkpoint, size)
        result["weights"] = {"source": sam.weights_source, "sha256": weights_sha256(sam)}
        result["sizes"][str(size)] = measure(sam, arguments.precisions, arguments.threads, arguments.rounds)
    result["machine"] = {key: value for key, value in machine().items() if "onnx" not in key}
    result["versions"] = versions_for("coreml")
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    slowest = 0.0
    for size, measured in result["sizes"].items():
        for key, figures in measured["graphs"].items():
            graph, count = key.split("/")
            for name, row in figures.items():
                ratio = row["times_pytorch_eager"]
                slowest = max(slowest, ratio)
                print(f"{graph} {size:>4} {count} thread(s)  {name:13} {row['median_ms']:7.1f} ms  x {ratio:.2f}")
    print(f"at most {slowest:.2f} times PyTorch eager (limit {LIMIT:g}); written to {RESULT.name}")
    return 0 if slowest < LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
