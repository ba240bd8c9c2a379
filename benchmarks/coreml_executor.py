"""How fast our ML Program executor runs the float16 image encoder, against PyTorch eager on the reference.

Both take turns in one run on the same threads, after a round that is not counted; quote the median of the ratios within
each round, and run it on an idle machine. Writes benchmarks/results/coreml_executor.json. Exits 1 above the limit of 3.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402 - the repository's root must be on the path first, and so on below
import torch  # noqa: E402
from interleaved import PHOTO, interleave, machine, ratio_to, require_a_round  # noqa: E402

from mobilesam_export.manifest import versions_for  # noqa: E402
from mobilesam_export.mlprogram import MLProgram  # noqa: E402
from mobilesam_export.predictor import pad_to_square  # noqa: E402
from mobilesam_export.targets.coreml_convert import convert_encoder  # noqa: E402
from reference import load_mobile_sam  # noqa: E402
from reference.checkpoint import weights_sha256  # noqa: E402
from reference.images import read_image  # noqa: E402
from reference.transforms import resize_longest_side  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "coreml_executor.json"
LIMIT = 3.0  # times PyTorch eager


def main() -> int:
    """Convert, take turns, report."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: python benchmarks/coreml_executor.py --rounds 10    (about two minutes on two cores)",
    )
    parser.add_argument("--checkpoint", default="demo", help="official, demo or a path (default: demo)")
    parser.add_argument("--image-size", type=int, default=1024, metavar="S")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    require_a_round(parser, arguments.rounds, [arguments.threads])
    torch.set_num_threads(arguments.threads)
    sam = load_mobile_sam(arguments.checkpoint, arguments.image_size)
    image = np.rint(pad_to_square(resize_longest_side(read_image(PHOTO), sam.image_size), sam.image_size))
    normalised = (torch.from_numpy(image) - sam.pixel_mean) / sam.pixel_std
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "encoder.mlpackage"
        convert_encoder(sam, "float16", "iOS17", "image").save(str(package))
        begin = time.perf_counter()
        program = MLProgram(package)
        load_ms = 1e3 * (time.perf_counter() - begin)
        with torch.inference_mode():
            timings = interleave(
                {
                    "PyTorch eager": lambda: sam.image_encoder(normalised),
                    "ML Program executor": lambda: program.run({"image": image}),
                },
                arguments.rounds,
                "encoder",
            )
    times_slower = 1 / ratio_to(timings, "PyTorch eager", "ML Program executor")
    medians = {name: statistics.median(timing.samples_ms) for name, timing in timings.items()}
    result = {
        "weights": {"source": sam.weights_source, "sha256": weights_sha256(sam)},
        "image_size": sam.image_size,
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "median_ms": medians,
        "samples_ms": {name: timing.samples_ms for name, timing in timings.items()},
        "executor_load_ms": load_ms,
        "times_pytorch_eager": times_slower,
        "limit": LIMIT,
        "machine": {key: value for key, value in machine().items() if "onnx" not in key},
        "versions": versions_for("coreml"),
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    for name, median in medians.items():
        print(f"{name:20} {median:7.0f} ms")
    print(f"the executor takes {times_slower:.2f} times PyTorch eager (limit {LIMIT:g}); written to {RESULT.name}")
    return 0 if times_slower < LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
