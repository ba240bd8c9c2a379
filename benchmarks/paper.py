"""The paper's tables and figures, each number with how it was obtained and the paper's own beside it.

    python -m benchmarks.paper                                     # what needs no files; protocol on the demo weights
    python -m benchmarks.paper --student official --teacher facebook/sam-vit-huge --photos my-photos
    python -m benchmarks.paper --only figures --student official --teacher sam_vit_h_4b8939.pth
    python -m benchmarks.paper --fastsam FastSAM-x.pt              # needs ultralytics (AGPL), imported nowhere else

Tables 1 and 3 count parameters on built modules (SAM's on PyTorch's meta device, without weights) and time the
student on the device at hand. Tables 2 and 4 are the training module's (`python -m reference.training reproduce`);
table 5 is the whole pipeline. Tables 6 and 7 are the two-point protocol: a foreground and a background point, 100 to
500 pixels apart, and mIoU with the teacher's mask. The paper does not say how it draws points: ours are uniform in the
photo, in the pixels of the model frame, in a random direction that stays inside, and follow from the seed. Without a
teacher the student is compared with itself at half its image size, which shows that the protocol runs and no more.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import RESULTS
from benchmarks.interleaved import console, machine
from benchmarks.paper_figures import draw_figures
from mobilesam_export.errors import ExportError
from mobilesam_export.parity.cases import PHOTOS, Photo
from mobilesam_export.parity.metrics import mask_iou
from mobilesam_export.parity.own_photos import own_photos
from reference import Predictor, load_mobile_sam
from reference.errors import CheckpointError, ImageError
from reference.mobile_sam import MobileSam
from reference.training.distillation.prompts_in_the_loop import judge_of
from reference.training.distillation.teacher import Teacher, load_teacher

DISTANCES = (100, 200, 300, 400, 500)  # pixels
# Of SAM's image encoders: width, depth, heads, blocks with attention over the whole image; the paper's millions.
SAM_ENCODERS = {
    "ViT-H": (1280, 32, 16, (7, 15, 23, 31), 632.0),
    "ViT-L": (1024, 24, 16, (5, 11, 17, 23), 307.0),
    "ViT-B": (768, 12, 12, (2, 5, 8, 11), 86.0),
}
PAPER_TWO_POINTS = {"MobileSAM": (0.73, 0.71, 0.74, 0.73, 0.73), "FastSAM": (0.27, 0.33, 0.37, 0.41, 0.41)}
PAPER_TRAINING = {
    ("2", "decoupled"): 0.75,
    ("2", "coupled"): 0.72,
    ("4", "batch 4, half the steps"): 0.7057,
    ("4", "batch 8, half the steps"): 0.7286,
    ("4", "batch 8, all steps"): 0.7447,
}


@dataclass(frozen=True)
class Row:
    """One number of a table.

    Attributes:
        got: ours; None if it was not measured, which ``how`` then explains.
        paper: as published in the paper or its README; None if it has none.
        how: where ``got`` comes from.
    """

    table: str
    what: str
    unit: str
    got: float | None
    paper: float | None
    how: str


def parameters() -> list[Row]:
    """Tables 1 and 3: counted on built modules."""
    rows = []
    for name, (width, depth, heads, attending, paper) in SAM_ENCODERS.items():
        count = sam_parameters(width, depth, heads, attending)
        rows.append(Row("1", f"SAM {name}, image encoder", "M", count["encoder"], paper, _META))
    rows.append(Row("1", "SAM, mask decoder", "M", count["decoder"], 3.876, _META))
    sam = MobileSam()
    unused = sum(p.numel() for name, p in sam.named_parameters() if ".head." in name or ".norm_head." in name)
    encoder = millions(sam.image_encoder) - unused / 1e6
    whole = encoder + millions(sam.prompt_encoder) + millions(sam.mask_decoder)
    built = "counted on the reference's modules, without TinyViT's unused head"
    rows += [
        Row("3", "MobileSAM, image encoder", "M", encoder, 5.78, built),
        Row("3", "MobileSAM, prompt encoder", "M", millions(sam.prompt_encoder), 0.006, built),
        Row("3", "MobileSAM, mask decoder", "M", millions(sam.mask_decoder), 3.876, built),
        Row("5", "MobileSAM, whole", "M", whole, 9.66, built),
    ]
    return rows


_META = "counted on transformers' module on the meta device"


def sam_parameters(width: int, depth: int, heads: int, whole: Sequence[int]) -> dict[str, float]:
    """Millions of parameters of a SAM that is built without memory."""
    from transformers import SamConfig, SamModel, SamVisionConfig

    vision = SamVisionConfig(
        hidden_size=width, num_hidden_layers=depth, num_attention_heads=heads, global_attn_indexes=list(whole),
        mlp_dim=4 * width,
    )  # fmt: skip
    with torch.device("meta"):
        model = SamModel(SamConfig(vision_config=vision.to_dict()))
    return {"encoder": millions(model.vision_encoder), "decoder": millions(model.mask_decoder)}


def millions(module: nn.Module) -> float:
    """Parameters, in millions."""
    return sum(parameter.numel() for parameter in module.parameters()) / 1e6


def speed(sam: MobileSam, device: str, rounds: int) -> list[Row]:
    """Table 3: milliseconds of the student on the device at hand, median."""
    sam = sam.to(device)
    side = sam.image_size
    image = torch.zeros(1, 3, side, side, device=device)
    points = torch.full((1, 1, 2), side / 2, device=device), torch.ones(1, 1, device=device)
    with torch.inference_mode():
        embedding = sam.image_encoder(image)
        found = {
            "image encoder": median_ms(lambda: sam.image_encoder(image), device, rounds),
            "mask decoder": median_ms(lambda: sam.predict_masks(embedding, points), device, rounds),
        }
    sam.to("cpu")
    how = f"PyTorch, {torch.get_num_threads()} threads, {device}, S = {side}, median of {rounds}"
    paper = {"image encoder": 8.0, "mask decoder": 4.0}  # one GPU
    return [Row("3", f"MobileSAM, {part}, time", "ms", value, paper[part], how) for part, value in found.items()]


def median_ms(run: Callable[[], object], device: str, rounds: int) -> float:
    """After one run that is not counted."""
    samples = []
    for number in range(rounds + 1):
        begin = time.perf_counter()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        if number:
            samples.append(1e3 * (time.perf_counter() - begin))
    return statistics.median(samples)


def training(path: Path) -> list[Row]:
    """Tables 2 and 4: what the training module has written."""
    how = "python -m reference.training reproduce: small scale, our scenes, the bundled model as teacher"
    if not path.is_file():
        missing = f"{path.name} is not there; run {how}"
        return [Row(table, label, "mIoU", None, paper, missing) for (table, label), paper in PAPER_TRAINING.items()]
    rows = json.loads(path.read_text())["rows"]
    return [
        Row(table, label, "mIoU", statistics.fmean(row["miou"]), PAPER_TRAINING.get((table, label)), how)
        for row in rows
        for table, label in [(row["table"], row["label"])]
    ]


def two_points(
    teacher: Callable[[Any, Sequence[tuple[float, float]]], Any],
    student: Callable[[Any, Sequence[tuple[float, float]]], Any],
    photos: Sequence[Photo],
    count: int,
    seed: int = 0,
    side: int = 1024,
) -> dict[int, tuple[float, int]]:
    """Tables 6 and 7: for each distance, mIoU of the student's masks with the teacher's, over how many prompts.

    Args:
        teacher: gives the (H, W) mask of a photo for a foreground and a background point (x, y) in its pixels.
        count: prompts a photo and distance. A teacher's empty mask is left out.
        side: of the frame in whose pixels the distances are.
    """
    scores: dict[int, list[float]] = {distance: [] for distance in DISTANCES}
    for number, photo in enumerate(photos):
        pixels = photo.read()
        height, width = pixels.shape[:2]
        rng = np.random.default_rng([seed, number])
        for distance in DISTANCES:
            for _ in range(count):
                points = two_places(rng, (height, width), distance * max(height, width) / side)
                if points is None:
                    continue
                expected = teacher(pixels, points)
                if expected.any():
                    scores[distance].append(mask_iou(expected, student(pixels, points)))
    return {
        distance: (statistics.fmean(ious) if ious else float("nan"), len(ious)) for distance, ious in scores.items()
    }


def two_places(rng: np.random.Generator, size: tuple[int, int], distance: float) -> list[tuple[float, float]] | None:
    """A foreground and a background point inside a photo of (H, W) ``size``; None if none was found in 1,000 tries."""
    height, width = size
    for _ in range(1000):
        x, y, turn = rng.uniform(0, width - 1), rng.uniform(0, height - 1), rng.uniform(0, 2 * np.pi)
        other = x + distance * np.cos(turn), y + distance * np.sin(turn)
        if 0 <= other[0] <= width - 1 and 0 <= other[1] <= height - 1:
            return [(x, y), other]
    return None


class Asked:
    """A predictor that answers two points with token 0, embedding each photo once."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self._pixels: Any = None

    def __call__(self, pixels: Any, points: Sequence[tuple[float, float]]) -> Any:
        """The (H, W) mask."""
        if self._pixels is not pixels:
            self.predictor.set_image(pixels)
            self._pixels = pixels
        return self.predictor.predict(np.array(points), np.array([1, 0]), multimask_output=False)[0][0]


def fast_sam(weights: str) -> Callable[[Any, Sequence[tuple[float, float]]], Any]:
    """FastSAM by the interface that ultralytics documents; the package is AGPL and the user's own choice.

    Raises:
        ExportError: it is not installed.
    """
    try:
        from ultralytics import FastSAM  # type: ignore[import-not-found, unused-ignore]  # AGPL, the user's own
    except ImportError as error:
        raise ExportError(
            f"FastSAM needs ultralytics ({error}), whose licence is AGPL; install it yourself, or leave out --fastsam"
        ) from error
    model = FastSAM(weights)

    def mask(pixels: Any, points: Sequence[tuple[float, float]]) -> Any:
        places = [[int(x), int(y)] for x, y in points]
        (result,) = model(np.ascontiguousarray(pixels[..., ::-1]), points=[places], labels=[[1, 0]], verbose=False)
        shape = pixels.shape[:2]
        return np.zeros(shape, bool) if result.masks is None else result.masks.data.cpu().numpy().any(0) > 0

    return mask


class TeacherEncoder(nn.Module):
    """A teacher's image encoder where ``MobileSam`` has its own."""

    def __init__(self, teacher: Teacher) -> None:
        super().__init__()
        self.teacher = teacher

    def forward(self, image: Tensor) -> Tensor:
        """Map (1, 3, S, S) to (1, 256, S/16, S/16)."""
        return self.teacher.embed(image)


def teacher_model(source: str, image_size: int) -> MobileSam:
    """The teacher as a model with the reference's interface."""
    teacher = load_teacher(source, image_size)
    model = judge_of(teacher)
    model.image_encoder = TeacherEncoder(teacher)  # type: ignore[assignment]  # stands in
    model.weights_source = teacher.name
    return model


def markdown(rows: Sequence[Row], about: dict[str, Any]) -> str:
    """All tables in one."""
    lines = ["| table | what | ours | paper | how ours was obtained |", "|---|---|---|---|---|"]
    for row in rows:
        got = "not measured" if row.got is None else f"{row.got:.4g} {row.unit}"
        paper = "-" if row.paper is None else f"{row.paper:g} {row.unit}"
        lines.append(f"| {row.table} | {row.what} | {got} | {paper} | {row.how} |")
    here = about["machine"]
    lines += ["", f"Student {about['student']}, teacher {about['teacher']}; {here['cpu']}, {here['date']}."]
    return "\n".join(lines) + "\n"


def measure(arguments: argparse.Namespace) -> tuple[list[Row], dict[str, Any]]:
    """Tables and, unless left out, figures."""
    student = load_mobile_sam(arguments.student, arguments.image_size)
    photos = PHOTOS if arguments.photos is None else own_photos(arguments.photos)
    if arguments.teacher is None:
        teacher = load_mobile_sam(arguments.student, max(32, arguments.image_size // 64 * 32))
        name = f"itself at {teacher.image_size}"
    else:
        teacher = teacher_model(arguments.teacher, arguments.image_size)
        name = teacher.weights_source
    rows: list[Row] = []
    if arguments.only != "figures":
        device = "cuda" if torch.cuda.is_available() else "cpu"
        rows = [*parameters(), *speed(student, device, arguments.rounds), *training(arguments.reproduced)]
        contenders: dict[str, Callable[..., Any]] = {"MobileSAM": Asked(Predictor(student))}
        if arguments.fastsam is not None:
            contenders["FastSAM"] = fast_sam(arguments.fastsam)
        for contender, answers in contenders.items():
            console.print(f"two points: {contender}")
            found = two_points(Asked(Predictor(teacher)), answers, photos, arguments.prompts)
            for (distance, (miou, prompts)), paper in zip(found.items(), PAPER_TWO_POINTS[contender], strict=True):
                how = f"{prompts} prompts on {len(photos)} photos, against {name}; the paper's teacher is SAM ViT-H"
                what = f"{contender}, two points {distance} pixels apart"
                rows.append(Row("6, 7", what, "mIoU", miou if prompts else None, paper, how))
        if "FastSAM" not in contenders:
            rows += [
                Row("6, 7", f"FastSAM, two points {distance} pixels apart", "mIoU", None, paper, "needs --fastsam")
                for distance, paper in zip(DISTANCES, PAPER_TWO_POINTS["FastSAM"], strict=True)
            ]
    if arguments.only != "tables":
        draw_figures(Predictor(teacher), Predictor(student), (name, student.weights_source), photos, arguments.out)
    return rows, {"student": student.weights_source, "teacher": name, "machine": machine()}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.paper", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--student", default="demo", help="official, demo or a checkpoint (default: demo)")
    parser.add_argument("--teacher", help="as of `reference.training evaluate`: hub id, folder, .pth, demo, official")
    parser.add_argument("--photos", type=Path, help="a folder (default: the bundled four)")
    parser.add_argument("--image-size", type=int, default=1024, help="default: 1024")
    parser.add_argument("--prompts", type=int, default=10, help="two-point prompts a photo and distance (default: 10)")
    parser.add_argument("--rounds", type=int, default=5, help="of timing (default: 5)")
    parser.add_argument("--fastsam", metavar="WEIGHTS", help="also ask FastSAM; needs ultralytics (AGPL)")
    parser.add_argument("--only", choices=("tables", "figures"), help="leave out the other")
    parser.add_argument("--reproduced", type=Path, default=RESULTS / "training-reproduce.json", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="DIR", help="folder for the files")
    arguments = parser.parse_args(argv)
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "paper.json"
    try:
        rows, about = measure(arguments)
    except (ExportError, CheckpointError, ImageError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if rows:
        path.write_text(json.dumps({"about": about, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")
        path.with_suffix(".md").write_text(markdown(rows, about))
        print(path, path.with_suffix(".md"), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
