"""Load time, first run and peak memory of one ONNX file, in a fresh process; ``cpu_latency.py`` runs it for each file.

python benchmarks/cold_start.py mobile_sam_encoder.onnx feeds.npz
"""

import argparse
import json
import resource
import time
from pathlib import Path

import numpy as np
import psutil

from mobilesam_export.targets.onnx.runtime import session

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_bytes() -> int:
    """The largest resident memory of this process so far, or since ``forget_peak`` on Linux."""
    if _STATUS.is_file():  # ru_maxrss would start with the parent's peak there
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def forget_peak() -> None:
    """Start the peak anew, where the system can."""
    if _CLEAR.is_file():
        _CLEAR.write_text("5")


def main() -> None:
    """Measure the file and feeds named on the command line; JSON on standard output."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="an ONNX file")
    parser.add_argument("feeds", type=Path, help="its inputs, by name, in an .npz file")
    parser.add_argument("--save-memory", action="store_true", help="without memory patterns, as for the encoder")
    arguments = parser.parse_args()
    with np.load(arguments.feeds) as file:
        feeds = {name: file[name] for name in file.files}
    forget_peak()
    before = psutil.Process().memory_info().rss
    begin = time.perf_counter()
    opened = session(arguments.model, 1, save_memory=arguments.save_memory)
    loaded = time.perf_counter()
    opened.run(None, feeds)
    done = time.perf_counter()
    figures = {
        "load_ms": 1e3 * (loaded - begin),
        "first_run_ms": 1e3 * (done - loaded),
        "session_peak_mb": (peak_bytes() - before) / 1e6,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
