"""The segment command: which mask is chosen, what is asked of the decoder, what is written and where."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mobilesam_export import cli
from mobilesam_export.bundle.predictor import BundlePredictor

SIDE = 64
WIDTH, HEIGHT = 64, 48
IOU = [0.99, 0.2, 0.9, 0.5]  # the single mask's is the highest, and says nothing about the alternatives
Floats = NDArray[np.float32]


class Scripted:
    """A runtime whose row r masks the r-th quarter of the columns; it keeps what it was asked."""

    image_size, max_points = SIDE, 8

    def __init__(self) -> None:
        self.asked: list[tuple[Floats, Floats, Floats | None]] = []

    def encode(self, image: Floats) -> Floats:
        return np.zeros((1, 256, SIDE // 16, SIDE // 16), np.float32)

    def decode(
        self, image_embeddings: Floats, point_coords: Floats, point_labels: Floats, mask_input: Floats | None
    ) -> tuple[Floats, Floats]:
        self.asked.append((point_coords, point_labels, mask_input))
        logits = np.full((1, 4, SIDE // 4, SIDE // 4), -5, np.float32)
        for row in range(4):
            logits[0, row, :, 4 * row : 4 * row + 4] = 5
        return logits, np.array([IOU], np.float32)


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Scripted:
    scripted = Scripted()
    monkeypatch.setattr("mobilesam_export.bundle.predictor.load_bundle", lambda *_: BundlePredictor(scripted, "x"))
    return scripted


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "cat.png"
    pixels = np.random.default_rng(0).integers(1, 256, (HEIGHT, WIDTH, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def run(*arguments: str | Path) -> int:
    return cli.main(["segment", *map(str, arguments)])


def masked_row(path: Path) -> int:
    """Whose columns are white."""
    mask = np.asarray(Image.open(path))
    assert mask.shape == (HEIGHT, WIDTH) and set(np.unique(mask)) == {0, 255}
    row = int(np.flatnonzero(mask[0]).mean()) // 16
    assert mask[:, 16 * row + 2 : 16 * row + 14].all()
    return row


def test_one_click_gives_the_best_alternative_and_says_so(
    runtime: Scripted, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mask.png"
    assert run(photo, "--point", "40,20", "-o", out) == 0
    assert masked_row(out) == 2
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [str(out), str(tmp_path / "mask-overlay.png")]
    assert captured.err == ("cat.png: mask 2, the best of 3, predicted IoU 0.200, 0.900, 0.500, 25.0 % of the photo\n")
    assert run(photo, "--point", "40,20", "-o", out, "--overwrite", "-q") == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "prompt",
    [
        ["--box", "1,2,40,30"],
        ["--point", "40,20", "--point", "30,20"],
        ["--point", "40,20", "--background", "30,20"],
        ["--background", "40,20"],
        ["--point", "40,20", "--box", "1,2,60,30"],
    ],
    ids=" ".join,
)
def test_any_other_prompt_gives_the_single_mask(
    runtime: Scripted, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], prompt: list[str]
) -> None:
    assert run(photo, *prompt, "-o", tmp_path / "mask.png") == 0
    assert masked_row(tmp_path / "mask.png") == 0
    assert "cat.png: the single mask, predicted IoU 0.990," in capsys.readouterr().err


def test_points_keep_their_labels_and_places(runtime: Scripted, photo: Path, tmp_path: Path) -> None:
    prompt = ["--background", "10,40", "--point", "40,20", "--point", "30,21", "--background", "5,6"]
    assert run(photo, *prompt, "--box", "1,2,60,30", "-o", tmp_path / "mask.png") == 0
    coords, labels, mask_input = runtime.asked[0]
    assert coords[0].tolist() == [[40, 20], [30, 21], [10, 40], [5, 6], [1, 2], [60, 30]]  # a photo of S is not scaled
    assert labels[0].tolist() == [1, 1, 0, 0, 2, 3]
    assert mask_input is None
    overlay = np.asarray(Image.open(tmp_path / "mask-overlay.png"))
    assert overlay[20, 40].tolist() == [0, 220, 80] and overlay[40, 10].tolist() == [235, 50, 50]


@pytest.mark.parametrize("prompt", [["--point", "40,20"], ["--box", "1,2,40,30"]], ids=" ".join)
def test_all_masks_are_the_three_alternatives(
    runtime: Scripted, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], prompt: list[str]
) -> None:
    out = tmp_path / "mask.png"
    assert run(photo, *prompt, "-o", out, "--all-masks") == 0
    alternatives = [tmp_path / f"mask-{row}.png" for row in (1, 2, 3)]
    assert [masked_row(path) for path in alternatives] == [1, 2, 3]
    assert masked_row(out) == (2 if prompt[0] == "--point" else 0)
    assert capsys.readouterr().out.splitlines()[2:] == list(map(str, alternatives))


def test_a_single_mask_bundle_has_no_alternatives(
    photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class OneRow(Scripted):
        def decode(self, *asked):  # type: ignore[no-untyped-def]
            logits, iou = super().decode(*asked)
            return logits[:, 3:], iou[:, 3:]

    monkeypatch.setattr(
        "mobilesam_export.bundle.predictor.load_bundle", lambda *_: BundlePredictor(OneRow(), "x", single_mask=True)
    )
    assert run(photo, "--point", "40,20", "-o", tmp_path / "mask.png") == 0
    assert masked_row(tmp_path / "mask.png") == 3
    assert "cat.png: the decoder's choice, predicted IoU 0.500," in capsys.readouterr().err
    assert run(photo, "--point", "40,20", "-o", tmp_path / "other.png", "--all-masks") == 1
    assert "this bundle's decoder chooses one mask; export it without --single-mask" in capsys.readouterr().err


def test_a_cutout_is_the_object_on_nothing(runtime: Scripted, photo: Path, tmp_path: Path) -> None:
    assert run(photo, "--point", "40,20", "-o", tmp_path / "mask.png", "--cutout", tmp_path / "cut.png") == 0
    mask = np.asarray(Image.open(tmp_path / "mask.png"))
    with Image.open(tmp_path / "cut.png") as cutout:
        assert cutout.mode == "RGBA"
        pixels = np.asarray(cutout)
    np.testing.assert_array_equal(pixels[..., 3], mask)
    np.testing.assert_array_equal(pixels[..., :3], np.asarray(Image.open(photo)) * (mask > 0)[..., None])


def test_logits_of_one_answer_refine_the_next(runtime: Scripted, photo: Path, tmp_path: Path) -> None:
    logits = tmp_path / "mask.npy"
    assert run(photo, "--point", "40,20", "-o", tmp_path / "a.png", "--logits", logits) == 0
    written = np.load(logits)
    assert written.shape == (1, 16, 16) and written.dtype == np.float32 and (written[0, :, 8:12] == 5).all()
    np.save(tmp_path / "plain.npy", written[0].astype(np.float64))  # (S/4, S/4) too, of any float type
    for name, prompt in (("mask", ["--point", "40,20"]), ("plain", [])):
        out = tmp_path / f"{name}-refined.png"
        assert run(photo, *prompt, "--mask-input", tmp_path / f"{name}.npy", "-o", out) == 0
        assert runtime.asked[-1][2] is not None
        np.testing.assert_array_equal(runtime.asked[-1][2], written[None])
        assert masked_row(out) == 0  # a click that refines is not ambiguous


def test_json_says_everything(
    runtime: Scripted, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {name: str(tmp_path / file) for name, file in (("mask", "m.png"), ("cutout", "c.png"), ("logits", "l.npy"))}
    arguments = ["-o", names["mask"], "--cutout", names["cutout"], "--logits", names["logits"], "--all-masks", "--json"]
    assert run(photo, "--point", "40,20", *arguments) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    assert answer == {
        "photo": str(photo),
        "width": WIDTH,
        "height": HEIGHT,
        **names,
        "overlay": str(tmp_path / "m-overlay.png"),
        "alternatives": [str(tmp_path / f"m-{row}.png") for row in (1, 2, 3)],
        "row": 2,
        "iou_prediction": 0.9,
        "iou_predictions": {"1": 0.2, "2": 0.9, "3": 0.5},
        "area_pixels": 16 * HEIGHT,
        "mask_box": [32, 0, 47, 47],
    }


def test_an_empty_mask_is_told(
    runtime: Scripted, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = runtime.decode
    monkeypatch.setattr(runtime, "decode", lambda *asked: (decode(*asked)[0] * 0 - 1, decode(*asked)[1]))
    assert run(photo, "--point", "40,20", "-o", tmp_path / "mask.png", "--json") == 0
    captured = capsys.readouterr()
    assert "0.0 % of the photo; it is empty: try another point, or a box" in captured.err
    assert json.loads(captured.out)[0]["mask_box"] is None


def test_a_folder_of_photos_goes_into_a_folder_and_a_broken_one_does_not_stop_the_others(
    runtime: Scripted, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("b.JPG", "a.png", "tiny.png"):
        Image.new("RGB", (8, 8) if name == "tiny.png" else (WIDTH, HEIGHT)).save(folder / name)
    (folder / "broken.jpg").write_text("no photo")
    (folder / "notes.txt").write_text("not looked at")
    out, cut = tmp_path / "out", tmp_path / "cut"
    assert run(folder, photo, "--point", "40,20", "-o", out, "--cutout", cut) == 1
    captured = capsys.readouterr()
    assert "broken.jpg: " in captured.err and "cannot be read as an image" in captured.err
    assert "tiny.png: (40, 20) is outside the photo of 8 x 8 pixels" in captured.err
    assert captured.err.splitlines()[-1] == "error: 2 of 5 photos were not segmented, for the reasons above"
    expected = [out / f"{name}{ending}.png" for name in "ab" for ending in ("", "-overlay")]
    assert {path.name for path in out.iterdir()} == {path.name for path in expected} | {"cat.png", "cat-overlay.png"}
    assert {path.name for path in cut.iterdir()} == {"a.png", "b.png", "cat.png"}
    assert [masked_row(out / f"{name}.png") for name in ("a", "b", "cat")] == [2, 2, 2]
    np.save(tmp_path / "m.npy", np.zeros((1, 16, 16), np.float32))
    assert run(folder, "--mask-input", tmp_path / "m.npy", "-o", out, "--overwrite") == 1
    assert "--mask-input belongs to one photo, got 4" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert run(tmp_path / "empty", "--point", "40,20", "-o", out) == 1
    assert "empty holds no photo, expected files that end in .jpg, .jpeg" in capsys.readouterr().err


def test_no_two_answers_go_into_one_file_and_none_over_a_photo(
    runtime: Scripted, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.open(photo).save(tmp_path / "cat.jpg")
    before = photo.read_bytes()
    for arguments, told in (
        ([photo, tmp_path / "cat.jpg", "-o", tmp_path / "out"], r"cat.jpg would go to"),
        ([photo, "-o", photo], "which is taken by"),
        ([photo, "-o", tmp_path / "m.png", "--cutout", tmp_path / "m.png"], "which is taken by another file of"),
        ([photo, "-o", tmp_path / "m.png", "--cutout", tmp_path / "m-overlay.png"], "which is taken by"),
        ([tmp_path, "-o", tmp_path], "which is taken by"),
    ):
        assert run(*arguments, "--point", "40,20", "--overwrite") == 1
        error = capsys.readouterr().err
        assert told in error and "choose another place" in error and error.count("\n") == 1
    assert photo.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"cat.png", "cat.jpg"}
    assert runtime.asked == []


def test_what_exists_is_named_in_good_grammar(
    runtime: Scripted, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, overlay = tmp_path / "mask.png", tmp_path / "mask-overlay.png"
    out.write_text("mine")
    assert run(photo, "--point", "40,20", "-o", out) == 1
    assert capsys.readouterr().err == (f"error: {out} exists; choose another -o, or replace it with --overwrite\n")
    overlay.write_text("mine")
    assert run(photo, "--point", "40,20", "-o", out) == 1
    assert f"{out} and {overlay} exist; choose another -o, or replace them with --overwrite" in capsys.readouterr().err
    assert out.read_text() == overlay.read_text() == "mine"


@pytest.mark.parametrize(("option", "ending"), [("-o", ".png"), ("--cutout", ".png"), ("--logits", ".npy")])
def test_outputs_have_the_ending_of_their_format(
    runtime: Scripted, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, ending: str
) -> None:
    assert run(photo, "--point", "40,20", option, tmp_path / "out.jpg") == 1
    assert f"out.jpg, expected a name that ends in {ending}" in capsys.readouterr().err


def test_a_mask_input_that_is_none_is_told(
    runtime: Scripted, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    header = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little")
    claim = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1000000, 1000000), }"
    (tmp_path / "giant.npy").write_bytes(header + claim.ljust(117) + b"\n" + bytes(100))
    (tmp_path / "text.npy").write_text("no array")
    np.save(tmp_path / "pickle.npy", np.array([{}], object), allow_pickle=True)
    np.savez(tmp_path / "zip.npz", np.zeros((16, 16)))
    np.save(tmp_path / "words.npy", np.array(["a"]))
    np.save(tmp_path / "small.npy", np.zeros((1, 8, 8), np.float32))
    np.save(tmp_path / "three.npy", np.zeros((3, 16, 16), np.float32))
    os.mkfifo(tmp_path / "pipe.npy")
    for name, told in (
        ("missing.npy", "there is no mask input (.npy) at"),
        ("pipe.npy", "is a pipe, expected a mask input (.npy) in a regular file"),
        ("giant.npy", "is no .npy file of numbers"),
        ("text.npy", "is no .npy file of numbers"),
        ("pickle.npy", "is no .npy file of numbers"),
        ("zip.npz", "is no .npy file of numbers"),
        ("words.npy", "is no .npy file of numbers; write one with --logits OUT.npy"),
        ("small.npy", "got mask_input of shape (1, 8, 8), expected (1, 16, 16)"),
        ("three.npy", "got mask_input of shape (3, 16, 16), expected (1, 16, 16)"),
    ):
        assert run(photo, "--point", "40,20", "--mask-input", tmp_path / name, "-o", tmp_path / "mask.png") == 1
        error = capsys.readouterr().err
        assert told in error and error.count("\n") == 1, error
    assert not (tmp_path / "mask.png").exists()


def test_a_pipe_as_photo_is_refused_at_once(
    runtime: Scripted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    assert run(tmp_path / "pipe.jpg", "--point", "1,1", "-o", tmp_path / "mask.png") == 1
    assert "pipe.jpg is a pipe, expected a photo in a regular file" in capsys.readouterr().err
