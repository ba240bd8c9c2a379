"""Write MobileSAM for ExecuTorch: ``mobile_sam_encoder.pte`` and ``mobile_sam_decoder.pte``, each with one ``forward``.

An ExecuTorch method takes its inputs by position and has no names for them. So each file has three methods more, which
take nothing and return what the file is: ``input_names`` and ``output_names`` in the order of ``forward``, by the
contract's names, and ``metadata``, JSON of named strings. Two layouts differ from the contract's: ``image`` is (1, S,
S, 3) and ``image_embeddings`` (1, S/16, S/16, 256) in both files, so that the embedding goes from one to the other as
it is.
"""

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from timm.models.repvit import RepVit
from torch import Tensor, nn

from mobilesam_export.chatter import without_log_of, without_native_chatter
from mobilesam_export.contract import DEFAULT_MAX_POINTS, Contract
from mobilesam_export.errors import ExportError
from mobilesam_export.targets.executorch.channels_first import (
    ImageEncoderBetweenTransposes,
    PromptDecoderBehindTranspose,
    with_pytorch_operators,
)
from mobilesam_export.targets.executorch.conv_net import ConvNetEncoderExecutorch
from mobilesam_export.targets.executorch.copies import without_copies
from mobilesam_export.targets.executorch.decoder import PromptDecoderExecutorch
from mobilesam_export.targets.executorch.delegates import COREML, DELEGATES, VULKAN, XNNPACK, Delegate
from mobilesam_export.targets.executorch.encoder import ImageEncoderExecutorch
from mobilesam_export.targets.executorch.partition import calls_of, partition_of
from mobilesam_export.targets.executorch.programs import METHOD
from mobilesam_export.targets.executorch.repvit import RepVitEncoderExecutorch
from reference.image_encoder import TimmFeatures
from reference.mobile_sam import MobileSam

ENCODER_FILE, DECODER_FILE = "mobile_sam_encoder.pte", "mobile_sam_decoder.pte"
PRECISIONS = ("float32", "int8_dynamic")


def write(
    sam: MobileSam,
    out_dir: Path,
    *,
    precision: str = "float32",
    max_points: int = DEFAULT_MAX_POINTS,
    delegate: str = XNNPACK.name,
    metadata: Mapping[str, str] | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Path]:
    """Lower both graphs to a delegate and check that it takes the whole of each; whole files or none.

    Args:
        sam: the reference, in eval mode.
        out_dir: an existing directory.
        precision: one of ``PRECISIONS``.
        max_points: slots for points and box corners.
        delegate: of ``DELEGATES``.
        metadata: stored in the files.
        progress: told what is being done.

    Raises:
        ExportError: an unknown option, or a graph that is not one partition.
    """
    if precision not in PRECISIONS:
        raise ExportError(f"got precision {precision!r}, expected one of {', '.join(PRECISIONS)} for ExecuTorch")
    if max_points < 1:
        raise ExportError(f"got max_points {max_points}, expected at least 1; the default is {DEFAULT_MAX_POINTS}")
    if delegate not in DELEGATES:
        raise ExportError(f"got delegate {delegate!r}, expected one of {', '.join(DELEGATES)}")
    chosen = DELEGATES[delegate]
    contract = Contract(sam.image_size, max_points)
    encoder, decoder = graphs_for(chosen, sam, precision, max_points)
    plan: dict[str, tuple[nn.Module, tuple[Tensor, ...], list[str], list[str]]] = {
        ENCODER_FILE: (
            encoder, encoder_sample(sam.image_size),
            [port.name for port in contract.encoder_inputs], [port.name for port in contract.encoder_outputs],
        ),
        DECODER_FILE: (
            decoder, decoder_sample(sam.image_size, max_points),
            [port.name for port in contract.decoder_inputs], [port.name for port in contract.decoder_outputs],
        ),
    }  # fmt: skip
    # XNNPACK's files say nothing of it, as all files before there was a choice.
    who = {} if chosen is XNNPACK else {"delegate": chosen.name}
    with tempfile.TemporaryDirectory(dir=out_dir, prefix=".executorch-") as folder:
        staged = []
        for name, (graph, sample, inputs, outputs) in plan.items():
            progress(f"converting {name}")
            said = {
                "input_names": inputs,
                "output_names": outputs,
                "metadata": json.dumps({**(metadata or {}), **who, "precision": precision}, sort_keys=True),
            }
            content = lower(graph, sample, said, precision == "int8_dynamic" and graph is encoder, chosen)
            staged.append(Path(folder) / name)
            staged[-1].write_bytes(content)
        return [path.replace(Path(out_dir) / path.name) for path in staged]


def graphs_for(delegate: Delegate, sam: MobileSam, precision: str, max_points: int) -> tuple[nn.Module, nn.Module]:
    """Encoder and decoder of operators that the delegate has; with the same ports for every delegate."""
    if delegate is COREML:
        return ImageEncoderBetweenTransposes(sam), PromptDecoderBehindTranspose(sam)
    if delegate is VULKAN:
        return ImageEncoderBetweenTransposes(sam), PromptDecoderExecutorch(sam, max_points, nearest=torch.round)
    decoder = PromptDecoderExecutorch(sam, max_points)
    match sam.image_encoder.body:
        case RepVit():
            return RepVitEncoderExecutorch(sam), decoder
        case TimmFeatures():
            return ConvNetEncoderExecutorch(sam), decoder
        case _:
            return ImageEncoderExecutorch(sam, halve=precision == "float32"), decoder


def lower(
    graph: nn.Module,
    sample: tuple[Tensor, ...],
    said: Mapping[str, Any],
    dynamic: bool = False,
    delegate: Delegate = XNNPACK,
) -> bytes:
    """A graph as an ExecuTorch program.

    Args:
        graph: in eval mode.
        sample: its inputs, which fix their shapes.
        said: by name, what a method without inputs returns.
        dynamic: linear layers with int8 weights and activations that are rounded as they come.
        delegate: what is to run it.

    Raises:
        ExportError: the delegate does not take all of it, or this executorch has it not.
    """
    load_converter()
    with torch.no_grad(), without_native_chatter(), without_log_of(""):
        from executorch.exir import to_edge_transform_and_lower

        program = torch.export.export(graph, sample)
        if delegate is not XNNPACK:
            program = with_pytorch_operators(program)
        if dynamic:
            program = torch.export.export(quantise(program, sample), sample)
        edge = to_edge_transform_and_lower(
            {METHOD: program}, partitioner=[partitioner_of(delegate)], constant_methods=dict(said)
        )
        module = edge.exported_program(METHOD).graph_module
        if problem := partition_of(module).problem(delegate.title):
            raise ExportError(f"{type(graph).__name__}: {problem}; this is a fault of ours or of another executorch")
        if delegate is XNNPACK:
            lowered = module.lowered_module_0
            lowered._processed_bytes = without_copies(lowered.processed_bytes)
        content: bytes = edge.to_executorch().buffer
    return content


def partitioner_of(delegate: Delegate) -> Any:
    """What of executorch divides a graph.

    Raises:
        ExportError: this executorch, or this machine, has it not.
    """
    try:
        if delegate is COREML:
            return _coreml_partitioner()
        if delegate is VULKAN:
            from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanPartitioner

            return VulkanPartitioner()
    except ImportError as error:
        raise ExportError(
            f"the executorch that is installed cannot write for {delegate.title} ({error}); choose --delegate xnnpack, "
            "or install another: pip install --upgrade 'mobilesam-export[executorch]'"
        ) from error
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner

    return XnnpackPartitioner()


def _coreml_partitioner() -> Any:
    """Float32, as the precision says; its own default is float16, coordinates too."""
    import coremltools
    from executorch.backends.apple.coreml.compiler import CoreMLBackend
    from executorch.backends.apple.coreml.partition import CoreMLPartitioner

    specs = CoreMLBackend.generate_compile_specs(
        compute_precision=coremltools.precision.FLOAT32, minimum_deployment_target=coremltools.target.iOS17
    )
    return CoreMLPartitioner(compile_specs=specs)


def load_converter() -> None:
    """Import what ``lower`` needs, quietly: PyTorch warns of how torchao registers enumerations.

    Raises:
        ImportError: it is not installed, or not whole.
    """
    with without_native_chatter(), without_log_of("torch.utils._pytree"):
        import executorch.backends.xnnpack.partition.xnnpack_partitioner
        import executorch.devtools.backend_debug
        import executorch.exir  # noqa: F401 - imported early, to fail before any work


def quantise(program: torch.export.ExportedProgram, sample: tuple[Tensor, ...]) -> nn.Module:
    """The program with int8 weights in its linear layers, a scale for each output channel.

    Means over channels are products too, and no layers: they stay as they are. Where layers share an input, each gets
    a rounding of its own, since XNNPACK's partitioner takes a rounding with one reader only.
    """
    from executorch.backends.transforms.duplicate_dynamic_quant_chain import DuplicateDynamicQuantChainPass
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    config = get_symmetric_quantization_config(is_per_channel=True, is_dynamic=True)
    prepared = prepare_pt2e(program.module(), XNNPACKQuantizer().set_module_type(nn.Linear, config))
    prepared(*sample)
    quantised = convert_pt2e(prepared)
    DuplicateDynamicQuantChainPass()(quantised)
    assert isinstance(quantised, nn.Module)
    return quantised


def encoder_sample(image_size: int) -> tuple[Tensor, ...]:
    """Inputs of the encoder, which fix its shapes."""
    return (torch.zeros(1, image_size, image_size, 3),)


def decoder_sample(image_size: int, max_points: int) -> tuple[Tensor, ...]:
    """Inputs of the decoder, which fix its shapes."""
    grid, low = image_size // 16, image_size // 4
    return (
        torch.zeros(1, grid, grid, 256),
        torch.zeros(1, max_points, 2),
        torch.zeros(1, max_points),
        torch.zeros(1, 1, low, low),
        torch.zeros(1),
    )


def notes(paths: Sequence[Path]) -> dict[str, Any]:
    """What the written files call and how they are called, for the manifest."""
    calls = {path.stem.removeprefix("mobile_sam_"): calls_of(path) for path in paths}
    backends = {backend for call in calls.values() for backend in call["backends"]}
    reasons = [each.not_run for each in DELEGATES.values() if each.backend in backends and each.not_run]
    return {
        **({"not_run": reasons[0]} if reasons else {}),
        "delegates": calls,
        "call": f"{METHOD} takes its inputs by position and returns its outputs so, in the order of the contract above",
    }
