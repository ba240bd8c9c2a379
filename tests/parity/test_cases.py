"""The photos that ship with the package are what the cases say."""

from mobilesam_export.parity.cases import PHOTOS, PromptKind
from mobilesam_export.photos import PHOTO_DIR


def test_there_is_a_square_a_landscape_and_a_portrait_photo() -> None:
    shapes = [photo.read().shape for photo in PHOTOS]
    assert any(h == w for h, w, _ in shapes)
    assert any(h < w for h, w, _ in shapes)
    assert any(h > w for h, w, _ in shapes)
    assert any((h % 2 and w % 2 == 0) or w % 2 for h, w, _ in shapes)


def test_every_photo_has_every_kind_of_prompt_inside_it() -> None:
    for photo in PHOTOS:
        height, width, _ = photo.read().shape
        cases = photo.cases()
        assert {case.kind for case in cases} == set(PromptKind)
        for case in cases:
            corners = [] if case.box is None else [case.box[:2], case.box[2:]]
            assert all(0 <= x < width and 0 <= y < height for x, y in [*case.points, *corners])
            assert len(case.points) == len(case.labels)


def test_masks_come_before_the_cases_that_take_them() -> None:
    for photo in PHOTOS:
        kinds = [case.kind for case in photo.cases()]
        assert all(
            case.mask_from is None or kinds.index(case.mask_from) < kinds.index(case.kind) for case in photo.cases()
        )


def test_every_photo_has_its_source_and_licence_written_down() -> None:
    readme = (PHOTO_DIR / "README.md").read_text()
    pictures = [path.name for path in PHOTO_DIR.iterdir() if path.suffix in (".png", ".jpg")]
    assert sorted(pictures) == sorted(photo.file for photo in PHOTOS)
    assert all(f"`{name}`" in readme for name in pictures)
