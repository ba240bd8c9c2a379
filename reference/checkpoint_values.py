"""Weights that cannot be right, whatever their names: of another kind, no numbers, or impossible as what they are."""

from collections.abc import Mapping

import torch
from torch import Tensor

from reference.checkpoint_file import Placeholder
from reference.checkpoint_names import COUNTER, PARTS
from reference.errors import CheckpointError


def unusable(tensor: object) -> str | None:
    """What keeps an entry from being a plain tensor with values, or None. Nothing is computed."""
    if isinstance(tensor, Placeholder):
        return "an object of a class that was not loaded"
    if not isinstance(tensor, Tensor):
        return f"a {type(tensor).__name__}"
    if tensor.is_nested:
        return "a nested tensor"
    if tensor.layout != torch.strided:
        return f"a sparse tensor ({tensor.layout})"
    if tensor.is_meta:
        return "a tensor on the meta device, without values"
    if tensor.is_quantized:
        return f"a quantised tensor ({tensor.dtype})"
    return None


def as_weights(state: Mapping[str, Tensor], written: Mapping[str, str], source: str) -> dict[str, Tensor]:
    """The values as a model takes them: float32 on the CPU, counters as int64 scalars.

    Args:
        state: plain tensors of the right shapes, by the model's own names.
        written: their names in the file, for messages.
        source: the file, for messages.

    Raises:
        CheckpointError: integers for weights, NaN or infinity, a negative variance, a part that is all zeros.
    """
    wrong = [name for name, tensor in state.items() if not name.endswith(COUNTER) and not tensor.is_floating_point()]
    if wrong:
        raise CheckpointError(
            f"{source} holds {state[wrong[0]].dtype} in {len(wrong)} entries (first: {written[wrong[0]]}), expected "
            "floating-point weights; quantised ones have to be turned back into float32 first"
        )
    weights = {
        name: tensor.detach().cpu().to(torch.int64 if name.endswith(COUNTER) else torch.float32)
        for name, tensor in state.items()
    }
    bad = [name for name, tensor in weights.items() if not torch.isfinite(tensor).all()]
    if bad:
        raise CheckpointError(
            f"{source} holds NaN or infinite weights in {len(bad)} entries (first: {written[bad[0]]}); "
            "take a checkpoint from before the training diverged"
        )
    negative = [name for name, tensor in weights.items() if name.endswith("running_var") and bool((tensor < 0).any())]
    if negative:
        raise CheckpointError(
            f"{source} holds negative variances in {len(negative)} entries (first: {written[negative[0]]}), which no "
            "BatchNorm has; the file is damaged or its entries are mixed up"
        )
    for part in PARTS:
        tables = [tensor for name, tensor in weights.items() if name.startswith(part + ".") and tensor.ndim > 1]
        if tables and not any(bool(tensor.any()) for tensor in tables):
            raise CheckpointError(f"{source} holds nothing but zeros in its {part}; save the trained weights")
    return weights
