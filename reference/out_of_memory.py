"""Whether an error is about memory: no two engines have the same one."""

import errno
import re

# What PyTorch, ONNX Runtime, LiteRT, NumPy and the loader say; none of them raises MemoryError for all of it.
SIGNS = re.compile(
    r"((can't|cannot|could not|failed to|unable to) (allocate|map segment|start new thread)|bad_alloc|out of memory|"
    r"not enough memory|pthread_create)[^:;\n]{0,80}",
    re.IGNORECASE,
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error itself (not what caused it) tells of memory that could not be had."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    return SIGNS.search(str(error)) is not None
