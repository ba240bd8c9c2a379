"""Parts of a graph that a precision treats apart, and the constants that the converter makes of them.

The graphs name such parts in class attributes: paths of their own attributes, of which a star stands for every index.
"""

from collections.abc import Sequence

from torch import nn

_WIDTH_SUFFIX = "_to_fp16"  # of a constant that coremltools has rounded


def constants_of(graph: nn.Module, parts: Sequence[str]) -> frozenset[str]:
    """Names of the constants that the converter makes of parameters and buffers of those parts.

    Raises:
        ValueError: the graph has no such part.
    """
    found: set[str] = set()
    for part in parts:
        wanted = part.split(".")
        paths = [path for path in (name.split(".") for name in graph.state_dict()) if _lies_in(path, wanted)]
        if not paths:
            raise ValueError(f"{type(graph).__name__} has no part {part}; its class attributes name others than it has")
        found.update("_".join(path) for path in paths)
    return frozenset(found)


def constant_name(name: str) -> str:
    """A converted constant's name as ``constants_of`` gives it, whichever width it is stored in."""
    return name.replace(".", "_").removesuffix(_WIDTH_SUFFIX)


def _lies_in(path: Sequence[str], part: Sequence[str]) -> bool:
    return len(path) >= len(part) and all(wanted in ("*", name) for name, wanted in zip(path, part, strict=False))
