"""Exceptions on real files of every target: a part that is one is not rounded, and the others are as before."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from mobilesam_export.bundle.checksums import size_bytes
from mobilesam_export.errors import ExportError
from mobilesam_export.precision_plan.plan import PrecisionPlan, refuse_unknown_parts
from mobilesam_export.targets import named
from mobilesam_export.targets.target import Draft
from mobilesam_export.targets.tflite.recipes import RECIPES
from mobilesam_export.targets.tflite.write import TFLiteDraft
from reference.mobile_sam import MobileSam
from tests.randomised import randomised_sam

SIZE = 64
BLOCK = "stages.1.blocks.2"
FLOAT32 = 2e-5  # sums in another order
CASES = ("onnx float16", "onnx int8", "coreml float16", "coreml int8", "tflite float16", "tflite int8")


@dataclass(frozen=True)
class Errors:
    """Mean differences to the reference, in parts of its mean magnitude, and the files' size."""

    embedding: float
    logits: float
    size_bytes: int


@pytest.fixture(scope="module")
def sam() -> MobileSam:
    return randomised_sam(image_size=SIZE)


@pytest.fixture(scope="module")
def drafts(sam: MobileSam) -> dict[str, Draft]:
    """Filled as they are asked for; TFLite's are converted once."""
    return {}


def draft(case: str, sam: MobileSam, drafts: dict[str, Draft]) -> Draft:
    target, precision = case.split()
    if case not in drafts:
        if case == "tflite int8" and "tflite float16" in drafts:
            other = drafts["tflite float16"]
            assert isinstance(other, TFLiteDraft)
            drafts[case] = TFLiteDraft(other.converted, precision, RECIPES["int8"], None, {}, lambda _: None)
        else:
            drafts[case] = named(target).draft(
                sam, precision=precision, options={}, calibration=None, metadata={}, progress=lambda _: None
            )
    return drafts[case]


def errors(case: str, drafted: Draft, exceptions: tuple[str, ...], folder: Path, sam: MobileSam) -> Errors:
    paths = drafted.write(folder, exceptions)
    runtime = named(case.split()[0]).open(*paths)
    image = np.random.default_rng(0).integers(0, 256, (1, 3, SIZE, SIZE)).astype(np.float32)
    coords, labels = np.array([[[20.0, 30.0], [0.0, 0.0]]], np.float32), np.array([[1.0, -1.0]], np.float32)
    with torch.inference_mode():
        embedding = sam.image_encoder(sam.normalise_and_pad(torch.from_numpy(image)))
        point = (torch.from_numpy(coords[:, :1]), torch.from_numpy(labels[:, :1]))
        logits = sam.predict_masks(embedding, point)[0].numpy()
    encoded, decoded = runtime.encode(image), runtime.decode(embedding.numpy(), coords, labels, None)[0]
    return Errors(
        float(np.abs(encoded - embedding.numpy()).mean() / embedding.abs().mean()),
        float(np.abs(decoded - logits).mean() / np.abs(logits).mean()),
        sum(map(size_bytes, paths)),
    )


@pytest.mark.parametrize("case", CASES)
def test_exceptions_are_not_rounded_and_the_rest_is(
    case: str, sam: MobileSam, drafts: dict[str, Draft], tmp_path: Path
) -> None:
    drafted = draft(case, sam, drafts)
    parts = drafted.parts
    assert BLOCK in parts
    assert ("output_upscaling" in parts) == case.endswith("float16")  # recipes leave it as it is
    none = errors(case, drafted, (), tmp_path, sam)
    assert none.embedding > 10 * FLOAT32
    one = errors(case, drafted, (BLOCK,), tmp_path, sam)
    assert one.size_bytes > none.size_bytes
    assert one.embedding != none.embedding
    all_of_them = errors(case, drafted, parts, tmp_path, sam)
    assert all_of_them.size_bytes > one.size_bytes
    if case == "coreml int8" or case == "tflite int8":  # what is not compressed there is float16
        assert all_of_them.embedding < none.embedding / 2
    else:
        assert all_of_them.embedding < FLOAT32
        # What belongs to no part of the decoder stays rounded: learned tokens, positions, sums between the parts.
        assert all_of_them.logits < (none.logits if case.endswith("float16") else FLOAT32)


def test_a_plan_with_a_part_that_the_graph_lacks_is_refused(sam: MobileSam, drafts: dict[str, Draft]) -> None:
    parts = draft("onnx int8", sam, drafts).parts
    plan = PrecisionPlan("onnx", SIZE, "int8", (BLOCK, "output_upscaling"), "0" * 64, 0.99)
    with pytest.raises(ExportError, match="got exceptions output_upscaling in the plan, expected parts that onnx int8"):
        refuse_unknown_parts(plan, parts)
    refuse_unknown_parts(PrecisionPlan("onnx", SIZE, "int8", (BLOCK,), "0" * 64, 0.99), parts)
