"""Memory for large float32 results: where it comes from, and rounding to float16 inside it.

At 1024 the image encoder's results take up to 67 MB each. A C library gives blocks of this size back at once, so that
each new one comes as untouched pages of 4096 bytes, and touching these costs more than most operations that write them.
So results are rounded where they lie, and the largest are laid into memory of huge pages.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

# float32 elements from which a result is large: 17 MB. The C library keeps smaller blocks, to give them out again.
LARGE = 1 << 22
_BLOCK = 1 << 17  # elements rounded at a time: their float16 copies (0.26 MB) stay in a core's cache


def empty(shape: Sequence[int]) -> Tensor:
    """An uninitialised float32 tensor.

    The memory is NumPy's: from 4 MB on it asks Linux for huge pages, torch does not.
    """
    return torch.from_numpy(np.empty(shape, np.float32))


def round_to_float16(values: Tensor) -> None:
    """Round float32 values in place to the nearest float16 numbers, to infinity above 65520."""
    if not values.is_contiguous():
        values.copy_(values.half())
        return
    flat = values.view(-1)
    halves = torch.empty(min(_BLOCK, flat.numel()), dtype=torch.float16)
    for block in flat.split(_BLOCK):
        rounded = halves[: block.numel()]
        rounded.copy_(block)
        block.copy_(rounded)
