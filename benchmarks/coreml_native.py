"""Parity and latency of Core ML bundles under Apple's runtime, for every choice of compute units.

Exits 1 if any choice misses the parity gates. Latencies are medians after warm-up, model loading left out; a virtual
machine, such as a CI runner, may have no Neural Engine, so read them with the machine's name beside them.
"""

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mobilesam_export.bundle.manifest import Manifest, TargetEntry
from mobilesam_export.bundle.predictor import BundlePredictor
from mobilesam_export.parity.cases import PHOTOS
from mobilesam_export.parity.compare import Answers, ask
from mobilesam_export.parity.report import ParityReport, judge
from mobilesam_export.targets.choices import gates_for
from mobilesam_export.targets.coreml.runtime import COMPUTE_UNITS, CoreMLRuntime
from reference import Predictor, load_mobile_sam

WARM_UP, RUNS = 2, 10


def median_ms(call: Callable[[], object], runs: int) -> float:
    """Median wall-clock time of ``call`` in milliseconds."""
    for _ in range(WARM_UP):
        call()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def latency_ms(runtime: CoreMLRuntime, runs: int) -> tuple[float, float]:
    """Encoder and one-prompt decoder."""
    side = runtime.image_size
    image = np.random.default_rng(0).integers(0, 256, (1, 3, side, side)).astype(np.float32)
    embeddings = runtime.encode(image)
    coords, labels = np.array([[[side / 2, side / 2], [0, 0]]], np.float32), np.array([[1, -1]], np.float32)
    return (
        median_ms(lambda: runtime.encode(image), runs),
        median_ms(lambda: runtime.decode(embeddings, coords, labels, None), runs),
    )


def check(entry: TargetEntry, bundle: Path, reference: Answers, units: str, native: bool) -> tuple[ParityReport, str]:
    """Run the bundle with one choice of compute units; returns its parity and a line of figures."""
    start = time.perf_counter()
    encoder, decoder = bundle / entry.path_of("encoder"), bundle / entry.path_of("decoder")
    runtime = CoreMLRuntime(encoder, decoder, compute_units=units, native=native)
    load_s = time.perf_counter() - start
    answers = ask(BundlePredictor(runtime, "any"), PHOTOS, reference)
    report = judge("coreml", gates_for("coreml", entry.precision), reference, answers)
    encode_ms, decode_ms = latency_ms(runtime, RUNS if native else 1)
    line = (
        f"{entry.precision:9} {units:8} load {load_s:5.1f} s  encoder {encode_ms:7.1f} ms  decoder {decode_ms:6.1f} ms"
    )
    return report, line


def main() -> int:
    """Check every bundle with every choice of compute units."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples: python benchmarks/coreml_native.py dist                  on a Mac\n"
        "          python benchmarks/coreml_native.py --executor dist       elsewhere: our executor, to test this",
    )
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--checkpoint", default="demo", help="what the bundles were exported from")
    parser.add_argument("--executor", action="store_true", help="use our executor instead of Apple's runtime")
    arguments = parser.parse_args()
    print(platform.platform(), platform.processor(), f"Python {platform.python_version()}", flush=True)
    failed = 0
    for bundle in arguments.bundles:
        manifest = Manifest.read(bundle)
        sam = load_mobile_sam(arguments.checkpoint, manifest.image_size)
        reference = ask(Predictor(sam), PHOTOS)
        for units in ("all",) if arguments.executor else COMPUTE_UNITS:
            report, line = check(manifest.targets["coreml"], bundle, reference, units, not arguments.executor)
            print(line)
            print(report.describe(), flush=True)
            failed += not report.passed
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
