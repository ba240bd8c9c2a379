"""How constants are stored: float32 weights as float16, and constants that coremltools must not work out beforehand.

Both lean on ``constexpr_cast`` (iOS 16 and later), Core ML's own widening of a stored float16 constant when a package
is loaded. coremltools keeps it through all of its passes and folds nothing that depends on it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mobilesam_export.targets.coreml.executor.backend import load_coremltools
from mobilesam_export.targets.coreml.parts import constant_name

OPERATOR_NAME = "mobilesam_export::unfolded"
SMALLEST_WEIGHT = 1024  # elements; biases and scalars weigh nothing and keep their bits
_PASS_NAME = "mobilesam_export::store_weights_as_float16"


def pipeline_storing_float16(is_stored: Callable[[str], bool]) -> Any:
    """coremltools' default passes and, after them, one that stores float32 weights as float16.

    The arithmetic stays float32: a weight is off by at most 2^-12 of itself, and activations are not rounded at all.

    Args:
        is_stored: whether the constant of that name (see ``parts.constant_name``) may be stored so; asked for those of
            two axes or more and ``SMALLEST_WEIGHT`` elements.
    """
    ct = load_coremltools()
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.mil import types
    from coremltools.converters.mil.mil.passes.graph_pass import AbstractGraphPass
    from coremltools.converters.mil.mil.passes.helper import block_context_manager
    from coremltools.converters.mil.mil.passes.pass_registry import PASS_REGISTRY

    class StoreWeightsAsFloat16(AbstractGraphPass):  # type: ignore[misc]  # coremltools is untyped
        def apply(self, prog: Any) -> None:
            for function in prog.functions.values():
                self._apply_to(function)

        @block_context_manager  # type: ignore[untyped-decorator]
        def _apply_to(self, block: Any) -> None:
            for op in [op for op in block.operations if op.op_type == "const"]:
                constant = op.outputs[0]
                if constant.dtype != types.fp32 or constant.rank < 2 or constant.val.size < SMALLEST_WEIGHT:
                    continue
                if not is_stored(constant_name(op.name)) or np.abs(constant.val).max() > np.finfo(np.float16).max:
                    continue
                widened = mb.constexpr_cast(
                    source_val=constant.val.astype(np.float16), output_dtype="fp32", before_op=op, name=f"{op.name}_f32"
                )
                block.replace_uses_of_var_after_op(anchor_op=op, old_var=constant, new_var=widened, force_replace=True)
                block.remove_ops([op])

    PASS_REGISTRY.passes[_PASS_NAME] = StoreWeightsAsFloat16()  # of this conversion; an earlier one goes
    pipeline = ct.PassPipeline.DEFAULT
    pipeline.append_pass(_PASS_NAME)
    return pipeline


def register_unfolded() -> None:
    """Teach the converter the operator of ``positions``: a product with a one that is not known yet."""
    load_coremltools()
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil import register_torch_op
    from coremltools.converters.mil.frontend.torch.ops import _get_inputs

    def unfolded(context: Any, node: Any) -> None:
        (x,) = _get_inputs(context, node, expected=1)
        one = mb.constexpr_cast(source_val=np.ones(1, np.float16), output_dtype="fp32")
        context.add(mb.mul(x=x, y=one, name=node.name))

    register_torch_op(unfolded, torch_alias=[OPERATOR_NAME], override=True)  # of an earlier export
