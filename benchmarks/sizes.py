"""Which precisions hold their gate at which image sizes: the table that refuses known misses at once.

Exports, runs and judges every target and precision at every size, as ``export`` does by default, and writes each
result to mobilesam_export/measured_sizes.json as soon as it is there: a run that was stopped goes on where it was.
Cells that are in the table, of the same weights and judged by the same gate, are not measured again. Weights other than
the table's begin a new one. Prints the table in Markdown; seconds are CPU seconds.
"""

import argparse
import platform
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from mobilesam_export.bundle.manifest import Weights
from mobilesam_export.errors import ExportError
from mobilesam_export.jobs import Job, plan
from mobilesam_export.measured_sizes import TABLE, Cell, MeasuredSizes
from mobilesam_export.options import IMAGE_SIZE
from mobilesam_export.parity.cases import PHOTOS
from mobilesam_export.parity.compare import Answers
from mobilesam_export.parity.report import judge
from mobilesam_export.pipeline import ask_bundle, ask_reference, metadata_for, write_target
from mobilesam_export.progress import Progress, Step
from mobilesam_export.targets import named
from mobilesam_export.targets.choices import precisions_of, targets_of
from reference import load_mobile_sam
from reference.checkpoint import weights_sha256
from reference.mobile_sam import MobileSam

SIZES = (1024, 768, 512, 448, 320)  # the default, and what messages and documents suggest for smaller phones


class StepTimes(Progress):
    """Keeps the CPU seconds of each step, by the last word of its title: write, report, verify, answers."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, title: str, expected_s: float | None = None) -> Iterator[Step]:
        """Enclose a step."""
        start = time.process_time()
        with super().step(title, expected_s) as step:
            yield step
        self.seconds[title.split()[-1]] = round(time.process_time() - start, 1)


def measure(sam: MobileSam, job: Job, reference: Answers) -> Cell:
    """Export, execute and judge one target and precision with the model's image size."""
    times = StepTimes()
    weights = Weights(sam.weights_source, weights_sha256(sam))
    with tempfile.TemporaryDirectory() as folder:
        entry = write_target(sam, job, Path(folder), metadata_for(sam, weights), times)
        answers = ask_bundle(entry, Path(folder), weights.sha256, PHOTOS, reference, times)
    report = judge(job.target.name, job.gates, reference, answers)
    failures, passed = report.failures, report.passed
    return Cell(
        job.target.name,
        job.precision,
        sam.image_size,
        job.gates.mask_iou.limit,
        None if report.worst is None else round(report.worst.mask_iou, 5),
        len(failures),
        None if passed else str(failures[0]),
        None if passed else report.passing_min_iou(),
        times.seconds,
    )


def missing(table: MeasuredSizes, jobs: Sequence[Job], sizes: Sequence[int]) -> list[tuple[int, Job]]:
    """What is not in the table yet, or was judged by another gate than today's; size by size."""
    found = []
    for size in sizes:
        for job in jobs:
            cell = table.cell(job.target.name, job.precision, size)
            if cell is None or cell.mask_iou_gate != job.gates.mask_iou.limit:
                found.append((size, job))
    return found


def with_cell(table: MeasuredSizes, cell: Cell) -> MeasuredSizes:
    """The table with a cell added, in place of one of the same target, precision and size."""
    asked = (cell.target, cell.precision, cell.image_size)
    others = tuple(old for old in table.cells if (old.target, old.precision, old.image_size) != asked)
    return replace(table, cells=(*others, cell))


def markdown(table: MeasuredSizes) -> str:
    """Lowest mask IoU by size; misses are marked, what was not measured is a dash."""
    sizes = sorted({cell.image_size for cell in table.cells}, reverse=True)
    lines = [
        f"| target | precision | gate | {' | '.join(map(str, sizes))} |",
        f"|---|---|---|{'---|' * len(sizes)}",
    ]
    for target, precision in dict.fromkeys((cell.target, cell.precision) for cell in table.cells):
        row = [table.cell(target, precision, size) for size in sizes]
        gate = next(cell.mask_iou_gate for cell in row if cell is not None)
        lines.append(f"| {target} | {precision} | {gate:g} | {' | '.join(map(_shown, row))} |")
    return "\n".join([*lines, "", f"Lowest mask IoU on {table.weights_source} ({table.weights_sha256[:12]})."])


def _shown(cell: Cell | None) -> str:
    if cell is None:
        return "-"
    lowest = "none" if cell.mask_iou_min is None else f"{cell.mask_iou_min:.4f}"
    return f"**missed** {lowest}" if cell.failures else lowest


def _jobs(targets: Sequence[str], precision: str | None) -> list[Job]:
    """The asked precisions of each target, or all of them."""
    jobs = []
    for target in targets:
        all_names = [each.name for each in named(target).precisions]
        names = all_names if precision is None else precisions_of(precision, [target]).values()
        jobs += [plan(target, name, {}, verify=True)[target] for name in names]
    return jobs


def main(argv: Sequence[str] | None = None, path: Path = TABLE) -> int:
    """Measure what is missing.

    Args:
        path: of the table.

    Returns:
        0; with ``--check`` 1 if anything is missing.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sizes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: python -m benchmarks.sizes --target coreml --precision float16 --image-size 512",
    )
    parser.add_argument("--target", default="all", help="one or several with commas (default: all)")
    parser.add_argument("--precision", help="only this one (default: every precision of each target)")
    parser.add_argument("--image-size", default=",".join(map(str, SIZES)), metavar="S,S", help="default: %(default)s")
    parser.add_argument("--checkpoint", default="demo", help="official, demo or a path (default: demo)")
    parser.add_argument("--check", action="store_true", help="measure nothing; say what is missing")
    arguments = parser.parse_args(argv)
    try:
        sizes = [int(size) for size in arguments.image_size.split(",")]
        for size in sizes:
            IMAGE_SIZE.check(size)
        jobs = _jobs(targets_of(arguments.target), arguments.precision)
        sam = load_mobile_sam(arguments.checkpoint, sizes[0])
    except (ExportError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    sha256, machine = weights_sha256(sam), f"{platform.system()} {platform.machine()}"
    table = replace(MeasuredSizes.read(path).of(sha256), weights_source=sam.weights_source, measured_on=machine)
    todo = missing(table, jobs, sizes)
    if arguments.check:
        for size, job in todo:
            print(f"not measured: {job.target.name} {job.precision} at {size}")
        return 1 if todo else 0
    reference: Answers = {}
    for number, (size, job) in enumerate(todo, 1):
        if sam.image_size != size or not reference:
            sam = load_mobile_sam(arguments.checkpoint, size)
            reference = ask_reference(sam, PHOTOS, Progress())
        cell = measure(sam, job, reference)
        table = with_cell(table, cell)
        table.write(path)
        print(f"{number} of {len(todo)}: {job.target.name} {job.precision} at {size}: {_shown(cell)}", file=sys.stderr)
    print(markdown(MeasuredSizes.read(path)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
