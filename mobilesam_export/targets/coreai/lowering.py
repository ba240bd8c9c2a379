"""How operators of ours, and two of PyTorch's, are written in Core AI's own.

Apple's converter spells a ``pixel_unshuffle`` out over six axes, and its ``pixel_shuffle`` computes shapes at run time;
the Neural Engine takes five axes at most, and shapes that are known (github.com/apple/coreai-models, skills/
model-authoring/references/neural_engine_rules.md).
"""

from typing import Any

import numpy as np

from mobilesam_export.rewrites.channels_first.channel_layer_norm import OPERATOR_NAME as CHANNEL_LAYER_NORM
from mobilesam_export.rewrites.channels_first.positions import OPERATOR_NAME as UNFOLDED

KEPT_WHOLE = ("pixel_shuffle", "pixel_unshuffle")  # of PyTorch's operators, besides those that the converter keeps


def register(converter: Any) -> None:
    """Teach a ``TorchConverter`` the operators."""
    from coreai._compiler.dialects import coreai
    from coreai._compiler.ir import Value
    from coreai_torch import generate_composite_decl

    def operand(values: dict[str, Any], node: Any, index: int) -> Any:
        return values[node.args[index].name]

    def channel_layer_norm(values: dict[str, Any], node: Any, _: Any) -> list[Any]:
        """Apple's composite ``layer_norm``, which its compilers know, over axis 1; statistics in float32."""
        x, eps = operand(values, node, 0), node.args[3]
        channels, dtype = x.type.shape[1], x.type.element_type
        ones, zeros = np.ones(channels, np.float32), np.zeros(channels, np.float32)
        weight = coreai.constant(ones) if node.args[1] is None else operand(values, node, 1)
        bias = coreai.constant(zeros) if node.args[2] is None else operand(values, node, 2)

        def layer_norm(input: Value, gamma: Value, beta: Value) -> Value:
            wide = coreai.cast(input, np.float32)
            centred = coreai.broadcasting_sub(wide, coreai.reduce_mean(wide, [1]))
            variance = coreai.reduce_mean(coreai.broadcasting_mul(centred, centred), [1])
            scale = coreai.rsqrt(coreai.broadcasting_add(variance, coreai.constant(np.float32(eps))))
            normal = coreai.cast(coreai.broadcasting_mul(centred, scale), dtype)
            gamma, beta = (coreai.reshape(coreai.cast(affine, dtype), [1, channels, 1, 1]) for affine in (gamma, beta))
            return coreai.broadcasting_add(coreai.broadcasting_mul(normal, gamma), beta)

        declared = generate_composite_decl(
            x.context, "layer_norm", ["input", "gamma", "beta"], ["output"], {"eps": eps, "axes": [1], "version": 1}
        )
        composite = coreai.graph(private=True, no_inline=True, composite_decl=declared)(layer_norm)
        return list(composite(x, weight, bias))

    def unfolded(values: dict[str, Any], node: Any, _: Any) -> Any:
        """The tensor itself: the converter computes no products of constants beforehand."""
        return operand(values, node, 0)

    def pixel_unshuffle(values: dict[str, Any], node: Any, _: Any) -> Any:
        """Map (1, C, H, W) to (1, C * w * w, H/w, W/w) over (C, H/w, w, W/w, w)."""
        x, window = operand(values, node, 0), node.args[1]
        _, channels, height, width = x.type.shape
        rows, columns = height // window, width // window
        x = coreai.reshape(x, [channels, rows, window, columns, window])
        x = coreai.transpose(x, np.array([0, 2, 4, 1, 3], np.uint32))
        return coreai.reshape(x, [1, channels * window**2, rows, columns])

    def pixel_shuffle(values: dict[str, Any], node: Any, _: Any) -> Any:
        """Map (1, C * w * w, H, W) to (1, C, H * w, W * w) over (C, w, w, H, W)."""
        x, window = operand(values, node, 0), node.args[1]
        _, stacked, rows, columns = x.type.shape
        channels = stacked // window**2
        x = coreai.reshape(x, [channels, window, window, rows, columns])
        x = coreai.transpose(x, np.array([0, 3, 1, 4, 2], np.uint32))
        return coreai.reshape(x, [1, channels, rows * window, columns * window])

    for name, lowering in {
        CHANNEL_LAYER_NORM: channel_layer_norm,
        UNFOLDED: unfolded,
        "aten::pixel_unshuffle": pixel_unshuffle,
        "aten::pixel_shuffle": pixel_shuffle,
    }.items():
        converter.register_torch_lowering(f"{name}.default", allow_override=True)(lowering)
