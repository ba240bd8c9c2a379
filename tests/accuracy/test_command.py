"""``mobilesam-export accuracy``: its figures are those of a computation that shares no code with it."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from pycocotools.coco import COCO
from torch import Tensor
from torch.nn import functional as F

from mobilesam_export import cli
from reference.checkpoint import load_mobile_sam
from reference.mobile_sam import MobileSam
from reference.training import __main__ as training
from tests.fake_target import install

SIZE, SCENES = 128, 8
FRAME = (128, 96)  # the model frame's part that a scene of 160 x 120 takes
Mask = NDArray[np.bool_]


@pytest.fixture(scope="module")
def sam() -> MobileSam:
    return load_mobile_sam("demo", SIZE)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Held-out scenes as COCO, cut to 160 x 120 so that x and y differ and neither side is the model frame's."""
    folder = tmp_path_factory.mktemp("scenes")
    arguments = ["scenes", "--coco", str(folder), "--split", "held-out", "--count", str(SCENES), "--image-size", "160"]
    assert training.main(arguments) == 0
    document = json.loads((folder / "instances.json").read_text())
    whole = COCO(folder / "instances.json")
    kept = []
    for annotation in document["annotations"]:
        mask = whole.annToMask(annotation)[:120].astype(bool)
        if not mask.any():
            continue
        rows, columns = np.nonzero(mask)
        box = [int(n) for n in (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)]
        runs = np.flatnonzero(np.diff(mask.T.reshape(-1).astype(int), prepend=0, append=0))
        counts = np.diff([0, *runs, mask.size] if mask.T.reshape(-1)[-1] == 0 else [0, *runs]).tolist()
        code = {"size": [120, 160], "counts": counts}
        kept.append({**annotation, "area": int(mask.sum()), "bbox": box, "segmentation": code})
    for record in document["images"]:
        record["height"] = 120
        path = folder / "images" / record["file_name"]
        Image.open(path).crop((0, 0, 160, 120)).save(path)
    (folder / "instances.json").write_text(json.dumps({**document, "annotations": kept}))
    return folder


class Independent:
    """The protocols anew: PyTorch, pycocotools, OpenCV."""

    def __init__(self, sam: MobileSam, scenes: Path) -> None:
        self.sam = sam
        self.scores: dict[str, list[float]] = {"box": [], "box best": [], "click": [], "clicks:3": []}
        self.off: list[float] = []
        coco = COCO(scenes / "instances.json")
        for photo in coco.dataset["images"]:
            pixels = Image.open(scenes / "images" / photo["file_name"])
            small = (
                torch.from_numpy(np.array(pixels.resize(FRAME, Image.Resampling.BILINEAR)))
                .permute(2, 0, 1)[None]
                .float()
            )
            mean, std = (torch.tensor(n).reshape(3, 1, 1) for n in ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)))
            with torch.inference_mode():
                embedding = sam.image_encoder(F.pad((small - mean) / std, (0, 0, 0, SIZE - FRAME[1])))
            for annotation in coco.imgToAnns[photo["id"]]:
                self._one(embedding, annotation, coco.annToMask(annotation).astype(bool))

    @torch.inference_mode()
    def _one(self, embedding: Tensor, annotation: dict[str, Any], truth: Mask) -> None:
        x, y, w, h = annotation["bbox"]
        box = torch.tensor([[x, y, x + w, y + h]]).float() * FRAME[0] / 160
        low_res, quality = self.sam.predict_masks(embedding, boxes=box)
        ious = [self._iou(low_res[0, row], truth) for row in range(4)]
        self.scores["box"].append(ious[int(quality.argmax())])
        self.scores["box best"].append(max(ious))
        self.off.append(abs(float(quality.max()) - ious[int(quality.argmax())]))

        points, labels = [self._deepest(truth)[1]], [1]
        low_res, quality = self.sam.predict_masks(embedding, self._points(points, labels))
        logits = low_res[:, 1 + int(quality[0, 1:].argmax())][:, None]
        self.scores["click"].append(self._iou(logits[0, 0], truth))
        for _ in range(2):
            mask = self._mask(logits[0, 0])
            missed, excess = self._deepest(truth & ~mask), self._deepest(mask & ~truth)
            points.append(missed[1] if missed[0] >= excess[0] else excess[1])
            labels.append(int(missed[0] >= excess[0]))
            logits = self.sam.predict_masks(embedding, self._points(points, labels), mask_input=logits)[0][:, :1]
        self.scores["clicks:3"].append(self._iou(logits[0, 0], truth))

    @staticmethod
    def _points(points: list[tuple[int, int]], labels: list[int]) -> tuple[Tensor, Tensor]:
        return torch.tensor([points]).float() * FRAME[0] / 160, torch.tensor([labels]).float()

    @staticmethod
    def _mask(logits: Tensor) -> Mask:
        frame = F.interpolate(logits[None, None], (SIZE, SIZE), mode="bilinear")[..., : FRAME[1], : FRAME[0]]
        return (F.interpolate(frame, (120, 160), mode="bilinear")[0, 0] > 0).numpy()

    def _iou(self, logits: Tensor, truth: Mask) -> float:
        mask = self._mask(logits)
        return float((mask & truth).sum() / (mask | truth).sum())

    @staticmethod
    def _deepest(mask: Mask) -> tuple[float, tuple[int, int]]:
        padded = np.pad(mask, 1).astype(np.uint8)
        distance = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
        y, x = np.argwhere(distance > distance.max() - 1e-4)[0]
        return round(float(distance.max()), 3), (int(x), int(y))


@pytest.fixture(scope="module")
def independent(sam: MobileSam, scenes: Path) -> Independent:
    return Independent(sam, scenes)


def measure(scenes: Path, out: Path, *more: str) -> dict[str, Any]:
    data = ["--images", str(scenes / "images"), "--annotations", str(scenes / "instances.json")]
    prompts = [word for name in ("box", "click", "clicks:3") for word in ("--prompt", name)]
    assert cli.main(["accuracy", *more, *data, *prompts, "--out", str(out), "-q"]) == 0
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def check(report: dict[str, Any], independent: Independent) -> None:
    prompts = report["prompts"]
    assert prompts["box"]["objects"] == len(independent.off) >= 8
    for name in ("box", "click", "clicks:3"):
        assert prompts[name]["miou"]["mean"] == pytest.approx(np.mean(independent.scores[name]), abs=1e-6)
    assert prompts["box"]["best_miou"] == pytest.approx(np.mean(independent.scores["box best"]), abs=1e-6)
    assert prompts["box"]["predicted_iou"]["mean_absolute_error"] == pytest.approx(np.mean(independent.off), abs=1e-4)
    assert prompts["clicks:3"]["miou_after_each_click"][0] == pytest.approx(prompts["click"]["miou"]["mean"])
    for name in ("box", "click"):
        assert prompts[name]["miou"]["low"] <= prompts[name]["miou"]["mean"] <= prompts[name]["miou"]["high"]


def test_a_checkpoint_is_as_good_as_an_independent_computation_says(
    scenes: Path, tmp_path: Path, independent: Independent, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report.json"
    report = measure(scenes, out, "--checkpoint", "demo", "--image-size", str(SIZE), "--cache", str(tmp_path / "cache"))
    check(report, independent)
    assert capsys.readouterr().out.strip() == str(out)
    assert report["photos"]["measured"] == SCENES
    assert report["subject"]["target"] == "reference"
    assert report["subject"]["weights_sha256"]
    assert report["dataset"]["kind"] == "COCO"
    again = measure(scenes, out, "--checkpoint", "demo", "--image-size", str(SIZE))
    assert again["photos_of_this_run"] == 0
    assert again["prompts"] == report["prompts"]


def test_a_bundle_is_measured_with_its_own_runtime(
    scenes: Path, tmp_path: Path, sam: MobileSam, independent: Independent, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, sam)
    dist = str(tmp_path / "dist")
    assert (
        cli.main(["export", "--checkpoint", "demo", "--image-size", str(SIZE), "--out", dist, "--no-verify", "-q"]) == 0
    )
    report = measure(scenes, tmp_path / "report.json", dist)
    check(report, independent)
    assert report["subject"]["target"] == "onnx"
    assert set(report["subject"]["files_sha256"]) == {
        "onnx/mobile_sam_encoder.fake",
        "onnx/mobile_sam_decoder.fakepackage",
    }


def test_the_table_says_what_a_person_wants_to_know(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = [
        "--images",
        str(scenes / "images"),
        "--annotations",
        str(scenes / "instances.json"),
        "--limit",
        "1",
        "--json",
    ]
    out = ["--out", str(tmp_path / "report.json")]
    assert cli.main(["accuracy", "--checkpoint", "demo", "--image-size", str(SIZE), *data, *out]) == 0
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert report["photos"]["measured"] == 1
    assert f"{100 * report['prompts']['box']['miou']['mean']:.2f}" in captured.err
    assert "weights demo" in captured.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "give either a bundle or --checkpoint"),
        (["dist", "--checkpoint", "demo"], "give either a bundle or --checkpoint"),
        (["dist", "--image-size", "64"], "--image-size is of a checkpoint"),
        (["--checkpoint", "demo", "--target", "onnx"], "--target is of a bundle"),
        (["dist", "--prompt", "boxes"], "got prompt 'boxes'"),
        (["dist", "--out", "report.txt"], "expected a name that ends in .json"),
        (["dist"], "for --images, expected a folder of photos"),
    ],
)
def test_wrong_usage_is_told_at_once(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["accuracy", *arguments, "--images", "/nowhere"]) == 1
    assert told in capsys.readouterr().err


def test_a_report_of_somebody_else_is_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "accuracy.json").write_text("{}")
    arguments = ["--checkpoint", "demo", "--images", str(tmp_path), "--out", str(tmp_path / "accuracy.json")]
    assert cli.main(["accuracy", *arguments]) == 1
    assert "exists; choose another --out" in capsys.readouterr().err
