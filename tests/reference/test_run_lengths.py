"""Run-length codes are written as pycocotools writes them; reading them is tested with the training's annotations."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from pycocotools import mask as coco

from reference.run_lengths import decode, encode


@settings(max_examples=200, deadline=None)
@given(
    arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12))),
    st.tuples(st.sampled_from([1, 3, 90]), st.sampled_from([1, 70])),
)
def test_every_mask_is_coded_as_by_pycocotools(mask: NDArray[np.bool_], scale: tuple[int, int]) -> None:
    mask = np.kron(mask, np.ones(scale, bool))  # long runs need more characters
    expected = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    code = encode(mask)
    assert code == {"size": expected["size"], "counts": expected["counts"].decode()}
    np.testing.assert_array_equal(decode(code, (mask.shape[0], mask.shape[1])), mask)


def test_a_mask_on_a_part_of_another_array_is_coded_too() -> None:
    whole = np.zeros((9, 14), bool)
    whole[2:7, 3:11] = True
    part = whole[1:8:2, ::-1]
    np.testing.assert_array_equal(decode(encode(part), (4, 14)), part)
