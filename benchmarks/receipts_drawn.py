"""Table and plots of ``receipts``."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.lines import Line2D

PROMPTS = ("box", "click")
COLOURS = {
    "onnx": "#0b6e99", "coreml": "#c2571a", "tflite": "#3f7d20", "executorch": "#7a4fa3", "coreai": "#a3862a"
}  # fmt: skip
NAME_HEIGHT = 0.045  # of the plot's: what one name beside it takes
LEAST_LOSS = 1e-6  # what a logarithmic axis shows of none
Row = Mapping[str, Any]


def markdown(about: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """All rows as one table, with what was measured on what."""
    head = ["target", "precision", "S", "MB", "encoder time", "click time", "peak MB", "PSNR dB"]
    head += ["mask IoU lowest", "mean", *(f"{prompt} mIoU %" for prompt in PROMPTS), "against PyTorch, box"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in rows:
        speed, box = row["latency_ratio"], row["accuracy"]["box"]["difference"]
        cells = [row["target"], f"`{row['precision']}`", str(row["image_size"])]
        both = row["decoder_mb"] is None
        cells.append(f"{row['encoder_mb']:.1f}" + (" for both" if both else f" + {row['decoder_mb']:.1f}"))
        cells += ["-", "-"] if speed is None else [f"{1 / speed[part]:.2f}" for part in ("encoder", "decoder")]
        cells.append("-" if row["peak_mb"] is None else f"{row['peak_mb']:.0f}")
        cells += [f"{row['embedding_psnr_db']:.1f}", f"{row['mask_iou_min']:.4f}", f"{row['mask_iou_mean']:.4f}"]
        for prompt in PROMPTS:
            found = row["accuracy"][prompt]["miou"]
            cells.append(f"{100 * found['mean']:.1f} ({100 * found['low']:.1f} to {100 * found['high']:.1f})")
        cells.append(f"{100 * box['mean']:+.2f} ({100 * box['low']:+.2f} to {100 * box['high']:+.2f})")
        missed = "" if row["passed"] else f" misses its gate of {row['gate']:g}"
        few = row.get("photos") == 1
        missed += f" (one photo, {row['accuracy']['box']['objects']} objects)" if few else ""
        lines.append(f"| {' | '.join([cells[0], cells[1] + missed, *cells[2:]])} |")
    where, scenes = about["machine"], about["scenes"]
    lines += [
        "",
        f"Weights {about['weights']} (sha256 {about['weights_sha256'][:12]}); {scenes['count']} held-out generated "
        f"scenes, at most {scenes['objects']} objects each; {where['cpu']}, {where['system']}, one thread, "
        f"ONNX Runtime {where['onnxruntime']}, PyTorch {where['torch']}, {where['date']}. Times are parts of ONNX "
        "float32's at the same size. Brackets: 95 % by bootstrap over scenes.",
    ]
    return "\n".join(lines) + "\n"


def draw(rows: Sequence[Row], about: Mapping[str, Any], path: Path) -> None:
    """Size and time against mask IoU: what lies on the upper left edge is worth choosing."""
    sizes = sorted({row["image_size"] for row in rows}, reverse=True)
    figure, axes = plt.subplots(2, len(sizes), figsize=(6.2 * len(sizes), 8.5), squeeze=False)
    for column, size in enumerate(sizes):
        mine = [row for row in rows if row["image_size"] == size]
        timed = [row for row in mine if row["latency_ratio"] is not None]
        _pareto(axes[0][column], mine, _megabytes, "encoder + decoder, MB", size)
        _pareto(axes[1][column], timed, _encoder_time, "encoder time, of ONNX float32's", size)
    handles = [Line2D([], [], marker="o", ls="", color=colour, label=name) for name, colour in COLOURS.items()]
    axes[0][0].legend(handles=handles, loc="upper center")
    figure.suptitle(f"What a precision costs (weights {about['weights']}, {about['machine']['cpu']})")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _megabytes(row: Row) -> float:
    return float(row["encoder_mb"] + (row["decoder_mb"] or 0))


def _encoder_time(row: Row) -> float:
    return float(1 / row["latency_ratio"]["encoder"])


def _pareto(axis: Any, rows: Sequence[Row], cost: Callable[[Row], float], label: str, size: int) -> None:
    """One plot, with the edge of what nothing else beats in both respects."""
    places = [(cost(row), max(1 - row["mask_iou_mean"], LEAST_LOSS)) for row in rows]
    axis.set(xlabel=label, ylabel="1 - mean mask IoU with PyTorch", yscale="log", title=f"S = {size}")
    axis.invert_yaxis()
    axis.grid(alpha=0.3)
    for (x, y), row in zip(places, rows, strict=True):
        axis.scatter(x, y, color=COLOURS[row["target"]], s=36, zorder=3)
    edge: list[tuple[float, float]] = []
    for x, y in sorted(places):
        if not edge or y < edge[-1][1]:
            edge.append((x, y))
    axis.step([x for x, _ in edge], [y for _, y in edge], where="post", color="0.6", zorder=1)
    _names(axis, places, rows)


def _names(axis: Any, places: Sequence[tuple[float, float]], rows: Sequence[Row]) -> None:
    """Each point's precision in a column beside the plot, in the points' order from top to bottom, joined by a line."""
    to_axis = axis.transData + axis.transAxes.inverted()
    order = sorted(range(len(places)), key=lambda number: (places[number][1], places[number][0]))
    heights = [float(to_axis.transform(places[number])[1]) for number in order]
    for below in range(1, len(heights)):
        heights[below] = min(heights[below], heights[below - 1] - NAME_HEIGHT)
    heights[-1] = max(heights[-1], 0.0)
    for above in reversed(range(len(heights) - 1)):  # what was pushed out below pushes back
        heights[above] = max(heights[above], heights[above + 1] + NAME_HEIGHT)
    for number, height in zip(order, heights, strict=True):
        colour = COLOURS[rows[number]["target"]]
        axis.annotate(
            rows[number]["precision"], places[number], (1.03, height), xycoords="data", textcoords="axes fraction",
            fontsize=8, color=colour, va="center", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "alpha": 0.35, "linewidth": 0.7, "shrinkB": 3},
        )  # fmt: skip
