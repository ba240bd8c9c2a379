"""Measured parity as a manifest holds it, read from whatever somebody wrote."""

import json

from mobilesam_export.errors import ExportError
from mobilesam_export.json_fields import Field


def check_parity(field: Field) -> None:
    """Figures that can be shown and judged; a later version may say more."""
    parity = field.entries()
    for name in ("passed", "failures", "worst_mask", "embeddings", "prompts", "gates"):
        if name not in parity:
            raise ExportError(f"{field.where} has no {name!r}; export again")
    failures = [failure.text() for failure in parity["failures"].items()]
    if parity["passed"].boolean() == bool(failures):
        parity["passed"].refuse(f"{json.dumps(not failures)}, as there are {len(failures)} failures")
    if parity["worst_mask"].value is not None:
        worst = parity["worst_mask"].record("photo", "prompt", "mask", "mask_iou")
        worst["mask_iou"].number()
        for name in ("photo", "prompt", "mask"):
            worst[name].text(200)
    for name in ("embeddings", "prompts", "gates"):
        if not parity[name].entries():
            parity[name].refuse("at least one entry")
    for embedding in parity["embeddings"].entries().values():
        for figure in embedding.record("cosine", "psnr_db").values():
            figure.number()
    for prompt in parity["prompts"].entries().values():
        figures = prompt.record(
            "masks",
            "informative_masks",
            "mask_iou_min",
            "mask_iou_mean",
            "logits_error_max",
            "iou_prediction_error_max",
            *({"enlarging_error_max"} & prompt.entries().keys()),  # of an official decoder
        )
        informative = figures["informative_masks"].integer(0, figures["masks"].integer(1, 1 << 31))
        for name in ("mask_iou_min", "mask_iou_mean"):
            if informative or figures[name].value is not None:
                figures[name].number()
        for name in figures.keys() - {"masks", "informative_masks", "mask_iou_min", "mask_iou_mean"}:
            figures[name].number()
    for gate in parity["gates"].entries().values():
        gate.number()
    if "judged" in parity:
        judged = parity["judged"].record("level", "photos", "min_iou")
        judged["level"].text(), judged["photos"].text()
        if judged["min_iou"].value is not None:
            judged["min_iou"].number()
