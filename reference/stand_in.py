"""Stand-in weights: every tensor follows from its official name, its shape and a seed.

They exercise every weight (random affines, biases and BatchNorm statistics) but segment nothing. The
golden outputs of the official implementation in the tests were computed with them (seed 0), so the rule
is frozen: NumPy's legacy RandomState, seeded by the CRC of the name.
"""

import zlib

import numpy as np
import torch
from torch import Tensor


def stand_in_tensor(name: str, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """The stand-in value of one state-dict entry.

    Args:
        name: key in the official checkpoint, such as ``image_encoder.neck.0.weight``.
        shape: its shape.
        seed: another seed gives independent weights.

    Returns:
        float32 of that shape; int64 zero for BatchNorm's ``num_batches_tracked``.
    """
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    # RandomState, because its stream is frozen and a Generator's is not.
    stream = np.random.RandomState(zlib.crc32(name.encode()) ^ seed)
    normal = stream.standard_normal(shape).astype(np.float32)
    if name.endswith("running_var"):
        value = 0.5 + stream.random_sample(shape).astype(np.float32)
    elif name.endswith("running_mean"):
        value = 0.1 * normal
    elif name.endswith("gaussian_matrix"):
        value = normal
    elif name.endswith("attention_biases"):
        value = 0.5 * normal
    elif name.endswith(".bias"):
        value = 0.05 * normal
    elif len(shape) == 1:  # the scale of a normalisation
        value = 1.0 + 0.1 * normal
    elif len(shape) == 2 and shape[0] <= 4:  # learned prompt and output tokens
        value = normal
    else:
        value = normal * np.float32(np.sqrt(2.0 / np.prod(shape[1:])))
    return torch.from_numpy(np.asarray(value, np.float32))
