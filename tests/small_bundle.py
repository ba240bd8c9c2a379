"""A bundle of a few bytes, with a manifest like a real one, made without PyTorch."""

from pathlib import Path
from typing import Any

from mobilesam_export.bundle.described_contract import describe_contract
from mobilesam_export.bundle.manifest import FileEntry, Manifest, TargetEntry, Weights
from mobilesam_export.contract import Contract, Written

WEIGHTS, OTHER_WEIGHTS = "0" * 64, "1" * 64
SIZE = 64

PARITY: dict[str, Any] = {
    "passed": True,
    "failures": [],
    "worst_mask": {"photo": "coffee", "prompt": "box", "mask": "single mask", "mask_iou": 0.9995},
    "informative_masks": 0.75,
    "embeddings": {"coffee": {"cosine": 0.9999999, "psnr_db": 120.5}},
    "prompts": {
        "box": {
            "masks": 4,
            "informative_masks": 3,
            "mask_iou_min": 0.9995,
            "mask_iou_mean": 0.9998,
            "logits_error_max": 1e-5,
            "iou_prediction_error_max": 1e-6,
        }
    },
    "gates": {"mask_iou": 0.999},
    "judged": {"level": "full", "photos": "bundled", "min_iou": None},
}


def written(contract: Contract, **metadata: str) -> Written:
    """Files that say exactly what the contract says."""
    return Written(
        contract.encoder_inputs,
        contract.encoder_outputs,
        contract.decoder_inputs,
        contract.decoder_outputs,
        contract.max_points,
        metadata,
    )


def write_bundle(directory: Path, target: str = "onnx", weights: str = WEIGHTS, content: bytes = b"abc") -> Manifest:
    """Write two files, an overlay picture and their manifest."""
    folder = directory / target
    folder.mkdir(parents=True)
    for part in ("encoder", "decoder"):
        (folder / f"mobile_sam_{part}.{target}").write_bytes(content + part.encode())
    (directory / f"overlay-{target}.png").write_bytes(content)
    entry = TargetEntry(
        target,
        "float32",
        {"max_points": 8},
        describe_contract(SIZE, written(Contract(SIZE, 8))),
        [FileEntry.of(path, directory) for path in sorted(folder.iterdir(), reverse=True)],
        PARITY,
        {"python": "3.11"},
        {"remarks": [1, {"deep": None}]},
    )
    manifest = Manifest(Weights("demo", weights, "a notice"), SIZE, {target: entry})
    manifest.write(directory)
    return manifest
