"""The gate is green for what equals the reference, and red for each fault that a conversion can have."""

import copy

import numpy as np
import pytest
import torch

from mobilesam_export.bundle.predictor import BundlePredictor
from mobilesam_export.errors import ExportError, ParityError
from mobilesam_export.parity.cases import PHOTOS, PromptKind
from mobilesam_export.parity.compare import Answers, ask, chosen_by_official_rule
from mobilesam_export.parity.gates import FLOAT16, FLOAT16_WEIGHTS, FLOAT32, Gates
from mobilesam_export.parity.report import ParityReport, judge
from mobilesam_export.pipeline import refuse_failures
from mobilesam_export.targets.choices import gates_for
from reference.mobile_sam import MobileSam
from reference.predictor import Predictor
from tests.randomised import randomised_sam
from tests.reference_runtime import (
    BlackPadding,
    EmptyMasks,
    IgnoredMask,
    NoPaddingPoint,
    NotANumber,
    ReferenceRuntime,
    SwappedRGB,
    SwappedXY,
)

COFFEE = (PHOTOS[1],)  # not square, so that it has padding


@pytest.fixture(scope="module")
def sam() -> MobileSam:
    return randomised_sam(image_size=224)


@pytest.fixture(scope="module")
def expected(sam: MobileSam) -> Answers:
    return ask(Predictor(sam), COFFEE)


def test_each_photo_is_encoded_once_and_each_prompt_decoded_once(sam: MobileSam, expected: Answers) -> None:
    class Counting(ReferenceRuntime):
        encoded = decoded = 0

        def encode(self, image: np.ndarray) -> np.ndarray:
            self.encoded += 1
            return super().encode(image)

        def decode(self, *arguments):  # type: ignore[no-untyped-def]
            self.decoded += 1
            return super().decode(*arguments)

    runtime = Counting(sam)
    answers = ask(BundlePredictor(runtime, "x"), COFFEE, expected)
    assert (runtime.encoded, runtime.decoded) == (1, len(PromptKind))
    assert all(len(answer.masks) == 4 for answer in answers["coffee"].by_kind.values())


def report_on(runtime: ReferenceRuntime, expected: Answers, gates: Gates = FLOAT32) -> ParityReport:
    return judge("fake", gates, expected, ask(BundlePredictor(runtime, "weights"), COFFEE, expected))


def test_the_reference_behind_the_ports_passes_the_strictest_gates(sam: MobileSam, expected: Answers) -> None:
    report = report_on(ReferenceRuntime(sam), expected)
    assert report.passed, report.describe()
    assert report.worst is not None
    assert report.worst.mask_iou > 0.9999  # the same modules; only the order of tokens differs


def one_wrong_weight(sam: MobileSam) -> ReferenceRuntime:
    wrong = copy.deepcopy(sam)
    with torch.no_grad():
        wrong.mask_decoder.transformer.layers[1].cross_attn_token_to_image.v_proj.weight[7] *= -1
    return ReferenceRuntime(wrong)


def one_wrong_encoder_weight(sam: MobileSam) -> ReferenceRuntime:
    wrong = copy.deepcopy(sam)
    with torch.no_grad():
        wrong.image_encoder.neck[2].weight[3] *= -1
    return ReferenceRuntime(wrong)


def stale_attention_bias(sam: MobileSam) -> ReferenceRuntime:
    wrong = copy.deepcopy(sam)
    with torch.no_grad():
        for name, parameter in wrong.named_parameters():
            if name.endswith("attention_biases"):
                parameter.zero_()
    return ReferenceRuntime(wrong)


FAULTS = {
    "one wrong decoder weight": one_wrong_weight,
    "one wrong encoder weight": one_wrong_encoder_weight,
    "stale attention bias": stale_attention_bias,
    "swapped x and y": SwappedXY,
    "missing padding point": NoPaddingPoint,
    "black padding": BlackPadding,
    "swapped red and blue": SwappedRGB,
    "ignored mask input": IgnoredMask,
    "empty masks": EmptyMasks,
    "not a number": NotANumber,
}


@pytest.mark.parametrize("gates", [FLOAT32, FLOAT16_WEIGHTS, FLOAT16], ids=["float32", "float16 weights", "float16"])
@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_turns_every_gate_red(sam: MobileSam, expected: Answers, fault: str, gates: Gates) -> None:
    report = report_on(FAULTS[fault](sam), expected, gates)
    assert not report.passed
    with pytest.raises(ParityError) as raised:
        refuse_failures([report])
    message = str(raised.value)
    assert all(failure.where in message for failure in report.failures)
    assert report.worst is not None
    assert f"lowest mask IoU {report.worst}" in message


def test_a_weight_that_is_a_tenth_off_is_seen_in_float32(sam: MobileSam, expected: Answers) -> None:
    wrong = copy.deepcopy(sam)
    with torch.no_grad():
        wrong.image_encoder.neck[2].weight[3] *= 0.9
    assert not report_on(ReferenceRuntime(wrong), expected).passed


def test_a_missing_padding_point_is_seen_where_there_is_no_box_only(sam: MobileSam, expected: Answers) -> None:
    report = report_on(NoPaddingPoint(sam), expected)
    red = {case.kind for case in report.cases if case.logits_error > FLOAT32.logits.limit}
    assert red == {PromptKind.POINT, PromptKind.POINTS, PromptKind.MASK_REFINEMENT}


def test_an_ignored_mask_is_seen_in_the_prompts_that_give_one(sam: MobileSam, expected: Answers) -> None:
    report = report_on(IgnoredMask(sam), expected)
    red = {case.kind for case in report.cases if case.logits_error > FLOAT32.logits.limit}
    assert red == {PromptKind.MASK_REFINEMENT, PromptKind.MASK_ONLY}


def test_black_padding_is_seen_in_the_embedding(sam: MobileSam, expected: Answers) -> None:
    report = report_on(BlackPadding(sam), expected)
    assert not FLOAT16.embedding_psnr_db.passes(report.embeddings[0].psnr_db)


def test_agreement_on_empty_masks_proves_nothing(sam: MobileSam) -> None:
    nothing = ask(BundlePredictor(EmptyMasks(sam), "weights"), COFFEE)
    report = judge("fake", FLOAT32, nothing, nothing)
    assert report.informative == 0
    assert not report.passed
    assert "no mask is informative" in report.summary()


def test_all_failures_of_all_targets_are_listed(sam: MobileSam, expected: Answers) -> None:
    reports = [report_on(fault(sam), expected) for fault in (SwappedXY, NoPaddingPoint)]
    with pytest.raises(ParityError) as raised:
        refuse_failures(reports)
    lines = str(raised.value).splitlines()
    assert sum(line.startswith("    ") for line in lines) == sum(len(report.failures) for report in reports)


def test_the_report_has_figures_for_every_prompt_kind(sam: MobileSam, expected: Answers) -> None:
    figures = report_on(ReferenceRuntime(sam), expected).as_dict()
    assert set(figures["prompts"]) == {str(kind) for kind in PromptKind}
    assert figures["passed"] is True
    assert figures["gates"]["mask_iou"] == 0.999
    assert figures["embeddings"]["coffee"]["psnr_db"] > 80


def test_a_single_mask_decoder_is_held_to_the_official_choice(expected: Answers) -> None:
    chosen = chosen_by_official_rule(expected, COFFEE)["coffee"].by_kind
    by_kind = expected["coffee"].by_kind
    best = 1 + int(by_kind[PromptKind.POINT].iou_predictions[1:].argmax())
    assert np.array_equal(chosen[PromptKind.POINT].masks, by_kind[PromptKind.POINT].masks[[best]])
    assert np.array_equal(chosen[PromptKind.POINTS].masks, by_kind[PromptKind.POINTS].masks[:1])


def test_float32_asks_for_more_than_float16() -> None:
    assert gates_for("onnx", "float32").mask_iou.limit == 0.999
    assert gates_for("coreml", "float16").mask_iou.limit == 0.99
    assert gates_for("tflite", "float16").mask_iou.limit == 0.995


def test_a_precision_without_gates_is_refused() -> None:
    with pytest.raises(ExportError, match=r"float7.*expected one of float32, float16"):
        gates_for("onnx", "float7")


def test_every_gate_says_why() -> None:
    assert all(len(gate.reason) > 10 for gates in (FLOAT32, FLOAT16, FLOAT16_WEIGHTS) for gate in gates.all().values())
