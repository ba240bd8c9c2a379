"""Generated scenes: exact, repeatable, disjoint splits."""

import time
from pathlib import Path

import numpy as np
import pytest

from reference.training.scenes.contact_sheet import contact_sheet
from reference.training.scenes.scene_cache import low_resolution_ids, open_cache, write_cache
from reference.training.scenes.scenes import SceneGenerator
from reference.training.scenes.textures import texture_bank


@pytest.fixture(scope="module")
def generator() -> SceneGenerator:
    return SceneGenerator("train", 128)


def test_the_same_number_gives_the_same_scene(generator: SceneGenerator) -> None:
    first, again, other = generator(3), SceneGenerator("train", 128)(3), generator(4)
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.ids, again.ids)
    assert not np.array_equal(first.image, other.image)


def test_every_part_lies_in_one_object_and_every_object_in_one_group(generator: SceneGenerator) -> None:
    seen_parts = seen_groups = 0
    for number in range(40):
        scene = generator(number, difficulty=1.0)
        parts, objects, groups = scene.ids.reshape(3, -1)
        for inner, outer in ((parts, objects), (objects, groups)):
            pairs = np.unique(np.stack([inner, outer]), axis=1)
            assert len(np.unique(pairs[0])) == pairs.shape[1], (
                f"scene {number}: an id lies in two ids of the level above"
            )
        seen_parts += len(np.unique(parts)) > len(np.unique(objects))
        seen_groups += len(np.unique(objects)) > len(np.unique(groups))
    assert seen_parts >= 5 and seen_groups >= 5, "multimask would have nothing to disambiguate"


def test_background_has_low_ids_at_every_level(generator: SceneGenerator) -> None:
    for number in range(10):
        scene = generator(number)
        background = scene.ids < scene.things
        np.testing.assert_array_equal(background[0], background[1])
        np.testing.assert_array_equal(background[1], background[2])


def test_difficulty_adds_objects(generator: SceneGenerator) -> None:
    def mean_count(difficulty: float) -> float:
        return float(np.mean([len(np.unique(generator(n, difficulty).ids[1])) for n in range(30)]))

    assert mean_count(1.0) > mean_count(0.0) + 2


def test_splits_share_no_texture() -> None:
    train = {pattern.tobytes() for pattern in texture_bank("train", 32)}
    held_out = {pattern.tobytes() for pattern in texture_bank("held-out", 32)}
    assert len(train) == len(held_out) == 32
    assert not train & held_out


def test_an_unknown_split_is_named() -> None:
    with pytest.raises(ValueError, match="got split 'test', expected 'train' or 'held-out'"):
        SceneGenerator("test")


def test_a_scene_takes_milliseconds() -> None:
    generator = SceneGenerator("train", 224)
    begun = time.process_time()
    for number in range(20):
        generator(number)
    # 8 ms on the machine it was written on; 60 leaves room for a slow one, and still feeds a training step of half a
    # second.
    assert (time.process_time() - begun) / 20 < 0.06


def test_a_cache_holds_what_the_generator_paints(tmp_path: Path) -> None:
    cache = write_cache(tmp_path, 3, image_size=64, first=5)
    scene = SceneGenerator("train", 64)(7)
    np.testing.assert_array_equal(cache.images[2], scene.image)
    np.testing.assert_array_equal(cache.ids[2], low_resolution_ids(scene.ids))
    assert len(open_cache(tmp_path)) == 3
    with pytest.raises(ValueError, match="no finished scene cache"):
        open_cache(tmp_path / "elsewhere")


def test_the_contact_sheet_shows_scene_parts_and_objects() -> None:
    sheet = contact_sheet(SceneGenerator("train", 64), rows=2, columns=3)
    assert sheet.shape == (2 * 3 * 64, 3 * 64, 3)
    assert sheet.std() > 10
