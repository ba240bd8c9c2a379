"""Trace the two graphs and convert them to ML Programs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from mobilesam_export.contract import Contract
from mobilesam_export.errors import ExportError
from mobilesam_export.rewrites.channels_first.channel_layer_norm import OPERATOR_NAME
from mobilesam_export.rewrites.parts import part_of
from mobilesam_export.targets.coreml.conv_net import ConvNetEncoderCoreML
from mobilesam_export.targets.coreml.decoder import PromptDecoderCoreML
from mobilesam_export.targets.coreml.encoder import ImageEncoderCoreML
from mobilesam_export.targets.coreml.executor.backend import load_coremltools, quiet
from mobilesam_export.targets.coreml.parts import constants_of
from mobilesam_export.targets.coreml.repvit import RepVitEncoderCoreML
from mobilesam_export.targets.coreml.storage import pipeline_storing_float16, register_unfolded
from mobilesam_export.targets.coreml.target import DEPLOYMENT_TARGETS, FLEXIBLE_POINTS

EncoderCoreML = ImageEncoderCoreML | RepVitEncoderCoreML | ConvNetEncoderCoreML


def convert_encoder(
    graph: EncoderCoreML, precision: str, deployment_target: str, exceptions: Collection[str] = ()
) -> Any:
    """The image encoder as an ``MLModel``; its input is an image if the graph takes 8-bit pixels, else a tensor.

    Args:
        exceptions: parts (see ``rewrites.parts``) that stay float32, weights too.
    """
    ct = load_coremltools()
    contract = Contract(graph.image_size)
    port = contract.encoder_inputs[0]
    if graph.eight_bit:
        image = ct.ImageType(name=port.name, shape=port.shape, color_layout=ct.colorlayout.RGB, scale=1.0)
    else:
        image = ct.TensorType(name=port.name, shape=port.shape, dtype=np.float32)
    names = [port.name for port in contract.encoder_outputs]
    example = (torch.zeros(*(int(size) for size in port.shape)),)
    float32 = constants_of(graph, list(exceptions))
    exact = frozenset(exceptions)
    return _convert(
        graph, example, [image], names, precision, deployment_target, exact, lambda name: name not in float32
    )


def convert_decoder(
    graph: PromptDecoderCoreML,
    precision: str,
    deployment_target: str,
    max_points: int,
    flexible_points: bool,
    compressed_later: bool = False,
    exceptions: Collection[str] = (),
) -> Any:
    """The prompt decoder as an ``MLModel``; arguments as in ``write.write``.

    Args:
        compressed_later: leave the weights that a recipe compresses as they are.
        exceptions: as of the encoder, besides what is always float32.
    """
    ct = load_coremltools()
    contract = Contract(graph.image_size, max_points)
    slots = ct.RangeDim(*FLEXIBLE_POINTS, default=max_points) if flexible_points else max_points
    inputs, example = [], []
    for port in contract.decoder_inputs:
        shape = list(port.shape)
        example.append(torch.zeros(*(int(size) for size in shape)))
        if port.name in ("point_coords", "point_labels"):
            shape[1] = slots
        inputs.append(ct.TensorType(name=port.name, shape=tuple(shape), dtype=np.float32))
    names = [port.name for port in contract.decoder_outputs]

    float32 = constants_of(graph, [*graph.EXACT, *exceptions])  # the first are small
    if compressed_later:
        float32 |= constants_of(graph, graph.PERCEPTRONS)

    def is_stored(constant: str) -> bool:
        return constant not in float32

    exact = frozenset({*graph.EXACT, *exceptions})
    return _convert(graph, tuple(example), inputs, names, precision, deployment_target, exact, is_stored)


def target_of(deployment_target: str) -> Any:
    """coremltools' constant of that name.

    Raises:
        ExportError: the name is unknown.
    """
    if deployment_target not in DEPLOYMENT_TARGETS:
        raise ExportError(
            f"got deployment target {deployment_target!r}, expected one of {', '.join(DEPLOYMENT_TARGETS)}; "
            "iOS17 runs on iOS 17, macOS 14 and later"
        )
    return getattr(load_coremltools().target, deployment_target)


def _convert(
    graph: nn.Module,
    example: tuple[torch.Tensor, ...],
    inputs: Sequence[Any],
    output_names: Sequence[str],
    precision: str,
    deployment_target: str,
    float32_parts: frozenset[str] = frozenset(),
    is_stored_as_float16: Callable[[str], bool] = lambda _: True,
) -> Any:
    ct = load_coremltools()
    target = target_of(deployment_target)
    _register_channel_layer_norm()
    register_unfolded()
    pipeline = ct.PassPipeline.DEFAULT
    if precision == "float16":
        compute_precision = ct.transform.FP16ComputePrecision(op_selector=_float16_selector(float32_parts))
        pipeline = pipeline_storing_float16(is_stored_as_float16)
    else:
        compute_precision = ct.precision.FLOAT32
    with quiet(), torch.inference_mode():
        traced = torch.jit.trace(graph, example, check_trace=False)
        return ct.convert(
            traced,
            inputs=list(inputs),
            outputs=[ct.TensorType(name=name, dtype=np.float32) for name in output_names],
            convert_to="mlprogram",
            minimum_deployment_target=target,
            compute_precision=compute_precision,
            pass_pipeline=pipeline,
            skip_model_load=True,
        )


def _float16_selector(float32_parts: frozenset[str]) -> Callable[[Any], bool]:
    """Choose what becomes float16: all but what those parts compute."""
    from coremltools.converters.mil.mil.scope import ScopeSource

    def becomes_float16(op: Any) -> bool:
        modules = op.scopes.get(ScopeSource.TORCHSCRIPT_MODULE_NAME) or ()
        return part_of_scopes(modules[:-1]) not in float32_parts  # the last is the operation itself

    return becomes_float16


def part_of_scopes(modules: Sequence[str]) -> str | None:
    """The part (see ``rewrites.parts``) of an operation by the modules around it, from the outside in.

    The decoder goes through its list of blocks by a loop, which a trace does not see: their names are bare numbers.
    """
    path = ".".join(modules)
    return part_of(f"layers.{path}" if path[:1].isdecimal() else path)


def _register_channel_layer_norm() -> None:
    """Teach the converter our operator."""
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil import register_torch_op
    from coremltools.converters.mil.frontend.torch.ops import _get_inputs

    def channel_layer_norm(context: Any, node: Any) -> None:
        x, weight, bias, eps = _get_inputs(context, node, expected=4)
        context.add(mb.layer_norm(x=x, axes=[1], gamma=weight, beta=bias, epsilon=eps.val, name=node.name))

    register_torch_op(channel_layer_norm, torch_alias=[OPERATOR_NAME], override=True)  # of an earlier export
