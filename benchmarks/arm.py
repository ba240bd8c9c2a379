"""What phones' processors would execute: every contender under emulation, its masks compared, its instructions counted.

    apt-get install --no-install-recommends qemu-user mmdebstrap gcc      # Debian 12 or Ubuntu 24.04
    python -m benchmarks.arm                          # two hours, most of them SME's; goes on where it was stopped
    python -m benchmarks.arm --image-size 224 --core cortex-a76 --contender "ours" "official style"

Every pair of files is run by the runtime's own aarch64 wheel on three processors: Cortex-A76 (dot products), one with
int8 matrix instructions, one with SME. Its masks for every kind of prompt on one photo are compared with PyTorch's and
with those of the same files on this machine. Instructions are those of one encoder pass and of one click, on one
thread, by class; they are exact and the same in every run. They are no time: see docs/android.md.

"official style" is what people export today, see `contenders`; "ours" is the default.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import RESULTS
from benchmarks.contenders import BASE, write_contenders
from benchmarks.emulator.arm64 import CORES, DEFAULT_CACHE, PACKAGES, Counts, Machine, Runtime
from mobilesam_export.bundle.checksums import sha256_of
from mobilesam_export.bundle.predictor import BundlePredictor
from mobilesam_export.contract import DEFAULT_MAX_POINTS
from mobilesam_export.errors import ExportError
from mobilesam_export.parity.cases import PHOTOS, PromptKind
from mobilesam_export.parity.compare import Answers, PhotoAnswers, ask
from mobilesam_export.parity.gates import FLOAT32, Gates
from mobilesam_export.parity.report import ParityReport, judge
from mobilesam_export.targets import named
from reference import Predictor, load_mobile_sam
from reference.checkpoint import weights_sha256

SIZES = (224, 512)
PHOTO = PHOTOS[1:2]  # coffee: not square, so with padding
Cell = dict[str, Any]
console = Console(stderr=True)


@dataclass(frozen=True)
class Pair:
    """A contender.

    Attributes:
        encoder, decoder: names among `write_contenders`' files.
        gates: that its masks must pass here as there; None where nobody promises any.
        theirs: made as others make them: the encoder takes a normalised image, the decoder no prompt without points.
    """

    encoder: str
    decoder: str
    gates: Gates | None
    theirs: bool = False


def _gates(target: str, precision: str) -> Gates:
    return next(each.gates for each in named(target).precisions if each.name == precision)


PAIRS = {
    BASE: Pair(BASE, BASE, FLOAT32, theirs=True),
    f"{BASE}, int8": Pair(f"{BASE}, int8", BASE, None, theirs=True),
    "ours": Pair("ours", "ours", FLOAT32),
    "ours, opset 23": Pair("ours, opset 23", "ours, opset 23", FLOAT32),
    "ours, int8": Pair("ours, int8", "ours", _gates("onnx", "int8")),
    "LiteRT, float32": Pair("LiteRT, float32", "LiteRT, float32", FLOAT32),
    "LiteRT, int8_dynamic": Pair("LiteRT, int8_dynamic", "LiteRT, int8_dynamic", _gates("tflite", "int8_dynamic")),
}


def run(
    pair: Pair, files: Sequence[Path], image_size: int, machine: Machine | None, core: str, expected: Answers
) -> tuple[Answers, dict[str, Counts]]:
    """Every prompt on one machine (None: this one): the masks, and the instructions of one pass of each graph."""
    with tempfile.TemporaryDirectory() as folder:
        runtime = Runtime(
            *files,
            image_size=image_size,
            max_points=DEFAULT_MAX_POINTS if files[1].suffix == ".tflite" else None,
            machine=machine,
            core=core,
            counts=None if machine is None else Path(folder, "counts.jsonl"),
            normalised=pair.theirs,
        )
        with runtime:
            answers = ask(BundlePredictor(runtime, "weights"), PHOTO, expected)
    if pair.theirs:
        answers = {
            photo: PhotoAnswers(
                each.image_embeddings,
                {kind: each.by_kind[kind] for kind in each.by_kind if kind != PromptKind.MASK_ONLY},
            )
            for photo, each in answers.items()
        }
    return answers, runtime.first_pass


def measure(
    name: str, files: Sequence[Path], image_size: int, machine: Machine, core: str, expected: Answers, here: Answers
) -> Cell:
    """One contender on one emulated processor.

    Args:
        expected: PyTorch's answers.
        here: those of the same files on this machine.
    """
    begin, gates = time.monotonic(), PAIRS[name].gates
    got, instructions = run(PAIRS[name], files, image_size, machine, core, expected)
    report = judge(name, gates or FLOAT32, expected, got)
    on_x86 = judge(name, gates or FLOAT32, expected, here)
    return {
        "contender": name,
        "core": core,
        "image_size": image_size,
        "files": [sha256_of(path) for path in files],
        "mask_iou_to_pytorch": _lowest(report),
        "mask_iou_here_to_pytorch": _lowest(on_x86),
        "mask_iou_to_here": _lowest(judge(name, FLOAT32, here, got)),
        "gate": None if gates is None else gates.mask_iou.limit,
        "passed": None if gates is None else report.passed,
        "passed_here": None if gates is None else on_x86.passed,
        "encoder": instructions["encode"],
        "decoder": instructions["decode"],
        "seconds": round(time.monotonic() - begin, 1),
    }


def _lowest(report: ParityReport) -> float | None:
    return None if report.worst is None else round(report.worst.mask_iou, 5)


def missing(
    arguments: argparse.Namespace, cells: Sequence[Cell], files: dict[str, list[Path]], size: int
) -> list[tuple[str, str]]:
    """Contender and core of what was asked and not measured yet with these very files."""
    done = {(cell["contender"], cell["core"], cell["image_size"], *cell["files"]) for cell in cells}
    return [
        (name, core)
        for core in arguments.core
        for name in arguments.contender
        if (name, core, size, *map(sha256_of, files[name])) not in done
    ]


def measure_all(arguments: argparse.Namespace, machine: Machine, path: Path) -> dict[str, Any]:
    """Everything that was asked and is not in the file yet; each cell is written as soon as it is there."""
    sam = load_mobile_sam(arguments.checkpoint, arguments.image_size[0])
    made_of = {
        "weights": {"source": sam.weights_source, "sha256": weights_sha256(sam)},
        "photo": PHOTO[0].name,
        "cores": {name: core.cpu for name, core in CORES.items()},
        "versions": {name: version(name) for name in (*PACKAGES, "torch")},
    }
    old = json.loads(path.read_text()) if path.is_file() else {}
    result = {**made_of, "cells": old["cells"] if made_of.items() <= old.items() else []}
    for size in arguments.image_size:
        sam = load_mobile_sam(arguments.checkpoint, size)
        with tempfile.TemporaryDirectory() as folder:
            written = write_contenders(sam, Path(folder))
            files = {
                name: [written["encoder"][pair.encoder].path, written["decoder"][pair.decoder].path]
                for name, pair in PAIRS.items()
            }
            todo = missing(arguments, result["cells"], files, size)
            expected = ask(Predictor(sam), PHOTO) if todo else {}
            here: dict[str, Answers] = {}
            for number, (name, core) in enumerate(todo, 1):
                console.print(f"S = {size}, {number} of {len(todo)}: {name} on {core}", end="", highlight=False)
                if name not in here:
                    here[name] = run(PAIRS[name], files[name], size, None, core, expected)[0]
                cell = measure(name, files[name], size, machine, core, expected, here[name])
                old_ones = [each for each in result["cells"] if _place(each) != _place(cell)]
                result["cells"] = sorted([*old_ones, cell], key=_place)
                path.write_text(json.dumps(result, indent=1) + "\n")
                console.print(f": {_millions(cell['encoder'])} M, {cell['seconds']:.0f} s", highlight=False)
    return result


def _place(cell: Cell) -> tuple[int, int, int]:
    """Where a cell stands among all: by size, then processor, then contender."""
    return cell["image_size"], list(CORES).index(cell["core"]), list(PAIRS).index(cell["contender"])


def _millions(counts: Counts) -> int:
    return round(sum(counts.values()) / 1e6)


CLASSES = {
    "multiply-add": ("float_multiply_add", "int8_dot", "int8_matrix", "outer_product"),
    "load, store": ("vector_load", "vector_store", "load", "store"),
    "other": ("vector_other", "other"),
}
HEADINGS = (
    "S",
    "processor",
    "contender",
    "encoder",
    "official / this",
    *CLASSES,
    "click",
    "IoU",
    "on x86",
    "ARM to x86",
    "gate",
)


def rows(result: dict[str, Any]) -> list[list[str]]:
    """The table: millions of instructions, and the lowest mask IoU of all prompts."""
    base = {_place(cell)[:2]: cell for cell in result["cells"] if cell["contender"] == BASE}
    table = []
    for cell in result["cells"]:
        counts, official = cell["encoder"], base.get(_place(cell)[:2])
        ratio = "" if official is None else f"{sum(official['encoder'].values()) / sum(counts.values()):.2f}x"
        classes = [str(round(sum(counts[name] for name in names) / 1e6)) for names in CLASSES.values()]
        ious = [cell[name] for name in ("mask_iou_to_pytorch", "mask_iou_here_to_pytorch", "mask_iou_to_here")]
        verdict = "" if cell["gate"] is None else f"{cell['gate']:g} {'held' if cell['passed'] else 'MISSED'}"
        table.append(
            [str(cell["image_size"]), cell["core"], cell["contender"], str(_millions(counts)), ratio, *classes]
            + [f"{sum(cell['decoder'].values()) / 1e6:.1f}"]
            + ["-" if iou is None else f"{iou:.4f}" for iou in ious]
            + [verdict]
        )
    return table


def markdown(result: dict[str, Any]) -> str:
    """The table for the documentation."""
    lines = [f"| {' | '.join(line)} |" for line in (HEADINGS, ["---"] * len(HEADINGS), *rows(result))]
    return "\n".join(lines) + "\n"


def print_table(result: dict[str, Any]) -> None:
    """The table on the terminal."""
    out = Console(width=max(170, Console().width))
    table = Table(title="millions of instructions; lowest mask IoU")
    for number, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="left" if number in (1, 2) else "right", no_wrap=True)
    for row in rows(result):
        table.add_row(*row)
    out.print(table)


def main(argv: Sequence[str] | None = None) -> int:
    """Set up, measure what is missing, print the table.

    Returns:
        0, or 1 if something needed is not there.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="demo", help='path, "official" or "demo" (default)')
    parser.add_argument("--image-size", type=int, nargs="+", default=SIZES)
    parser.add_argument("--core", nargs="+", choices=CORES, default=list(CORES))
    parser.add_argument("--contender", nargs="+", choices=PAIRS, default=list(PAIRS))
    parser.add_argument(
        "--cache", type=Path, default=DEFAULT_CACHE, help="for the emulated system, 230 MB (%(default)s)"
    )
    parser.add_argument("--set-up", action="store_true", help="set the emulated system up and leave")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON instead of the table")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for arm.json and arm.md")
    arguments = parser.parse_args(argv)
    machine = Machine(arguments.cache)
    try:
        machine.set_up()
        if arguments.set_up:
            print(machine.cache)
            return 0
        arguments.out.mkdir(parents=True, exist_ok=True)
        result = measure_all(arguments, machine, arguments.out / "arm.json")
    except ExportError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    (arguments.out / "arm.md").write_text(markdown(result))
    if arguments.json:
        print(json.dumps(result, indent=1))
    else:
        print_table(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
