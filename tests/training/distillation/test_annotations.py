"""Masks in COCO's run-length code: what pycocotools decodes, and a reason for everything that is no mask."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from pycocotools import mask as coco

from reference.training.distillation.annotations import decode_mask, read_annotations

MASK = np.zeros((6, 5), np.uint8)
MASK[1:4, 2:4] = 1


def encoded(mask: NDArray[np.uint8]) -> dict[str, Any]:
    code = coco.encode(np.asfortranarray(mask))
    return {"segmentation": {"size": code["size"], "counts": code["counts"].decode()}}


@settings(max_examples=150, deadline=None)  # 0.4 ms each
@given(arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 70)), elements=st.integers(0, 1)))
def test_every_mask_comes_back_as_pycocotools_wrote_it(mask: NDArray[np.uint8]) -> None:
    annotation = encoded(mask)
    if not mask.any():
        with pytest.raises(ValueError, match="empty mask"):
            decode_mask(annotation, mask.shape)
        return
    np.testing.assert_array_equal(decode_mask(annotation, mask.shape), mask.astype(bool))
    assert annotation["segmentation"]["size"] == list(mask.shape)


def test_a_large_mask_with_long_runs_comes_back_too() -> None:
    mask = np.zeros((3000, 2000), np.uint8)
    mask[100:2900, 50:1900] = 1
    mask[7, 1999] = 1
    np.testing.assert_array_equal(decode_mask(encoded(mask), (3000, 2000)), mask.astype(bool))


def test_plain_counts_are_read_too() -> None:
    columns = MASK.T.reshape(-1)
    edges = np.flatnonzero(np.diff(columns)) + 1
    counts = np.diff([0, *edges, columns.size]).tolist()
    found = decode_mask({"segmentation": {"size": [6, 5], "counts": counts}}, (6, 5))
    np.testing.assert_array_equal(found, MASK.astype(bool))


def test_polygons_are_filled() -> None:
    found = decode_mask({"segmentation": [[1, 2, 4, 2, 4, 5, 1, 5]]}, (6, 5))
    expected = np.zeros((6, 5), bool)
    expected[2:5, 1:4] = True
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        ({"size": [100_000, 100_000], "counts": "0PWQO2"}, r"mask of size \[100000, 100000\] on a picture of \[6, 5\]"),
        ({"size": [5, 6], "counts": encoded(MASK)["segmentation"]["counts"]}, r"mask of size \[5, 6\]"),
        ({"size": [6, 5], "counts": [30]}, "empty mask"),
        ({"size": [6, 5], "counts": []}, "do not add up to 30 pixels"),
        ({"size": [6, 5], "counts": [10, 10]}, "do not add up to 30 pixels"),
        ({"size": [6, 5], "counts": [40, -10]}, "no whole numbers"),
        ({"size": [6, 5], "counts": [10.0, float("nan")]}, "no whole numbers"),
        ({"size": [6, 5], "counts": [2**39, 2**39]}, "do not add up"),
        ({"size": [6, 5], "counts": [10**30, 1]}, "no whole numbers"),
        ({"size": [6, 5], "counts": "o" * 8 + "0"}, "a run longer than any picture"),
        ({"size": [6, 5], "counts": "P"}, "no run-length string"),  # says that more follows; pycocotools reads on
        ({"size": [6, 5], "counts": " "}, "no run-length string"),
        ({"size": [6, 5], "counts": ""}, "neither COCO's string nor a list"),
        ({"size": [6, 5], "counts": "é"}, "neither COCO's string nor a list"),
        ({"size": [6, 5]}, "neither COCO's string nor a list"),
        ({"counts": "0"}, "mask of size None"),
        ([], "no polygon"),
        ([[1, 2, 3, 4]], "a polygon of 4 numbers"),
        ([[9, 9, 12, 9, 12, 12]], "empty mask"),
        (None, "got dict"),
    ],
)
def test_what_is_no_mask_of_this_picture_has_a_reason(segmentation: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        decode_mask({"segmentation": segmentation}, (6, 5))


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (b"", "cannot be read"),
        (b"\xff\xfe\xff", "cannot be read"),
        (b"[" * 100_000, "cannot be read"),
        (b'{"annotations": ' + b"9" * 5000 + b"}", "cannot be read"),
        (b"[]", "no list of annotations"),
        (b"Infinity", "no list of annotations"),
        (b'{"annotations": {"a": 1}}', "no list of annotations"),
        (b'{"annotations": null}', "no list of annotations"),
    ],
)
def test_a_document_without_annotations_has_a_reason(document: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_annotations(document)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["size", "counts", "x"]), inner),
    max_leaves=8,
)
counts = st.text(st.characters(min_codepoint=46, max_codepoint=113), max_size=24) | st.lists(json_values, max_size=6)


@settings(max_examples=300, deadline=None)  # half a second together
@given(
    json_values
    | st.fixed_dictionaries({"segmentation": json_values})
    | st.fixed_dictionaries({"segmentation": st.fixed_dictionaries({"size": st.just([6, 5]), "counts": counts})})
)
def test_whatever_an_annotation_is_it_gives_a_mask_or_one_line(annotation: Any) -> None:
    document = json.dumps({"annotations": [annotation]}).encode()
    try:
        mask = decode_mask(read_annotations(document)[0], (6, 5))
    except ValueError as error:
        assert str(error) and "\n" not in str(error)
    else:
        assert mask.shape == (6, 5) and mask.dtype == bool and mask.any()
