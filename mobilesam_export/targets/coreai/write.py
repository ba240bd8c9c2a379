"""Write MobileSAM as one Core AI asset, ``mobile_sam_combined.aimodel``, of the functions ``encode`` and ``decode``."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from timm.models.repvit import RepVit
from torch import nn

from mobilesam_export.contract import DEFAULT_MAX_POINTS, Contract
from mobilesam_export.errors import ExportError
from mobilesam_export.targets.coreai.asset import open_asset
from mobilesam_export.targets.coreai.backend import load_coreai, quiet
from mobilesam_export.targets.coreai.convert import convert
from mobilesam_export.targets.coreai.graphs import (
    ConvNetEncoderCoreAI,
    EncoderCoreAI,
    ImageEncoderCoreAI,
    InFloat16,
    PromptDecoderCoreAI,
    RepVitEncoderCoreAI,
)
from mobilesam_export.targets.coreai.metadata import PORTS, annotate, meanings_of, shown_metadata
from mobilesam_export.targets.coreai.runtime import executed_by
from reference.image_encoder import TimmFeatures
from reference.mobile_sam import MobileSam

ASSET_NAME = "mobile_sam_combined.aimodel"
PRECISIONS = ("float32", "float16", "int8")


def write(
    sam: MobileSam,
    out_dir: Path,
    *,
    precision: str = "float32",
    max_points: int = DEFAULT_MAX_POINTS,
    metadata: Mapping[str, str] | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Path]:
    """Convert and save the asset.

    Args:
        sam: the reference, in eval mode.
        out_dir: an existing folder; an asset of the same name is replaced.
        precision: ``float32``, ``float16``, or ``int8``: weights of 8 bits with a scale an output channel,
            between float32 activations.
        max_points: slots of the decoder; unused ones are labelled -2.
        metadata: entries for the asset.
        progress: told each step.

    Raises:
        ExportError: an unknown precision, or it cannot be written there; nothing half-written is left.
    """
    if precision not in PRECISIONS:
        raise ExportError(f"got precision {precision!r}, expected one of {', '.join(PRECISIONS)} for Core AI")
    load_coreai()
    contract = Contract(sam.image_size, max_points)
    make: type[EncoderCoreAI]
    match sam.image_encoder.body:
        case RepVit():
            make = RepVitEncoderCoreAI
        case TimmFeatures():
            make = ConvNetEncoderCoreAI
        case _:
            make = ImageEncoderCoreAI
    encoder, decoder = make(sam), PromptDecoderCoreAI(sam)
    graphs: dict[str, nn.Module] = {"encode": encoder, "decode": decoder}
    if precision == "float16":
        graphs = {
            "encode": InFloat16(encoder, [port.name for port in contract.encoder_inputs]),
            "decode": InFloat16(decoder, [port.name for port in contract.decoder_inputs]),
        }
    progress("converting both graphs to a Core AI program")
    program = convert(graphs, contract)
    if precision == "int8":
        progress("compressing: int8")
        program = _with_8_bit_weights(program)
    path = out_dir / ASSET_NAME
    progress(f"saving {ASSET_NAME}")
    _save(program, path, {"precision": precision, **(metadata or {}), PORTS: meanings_of(contract)})
    return [path]


def _with_8_bit_weights(program: Any) -> Any:
    """The program with 8-bit weights; those of fewer than 1,024 elements stay, coordinates' among them."""
    from coreai_opt.coreai_utils import CompressionGranularity, DType, quantize_weights

    with quiet():
        return quantize_weights(program, dtype=DType.INT8, granularity=CompressionGranularity.PER_CHANNEL)


def _save(program: Any, path: Path, entries: Mapping[str, Any]) -> None:
    try:
        with quiet():
            program.save_asset(path, shown_metadata())
        annotate(path, entries)
    except (OSError, RuntimeError) as error:
        shutil.rmtree(path, ignore_errors=True)
        reason = (str(error.__cause__ or error).strip() or "no message").splitlines()[0]
        raise ExportError(f"cannot write {path} ({reason}); choose another place with --out") from error


def notes(paths: Sequence[Path]) -> dict[str, Any]:
    """What the asset is made of, for the manifest."""
    (path,) = paths
    summary = open_asset(path).summary(include_statistics=True)
    return {
        "executed_by": executed_by(),
        "transposes": dict(summary.operation_distribution).get("transpose", 0),
        "stored_elements": dict(summary.storage_types),
    }


def record_parity(paths: Sequence[Path], summary: str) -> None:
    """Write measured parity into the asset; its hash changes."""
    for path in paths:
        annotate(path, {"parity": f"{summary} ({executed_by()})"})
