"""Everything mode on real artifacts: the official record on ONNX, agreement with PyTorch on all. Minutes each."""

from pathlib import Path

import numpy as np
import pytest

import mobilesam_export
from mobilesam_export.bundle.predictor import BundlePredictor
from mobilesam_export.photos import PHOTO_DIR
from mobilesam_export.targets.onnx.runtime import OnnxRuntime
from mobilesam_export.targets.onnx.write import write
from reference import EverythingOptions, FoundMask, Predictor, load_mobile_sam, segment_everything
from reference.checkpoint import stand_in_mobile_sam
from reference.images import read_image
from tests.reference import golden
from tests.reference.test_golden import EVERYTHING, assert_everything

pytestmark = pytest.mark.slow
ASKED = EverythingOptions(points_per_side=8, pred_iou_thresh=0.4, stability_score_thresh=0.6)


def test_the_onnx_files_find_what_the_official_generator_found(tmp_path: Path) -> None:
    runtime = OnnxRuntime(*write(stand_in_mobile_sam(1024), tmp_path))
    predictor = BundlePredictor(runtime, "stand-in")
    for photo in ("astronaut", "coffee"):
        assert_everything(photo, segment_everything(predictor, golden.photo(photo), EVERYTHING))


def agreement(expected: list[FoundMask], found: list[FoundMask]) -> tuple[float, float]:
    """Part of the expected masks that were found again (IoU at least 0.9), and the mean IoU of these."""
    masks = [mask.mask for mask in found]
    best = np.array([max((golden.mask_iou(one.mask, mask) for mask in masks), default=0) for one in expected])
    return float((best >= 0.9).mean()), float(best[best >= 0.9].mean())


@pytest.mark.parametrize("target", ["onnx", "tflite", "coreml"])
def test_every_target_finds_what_pytorch_finds(target: str, tmp_path: Path) -> None:
    sam = load_mobile_sam("demo", 512)
    mobilesam_export.export(sam, targets=[target], out_dir=tmp_path / "dist", verify=False)
    recalls, ious = [], []
    with mobilesam_export.load_bundle(tmp_path / "dist", target=target) as predictor:
        for name in ("coffee", "chelsea"):
            photo = read_image(PHOTO_DIR / f"{name}.png")
            expected = segment_everything(Predictor(sam), photo, ASKED)
            found = segment_everything(predictor, photo, ASKED)
            assert len(expected) > 3
            recall, mean_iou = agreement(expected, found)
            recalls.append(recall)
            ious.append(mean_iou)
            print(
                f"{target} {name}: {len(expected)} and {len(found)} masks, recall {recall:.3f}, mean IoU {mean_iou:.5f}"
            )
    assert min(recalls) >= 0.95  # a threshold may fall between two roundings
    assert min(ious) >= 0.99
