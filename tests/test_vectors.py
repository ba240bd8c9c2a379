"""The conformance vectors that are committed are those of the reference, and the Python host passes them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from mobilesam_export.errors import ExportError
from mobilesam_export.outlines import polygons
from mobilesam_export.segmenter import SegmenterError, check
from mobilesam_export.vector_inputs import made_up_logits, made_up_photo
from mobilesam_export.vectors import EITHER, write_vectors
from reference import load_mobile_sam
from reference.small_regions import fill_holes, remove_islands
from tests.small_bundle import write_bundle

COMMITTED = Path(__file__).parent.parent / "apps" / "conformance" / "vectors"
MOST_BYTES = 2 * 1024 * 1024
JPEG_LEVELS = 8  # what decoders may differ by, as the format says


def arrays(value: Any) -> list[dict[str, Any]]:
    """Every array that is named anywhere in a section."""
    if isinstance(value, dict):
        return [value] if "dtype" in value else [a for v in value.values() for a in arrays(v)]
    return [a for v in value for a in arrays(v)] if isinstance(value, list) else []


def load(directory: Path, array: dict[str, Any]) -> NDArray[Any]:
    values = np.fromfile(directory / array["file"], np.dtype(array["dtype"]).newbyteorder("<"))
    return values.reshape(array["shape"])


@pytest.fixture(scope="module")
def vectors() -> dict[str, Any]:
    read: dict[str, Any] = json.loads((COMMITTED / "vectors.json").read_text(encoding="utf-8"))
    return read


def test_the_committed_vectors_are_what_the_command_writes(tmp_path: Path, vectors: dict[str, Any]) -> None:
    fresh = json.loads(write_vectors(tmp_path / "vectors").read_text(encoding="utf-8"))
    assert fresh == vectors
    files = {path.name for path in (COMMITTED / "arrays").iterdir()}
    assert files == {path.name for path in (tmp_path / "vectors" / "arrays").iterdir()}
    for array in arrays(vectors):
        expected, got = load(tmp_path / "vectors", array).astype(float), load(COMMITTED, array).astype(float)
        if "-jpeg" in array["file"]:
            assert np.abs(expected - got).max() <= JPEG_LEVELS, array["file"]
        elif array["file"].startswith("arrays/resize-"):
            assert np.abs(expected - got).max() <= 1, array["file"]  # Pillow's order of passes is its version's own
        elif array["file"].startswith("arrays/mask-"):
            # Another processor's float32 sums may move a pixel over the line of what counts as undecided.
            differ = expected != got
            assert (np.maximum(expected, got)[differ] == EITHER).all() and differ.mean() < 1e-3, array["file"]
        else:
            np.testing.assert_array_equal(expected, got, array["file"])


def test_the_committed_vectors_are_small_and_complete(vectors: dict[str, Any]) -> None:
    assert sum(path.stat().st_size for path in COMMITTED.rglob("*") if path.is_file()) < MOST_BYTES
    named = " ".join(case["name"] for case in vectors["resize"])
    for what in ("portrait", "landscape", "square", "odd sides", "1 x 1", "5 x 3", "4000 x 12"):
        assert f"{what} to 128" in named and f"{what} to 1024" in named
    assert {case["orientation"] for case in vectors["orientation"]} == set(range(1, 9))
    turned = {tuple(case["upright_size"]) for case in vectors["orientation"]}
    assert turned == {(3, 5), (5, 3)}
    assert {case["max_points"] for case in vectors["prompts"]} >= {None, 1, 2, 3, 8}
    assert {label for case in vectors["prompts"] for label in case["point_labels"]} == {-2, -1, 0, 1, 2, 3}
    undecided = [float((load(COMMITTED, case["mask"]) == EITHER).mean()) for case in vectors["masks"]]
    assert max(undecided) < 1e-3, "a mask that may be anything proves nothing"


def test_made_up_photos_and_logits_are_the_documented_formulas() -> None:
    photo, logits = made_up_photo((40, 50)), made_up_logits(128)
    x, y, c = 37, 29, 2
    assert photo[y, x, c] == (3 * x * x + 5 * y * y + 7 * x * y + 85 * c + 31 * ((x >> 4) ^ (y >> 4))) % 256

    def tri(t: int, p: int) -> int:
        return abs(t % (2 * p) - p)

    assert logits[21, 13] == (tri(3 * 13 + 21, 40) + tri(5 * 21 - 2 * 13 + 1000, 56) - 48.3046875) / 32


def test_every_prompt_error_is_the_python_hosts_own(vectors: dict[str, Any]) -> None:
    assert len(vectors["prompt_errors"]) >= 10
    for case in vectors["prompt_errors"]:
        with pytest.raises(SegmenterError) as caught:
            check(case["points"], case["box"], case["previous_mask"], case["photo_size"], case["max_points"])
        assert caught.value.code == case["error"], case["name"]


def test_polygons_filled_again_are_the_mask(vectors: dict[str, Any]) -> None:
    for case in vectors["polygons"]:
        mask = load(COMMITTED, case["mask"]).astype(bool)
        crossings = np.zeros((mask.shape[0], mask.shape[1] + 1), int)
        for ring in case["rings"]:
            for (x0, y0), (x1, y1) in zip(ring, [*ring[1:], ring[0]], strict=True):
                assert (x0 == x1) != (y0 == y1), "every side is horizontal or vertical"
                crossings[min(y0, y1) : max(y0, y1), x0] += 1 if x0 == x1 else 0
        np.testing.assert_array_equal(crossings.cumsum(axis=1)[:, :-1] % 2 == 1, mask, case["name"])


def test_outer_rings_run_clockwise_and_holes_against() -> None:
    frame = np.ones((3, 3), bool)
    frame[1, 1] = False
    assert polygons(frame) == [[(0, 0), (3, 0), (3, 3), (0, 3)], [(1, 1), (1, 2), (2, 2), (2, 1)]]
    touching = np.eye(2, dtype=bool)
    assert polygons(touching) == [[(0, 0), (1, 0), (1, 1), (0, 1)], [(1, 1), (2, 1), (2, 2), (1, 2)]]


def test_small_regions_go_and_the_largest_island_stays() -> None:
    mask = np.zeros((6, 8), bool)
    mask[0:5, 0:5] = True
    mask[2, 2] = False
    mask[5, 7] = True
    assert fill_holes(mask, 1)[2, 2] == 0 and fill_holes(mask, 2)[2, 2] == 1
    assert remove_islands(mask, 1)[5, 7] == 1 and remove_islands(mask, 2)[5, 7] == 0
    assert remove_islands(mask, 1000).sum() == 24


@pytest.mark.parametrize("operation", ["fill_holes", "remove_islands"])
def test_a_region_of_exactly_the_area_is_among_the_vectors(operation: str, vectors: dict[str, Any]) -> None:
    """A host that says "at most" instead of "fewer" gives another answer somewhere."""
    apply = {"fill_holes": fill_holes, "remove_islands": remove_islands}[operation]
    cases = [case for case in vectors["regions"] if case["operation"] == operation]
    wrong = [
        case["name"]
        for case in cases
        if (apply(load(COMMITTED, case["mask"]) > 0, case["area"] + 1) != load(COMMITTED, case["result"])).any()
    ]
    assert wrong


def test_vectors_never_replace_others(tmp_path: Path) -> None:
    (tmp_path / "vectors.json").write_text("mine")
    with pytest.raises(ExportError, match="delete it"):
        write_vectors(tmp_path)
    assert (tmp_path / "vectors.json").read_text() == "mine"


def test_a_bundle_of_other_weights_is_told_before_anything_is_written(tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundle")
    with pytest.raises(ExportError, match="other weights; say from which with --checkpoint"):
        write_vectors(
            tmp_path / "vectors", tmp_path / "bundle", lambda manifest: load_mobile_sam("demo", manifest.image_size)
        )
    assert not (tmp_path / "vectors").exists()


def test_polygons_drawn_by_another_program_agree() -> None:
    mask = made_up_logits(128) > 0
    scale = 8
    image = Image.new("1", (mask.shape[1] * scale, mask.shape[0] * scale))
    draw = ImageDraw.Draw(image)
    for ring in polygons(mask):
        outer = sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(ring, [*ring[1:], ring[0]], strict=True)) > 0
        draw.polygon([(x * scale, y * scale) for x, y in ring], fill=int(outer))
    centres = np.array(image)[scale // 2 :: scale, scale // 2 :: scale]
    np.testing.assert_array_equal(centres, mask)
