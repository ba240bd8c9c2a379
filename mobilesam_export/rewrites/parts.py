"""The parts of the graphs that a precision may leave exact: large enough that there are two dozen, and named alike.

The targets' graphs have the model's own names (``stages.1.blocks.0.attn.qkv``); a part is a block, a merging, or what
stands alone: ``stem``, ``stages.1.blocks.0``, ``layers.0``, ``output_upscaling``.
"""

import re

_PART = re.compile(r"stages\.\d+\.(blocks\.\d+|downsample)|(mbconvs|mergings|layers)\.\d+|[a-z]\w*")


def part_of(path: str) -> str | None:
    """The part that a module, parameter or buffer of that dotted path belongs to; None for the graph itself."""
    found = _PART.match(path)
    return found.group() if found else None
