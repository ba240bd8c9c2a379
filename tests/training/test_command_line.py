"""The command line: help, one-line errors, and the cheap commands."""

from pathlib import Path

import pytest

from reference.training.__main__ import build_parser, main
from reference.training.distillation.plan import cost


def test_every_command_has_help_with_each_option_explained(capsys: pytest.CaptureFixture[str]) -> None:
    for command, expected in (
        ("embed", "Images a shard; 256 are 0.5 GB at 1024. [256]"),
        ("distill", "Passes over the pictures. [8]"),
        ("finetune", "Prompts a mask: the first and corrections. [3]"),
        ("evaluate", "Clicks a photo. [16]"),
        ("reproduce", "CPU seconds of one run. [260.0]"),
    ):
        with pytest.raises(SystemExit) as done:
            build_parser().parse_args([command, "--help"])
        text = " ".join(capsys.readouterr().out.split())
        assert done.value.code == 0
        assert expected in text and f"python -m reference.training {command}" in text


def test_what_a_user_can_mend_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    failures = {
        (
            "embed",
            "--teacher",
            str(tmp_path / "sam_vit_h.pth"),
            "--data",
            str(tmp_path),
            "--out",
            str(tmp_path / "o"),
        ): "there is no teacher at",
        (
            "distill",
            "--teacher",
            "demo",
            "--embeddings",
            str(tmp_path),
            "--out",
            str(tmp_path / "o"),
        ): "no embedding shards in",
        (
            "evaluate",
            "--teacher",
            "demo",
            "--student",
            "demo",
            "--data",
            str(tmp_path),
            "--image-size",
            "64",
        ): "found no images in",
    }
    for command, expected in failures.items():
        assert main(list(command)) == 1
        error = capsys.readouterr().err
        assert error.startswith(f"error: {expected}") and error.count("\n") == 1, error


@pytest.mark.parametrize(
    "command",
    [
        ("distill", "--teacher", "demo", "--embeddings", "e", "--out", "o", "--batch-size", "0"),
        ("embed", "--teacher", "demo", "--data", "d", "--out", "o", "--limit", "0"),
        ("evaluate-scenes", "--scenes", "0"),
        ("show", "--scenes", "-1"),
        ("scenes", "--tar", "t.tar", "--count", "0"),
    ],
)
def test_a_count_below_one_is_refused(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(list(command))
    assert done.value.code == 2
    assert f"argument {command[-2]}: got {command[-1]}, expected at least 1" in capsys.readouterr().err


def test_a_seed_may_be_zero() -> None:
    command = ["distill", "--teacher", "demo", "--embeddings", "e", "--out", "o", "--seed", "0", "--workers", "0"]
    assert build_parser().parse_args(command).seed == 0


def test_a_picture_goes_where_it_was_asked_for_or_the_command_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["scenes", "--sheet", str(tmp_path / "new" / "sheet.png")]) == 0
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["sheet.png"]
    assert main(["scenes", "--sheet", str(tmp_path / "sheet.nothing")]) == 1
    assert "expected a name that ends in .png or .jpg" in capsys.readouterr().err
    assert not (tmp_path / "sheet.nothing").exists()


def test_the_folder_of_cut_outs_is_looked_for_before_any_scene_is_painted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demonstrate", "--work", str(tmp_path / "work"), "--objects", str(tmp_path / "none")]) == 1
    assert "none" in capsys.readouterr().err
    assert not (tmp_path / "work").exists()


def test_the_plan_counts_one_percent_as_the_facts_say(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan"]) == 0
    assert "100%  11,185,362" in capsys.readouterr().out
    table = main(["plan"]) or capsys.readouterr().out
    with pytest.raises(SystemExit) as done:
        main(["--plan"])
    assert done.value.code == 0 and capsys.readouterr().out == table
    one_percent = cost(0.01)
    assert one_percent.images == 111_854
    assert 231 < one_percent.disk_gb < 280  # embeddings alone are 231 GB for 110,000 images
    assert cost(0.1).embed_gpu_hours == pytest.approx(10 * one_percent.embed_gpu_hours, rel=1e-4)


def test_scenes_are_written_as_sheet_and_as_tar(tmp_path: Path) -> None:
    assert main(["scenes", "--tar", str(tmp_path / "t.tar"), "--count", "2", "--image-size", "64"]) == 0
    assert (tmp_path / "t.tar").stat().st_size > 3000


def test_scenes_that_cannot_all_be_painted_leave_no_tar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from reference.training.scenes.scenes import Scene, SceneGenerator

    paint = SceneGenerator.__call__

    def stopping(self: SceneGenerator, number: int) -> Scene:
        if number == 1:
            raise OSError("no space left")
        return paint(self, number)

    monkeypatch.setattr(SceneGenerator, "__call__", stopping)
    assert main(["scenes", "--tar", str(tmp_path / "t.tar"), "--count", "2", "--image-size", "64"]) == 1
    assert not list(tmp_path.iterdir())
