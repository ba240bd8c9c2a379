"""Write MobileSAM for LiteRT (TFLite): ``mobile_sam_encoder.tflite`` and ``mobile_sam_decoder.tflite``, or both in one.

Signatures ``encode`` and ``decode`` with the contract's names. Two layouts differ from the contract, for
the sake of the delegates: ``image`` is (1, S, S, 3) and ``image_embeddings`` (1, S/16, S/16, 256) in both
files, so that the embedding goes from one to the other as it is.
"""

import platform
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.models.repvit import RepVit
from torch import Tensor, nn

from mobilesam_export.chatter import without_log_of, without_native_chatter
from mobilesam_export.contract import DEFAULT_MAX_POINTS
from mobilesam_export.errors import ExportError
from mobilesam_export.npu_lint import lint
from mobilesam_export.targets.tflite.conv_net import ConvNetEncoderTflite
from mobilesam_export.targets.tflite.decoder import PromptDecoderTflite
from mobilesam_export.targets.tflite.encoder import ImageEncoderTflite
from mobilesam_export.targets.tflite.precision import Samples, calibration_samples, quantise, quantised_parts
from mobilesam_export.targets.tflite.recipes import RECIPES, QuantisationRecipe
from mobilesam_export.targets.tflite.repvit import RepVitEncoderTflite
from reference.image_encoder import TimmFeatures
from reference.mobile_sam import MobileSam

ENCODER_FILE, DECODER_FILE, COMBINED_FILE = (f"mobile_sam_{name}.tflite" for name in ("encoder", "decoder", "combined"))
PRECISIONS = ("float32", "float16")
IMAGE_INPUTS = {"float32": torch.float32, "uint8": torch.uint8}

Sample = dict[str, Tensor]
Graph = tuple[str, nn.Module, Sample]  # signature, module, named inputs


def write(sam: MobileSam, out_dir: Path, **arguments: Any) -> list[Path]:
    """Convert, simplify and check both graphs; whole files or none.

    Args:
        sam: the reference, in eval mode.
        out_dir: an existing directory.
        arguments: of ``draft``.

    Returns:
        The files written.
    """
    return draft(sam, **arguments).write(out_dir)


def draft(
    sam: MobileSam,
    *,
    precision: str = "float32",
    image_input: str = "float32",
    max_points: int = DEFAULT_MAX_POINTS,
    combined: bool = False,
    calibration: Sequence[Path] | None = None,
    metadata: Mapping[str, str] | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> "TFLiteDraft":
    """Convert and simplify both graphs, for files of a precision.

    Args:
        sam: the reference, in eval mode.
        precision: ``float32``, ``float16`` for float16 weights and tables, or a name in ``recipes.RECIPES``.
        image_input: dtype of the encoder's ``image``; ``uint8`` for a bitmap padded with ``PAD_COLOUR_8BIT``.
        max_points: slots for points and box corners.
        combined: one file with both signatures; not for a recipe, see ``Target.refuse``.
        calibration: photos for static recipes, taken mirrored; the bundled ones if None.
        metadata: stored in the files' metadata table.
        progress: told what is being done.

    Raises:
        ExportError: an unknown option, or no converter on this platform.
    """
    recipe = RECIPES.get(precision)
    if precision not in PRECISIONS and recipe is None:
        raise ExportError(
            f"got precision {precision!r}, expected one of {', '.join((*PRECISIONS, *RECIPES))} for TFLite"
        )
    if image_input not in IMAGE_INPUTS:
        raise ExportError(f"got image input {image_input!r}, expected {' or '.join(IMAGE_INPUTS)} for TFLite")
    if max_points < 1:
        raise ExportError(f"got max_points {max_points}, expected at least 1; the default is {DEFAULT_MAX_POINTS}")
    samples = None
    if recipe is not None and recipe.kind == "static":
        dtype = np.uint8 if image_input == "uint8" else np.float32
        samples = calibration_samples(sam.image_size, dtype, calibration)
    litert_torch = load_converter()
    from mobilesam_export.targets.tflite.flatbuffer import read_model, write_model
    from mobilesam_export.targets.tflite.passes.simplify import simplify

    eight_bit = image_input == "uint8"
    encoder: nn.Module
    match sam.image_encoder.body:
        case RepVit():
            encoder = RepVitEncoderTflite(sam, eight_bit)
        case TimmFeatures():
            encoder = ConvNetEncoderTflite(sam, eight_bit)
        case _:
            encoder = ImageEncoderTflite(sam, eight_bit, halve=precision == "float32")
    encode: Graph = ("encode", encoder, encoder_sample(sam.image_size, IMAGE_INPUTS[image_input]))
    decode: Graph = ("decode", PromptDecoderTflite(sam, max_points), decoder_sample(sam.image_size, max_points))
    plan = {COMBINED_FILE: [encode, decode]} if combined else {ENCODER_FILE: [encode], DECODER_FILE: [decode]}
    converted = {}
    with tempfile.TemporaryDirectory(prefix="tflite-") as folder:
        for name, signatures in plan.items():
            path = Path(folder) / name
            progress(f"converting {name}")
            convert(litert_torch, signatures, path)
            progress(f"simplifying {name}")
            model = read_model(path)
            simplify(model)
            write_model(model, path)
            converted[name] = (signatures[0][0], path.read_bytes())
    return TFLiteDraft(converted, precision, recipe, samples, metadata or {}, progress)


class TFLiteDraft:
    """Both graphs in float32, and what writes them in their precision; see ``targets.target.Draft``.

    Args:
        converted: by file name, each's first signature and bytes.
        samples: to calibrate a static recipe with.
    """

    def __init__(
        self,
        converted: Mapping[str, tuple[str, bytes]],
        precision: str,
        recipe: QuantisationRecipe | None,
        samples: Samples | None,
        metadata: Mapping[str, str],
        progress: Callable[[str], None],
    ) -> None:
        self.converted, self.precision, self.recipe, self.samples = converted, precision, recipe, samples
        self.metadata, self.progress = metadata, progress

    @property
    def parts(self) -> tuple[str, ...]:
        """See ``Draft``."""
        from mobilesam_export.targets.tflite.flatbuffer import read_model
        from mobilesam_export.targets.tflite.passes.compact import compact
        from mobilesam_export.targets.tflite.passes.float16 import rounded_parts

        found: dict[str, None] = {}
        with tempfile.TemporaryDirectory(prefix="tflite-") as folder:
            for name, (signature, content) in self.converted.items():
                if self.precision == "float32" or (self.recipe is not None and signature != "encode"):
                    continue
                path = Path(folder) / name
                path.write_bytes(content)
                model = read_model(path)
                compact(model)
                parts = rounded_parts(model) if self.recipe is None else quantised_parts(model, self.recipe)
                found |= dict.fromkeys(parts)
        return tuple(found)

    def write(self, out_dir: Path, exceptions: Collection[str] = ()) -> list[Path]:
        """See ``Draft``.

        Raises:
            ExportError: a graph misses a delegate's gates; nothing is written then.
        """
        from mobilesam_export.targets.tflite.delegates import inspect_delegates
        from mobilesam_export.targets.tflite.flatbuffer import read_model, set_metadata, write_model

        with tempfile.TemporaryDirectory(dir=out_dir, prefix=".tflite-") as folder:
            staged = []
            for name, (signature, content) in self.converted.items():
                path = Path(folder) / name
                path.write_bytes(content)
                if self.precision != "float32":
                    self.progress(f"compressing {name} to {self.precision}")
                    compress(path, self.recipe, signature, self.samples, exceptions)
                model = read_model(path)
                set_metadata(model, self.metadata)
                staged.append(write_model(model, path))
            on_cpu = self.recipe is None or self.recipe.activation_bits != 16
            reports = [report for path in staged for report in inspect_delegates(path)]
            problems = [problem for report in reports for problem in report.problems(xnnpack=on_cpu)]
            if problems:
                raise ExportError("the delegates refuse the graph: " + "; ".join(problems))
            return [path.replace(Path(out_dir) / path.name) for path in staged]


def compress(
    path: Path,
    recipe: QuantisationRecipe | None,
    signature: str,
    calibration: Samples | None = None,
    exceptions: Collection[str] = (),
) -> None:
    """Make a written float32 file smaller in place.

    Args:
        path: a simplified file; of one signature if there is a recipe.
        recipe: of ``recipes``, for the encoder; None for float16 weights only.
        signature: ``encode`` or ``decode``.
        calibration: for a static recipe.
        exceptions: parts of the graph that stay float32, or float16 weights if there is a recipe.
    """
    from mobilesam_export.targets.tflite.flatbuffer import read_model, write_model
    from mobilesam_export.targets.tflite.passes.compact import compact
    from mobilesam_export.targets.tflite.passes.float16 import store_float16

    model = read_model(path)
    compact(model)
    if recipe is not None and signature == "encode":
        write_model(model, path)
        quantise(path, replace(recipe, keep_float=(*recipe.keep_float, *exceptions)), calibration)
        model = read_model(path)
    store_float16(model, () if recipe is not None else exceptions)
    write_model(model, path)


def notes(paths: Sequence[Path]) -> dict[str, Any]:
    """The delegate report for the manifest: operators, axes, XNNPACK partitions, and the GPU accelerator's verdict.

    And what an NPU would say.

    The accelerator runs only if ``VK_DRIVER_FILES`` or ``VK_ICD_FILENAMES`` names a Vulkan driver, see ``gpu``;
    a software driver takes a minute or two at 1024.

    Raises:
        ExportError: the accelerator refused operators, or computed something else than the CPU.
    """
    from mobilesam_export.targets.tflite.delegates import inspect_delegates
    from mobilesam_export.targets.tflite.flatbuffer import Subgraph, read_model
    from mobilesam_export.targets.tflite.gpu import named_driver, run_on_gpu
    from mobilesam_export.targets.tflite.operators import operators_of

    driver = named_driver()
    report: dict[str, Any] = {}
    for path in paths:
        for found in inspect_delegates(path):
            entry: dict[str, Any] = found.as_dict()
            entry["gpu_delegate"] = "not run (VK_ICD_FILENAMES names no Vulkan driver)"
            if driver is not None:
                gpu = run_on_gpu(path, driver, found.signature)
                if gpu.refused:
                    raise ExportError(f"the GPU delegate fails on {path.name} ({found.signature}): {gpu.refused}")
                entry["gpu_delegate"] = gpu.as_dict()
            report[found.signature] = entry
    npu = {
        signature.signatureKey.decode(): lint(operators_of(Subgraph(model, signature.subgraphIndex)))
        for model in map(read_model, paths)
        for signature in model.signatureDefs
    }
    return {"delegates": report, "npu": npu}


def load_converter() -> Any:
    """litert-torch, quiet.

    Raises:
        ExportError: not installed, or no wheels for this platform.
    """
    try:
        # TensorFlow's C++ inside it logs its news whatever TF_CPP_MIN_LOG_LEVEL says; PyTorch warns of how torchao
        # registers enumerations.
        with without_native_chatter(), without_log_of("torch.utils._pytree"):
            import ai_edge_litert  # noqa: F401 - imported early, to fail before any work
            import litert_torch
    except ImportError as error:
        here = f"{platform.system()} {platform.machine()}"
        raise ExportError(
            f"the TFLite converter is missing ({error}); litert-torch has wheels for Linux x86-64 and macOS arm64, "
            f"this is {here}: run pip install litert-torch there, or choose another --target"
        ) from error
    litert_torch.config.show_progress = False
    return litert_torch


def encoder_sample(image_size: int, dtype: torch.dtype) -> Sample:
    """Named inputs of ``encode``, which fix its shapes."""
    return {"image": torch.zeros(1, image_size, image_size, 3, dtype=dtype)}


def decoder_sample(image_size: int, max_points: int) -> Sample:
    """Named inputs of ``decode``, which fix its shapes."""
    grid, low = image_size // 16, image_size // 4
    return {
        "image_embeddings": torch.zeros(1, grid, grid, 256),
        "point_coords": torch.zeros(1, max_points, 2),
        "point_labels": torch.zeros(1, max_points),
        "mask_input": torch.zeros(1, 1, low, low),
        "has_mask_input": torch.zeros(1),
    }


def convert(litert_torch: Any, signatures: Sequence[Graph], path: Path) -> None:
    """Convert graphs into one file, a signature each."""
    with torch.no_grad(), without_native_chatter():
        converter = None
        for name, graph, sample in signatures:
            add = litert_torch.signature if converter is None else converter.signature
            converter = add(name, graph, sample_kwargs=sample)
        assert converter is not None
        converter.convert().export(str(path))
