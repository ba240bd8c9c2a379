"""Cut-outs: which files count as objects, what is held out, how they are divided, and the scenes painted with them."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import EpsImagePlugin, Image

from reference.training.__main__ import main
from reference.training.scenes.cutout_scenes import CutoutSceneGenerator
from reference.training.scenes.cutouts import SIDE, colour_regions, is_held_out, kind_of, open_cutouts, prepare_cutouts
from reference.training.scenes.scenes import Scene


def two_coloured(colour: tuple[int, int, int], side: int = 96) -> NDArray[np.uint8]:
    """A disc, its left half in one colour and its right half in the opposite one."""
    y, x = np.mgrid[:side, :side]
    rgba = np.zeros((side, side, 4), np.uint8)
    rgba[..., :3] = np.where(x[..., None] < side / 2, colour, 255 - np.array(colour))
    rgba[..., 3] = 255 * (np.hypot(x - side / 2 + 0.5, y - side / 2 + 0.5) < 0.45 * side)
    return rgba


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, out = tmp_path_factory.mktemp("objects"), tmp_path_factory.mktemp("prepared")
    for n in range(40):
        Image.fromarray(two_coloured((240, 6 * n, 20))).save(folder / f"thing{n}.png")
    Image.new("RGB", (64, 64)).save(folder / "opaque.png")
    (folder / "broken.png").write_bytes(b"not a picture")
    prepare_cutouts(folder, out)
    return out


def test_postscript_under_a_cut_outs_name_does_not_reach_ghostscript(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *arguments, **_: ran.append(arguments))
    Image.new("RGB", (64, 64)).save(tmp_path / "cup.eps")
    (tmp_path / "cup.eps").rename(tmp_path / "cup.png")
    with pytest.raises(ValueError, match="holds no RGBA cut-out"):
        prepare_cutouts(tmp_path, tmp_path / "out")
    assert ran == []


def test_skin_tones_and_genders_of_one_object_have_one_name_and_so_stay_on_one_side_of_the_split() -> None:
    names = ("1f9d1-200d-1f692", "1f468-1f3fd-200d-1f692", "1f469-1f3ff-200d-1f692")
    assert {kind_of(name) for name in names} == {"1f9d1-1f692"}
    assert kind_of("1f3c4-1f3fb-200d-2640-fe0f") == kind_of("1f3c4") == "1f3c4"


@pytest.mark.parametrize("name", ["1f1e6-1f1e8", "0023-fe0f-20e3", "2795", "1f6ab", "1f3f4-e0067", "1f500", "2648"])
def test_flags_keycaps_and_signs_are_no_objects(name: str) -> None:
    assert kind_of(name) is None


@pytest.mark.parametrize("name", ["1f680", "1f431", "2615", "my_cup", "1f34e"])
def test_things_are_objects(name: str) -> None:
    assert kind_of(name) == name


def test_about_one_object_in_eight_is_held_out() -> None:
    share = np.mean([is_held_out(f"object {n}") for n in range(4000)])
    assert abs(share - 1 / 8) < 0.02  # four standard deviations of a fair draw


def test_a_two_coloured_disc_has_two_regions_and_nothing_outside_its_alpha() -> None:
    pixels = two_coloured((250, 30, 30), SIDE)
    regions = colour_regions(pixels)
    assert set(np.unique(regions)) == {0, 1, 2}
    assert np.array_equal(regions > 0, pixels[..., 3] > 127)
    left, right = regions[SIDE // 2, SIDE // 4], regions[SIDE // 2, 3 * SIDE // 4]
    assert left != right
    assert np.mean(regions[:, : SIDE // 2 - 4][pixels[:, : SIDE // 2 - 4, 3] > 127] == left) > 0.99


def test_splits_share_no_object_and_unusable_files_are_left_out(prepared: Path) -> None:
    train, held_out = open_cutouts(prepared, "train"), open_cutouts(prepared, "held-out")
    rows = [row for kind in (*train.kinds, *held_out.kinds) for row in kind]
    assert sorted(rows) == list(range(40))
    assert train.pixels.shape == (40, SIDE, SIDE, 4)


def test_a_folder_without_cut_outs_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "opaque.png")
    with pytest.raises(ValueError, match="holds no RGBA cut-out"):
        prepare_cutouts(tmp_path, tmp_path / "out")


def test_the_same_number_gives_the_same_scene_and_every_object_has_its_parts_inside(prepared: Path) -> None:
    generator = CutoutSceneGenerator(prepared, "train", 224)
    scene, again, other = generator(3), generator(3), generator(4)
    assert np.array_equal(scene.image, again.image) and np.array_equal(scene.ids, again.ids)
    assert not np.array_equal(scene.image, other.image)
    for n in range(12):
        ids = generator(n).ids.astype(int)
        parts, objects = ids[0].ravel(), ids[1].ravel()
        for part in np.unique(parts):
            assert len(np.unique(objects[parts == part])) == 1, f"scene {n}: part {part} lies in two objects"


def test_part_numbers_never_run_over_their_byte(prepared: Path) -> None:
    generator = CutoutSceneGenerator(prepared, "train", 1024)
    scene = generator(0, difficulty=1.0)
    parts, objects = scene.ids[0].astype(int), scene.ids[1].astype(int)
    background = np.isin(objects, range(scene.things))
    assert not np.isin(parts[~background], range(scene.things)).any()


@pytest.mark.parametrize("option", ["--sheet", "--tar", "--cache"])
def test_every_form_of_the_scenes_command_paints_the_cut_outs_it_is_given(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    asked, painted = [], []
    paint = CutoutSceneGenerator.__call__

    def noted(self: CutoutSceneGenerator, number: int, difficulty: float | None = None) -> Scene:
        painted.append(number)
        return paint(self, number, difficulty)

    monkeypatch.setattr(CutoutSceneGenerator, "__call__", noted)
    monkeypatch.setattr("reference.training.scenes.cutouts.prepared_cutouts", lambda f: asked.append(f) or prepared)
    command = ["scenes", option, str(tmp_path / "out.png"), "--objects", str(tmp_path), "--count", "1"]
    assert main([*command, "--image-size", "64"]) == 0
    assert asked == [tmp_path]
    assert painted == ([*range(24)] if option == "--sheet" else [0])
