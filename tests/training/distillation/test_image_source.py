"""Pictures from tars and folders: names are data, what cannot be read is named, and too little is no training set."""

import io
import json
import os
import shutil
import struct
import tarfile
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from reference.training.__main__ import main
from reference.training.distillation.finetune import FinetuneConfig, examples
from reference.training.distillation.image_source import (
    LARGEST_FILE,
    LARGEST_JSON,
    Record,
    Skipped,
    find_sources,
    read_source,
)
from reference.training.pixels import to_jpeg

COMMAND_NAME = "pipe:touch PWNED #.tar"


@pytest.fixture(scope="module")
def records(sa1b_folder: Path) -> list[Record]:
    return [r for n in range(2) for r in read_source(sa1b_folder / f"sa_00000{n}.tar", Skipped(), annotated=True)]


def write_pair(folder: Path, name: str, record: Record) -> None:
    (folder / f"{name}.jpg").write_bytes(to_jpeg(record.image))
    (folder / f"{name}.json").write_text(json.dumps({"annotations": record.annotations}))


def add_to_tar(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))


@pytest.mark.parametrize("direct", [False, True], ids=["in a folder", "named itself"])
@pytest.mark.parametrize("command", ["embed", "finetune", "evaluate"])
def test_a_name_that_looks_like_a_command_is_a_name(
    command: str, direct: bool, sa1b_folder: Path, teacher_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """webdataset ran it in a shell: `touch 'pipe:touch PWNED #.tar'` was enough to take over who trains here."""
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path / "data")
    shutil.copy(sa1b_folder / "sa_000000.tar", COMMAND_NAME)
    data, model = COMMAND_NAME if direct else ".", str(teacher_path)
    options = {
        "embed": ["--teacher", model, "--out", str(tmp_path / "out")],
        "finetune": [
            "--student",
            model,
            "--out",
            str(tmp_path / "out"),
            "--steps",
            "1",
            "--masks",
            "1",
            "--precision",
            "no",
        ],
        "evaluate": ["--teacher", model, "--student", model, "--prompts", "1", "--limit", "1"],
    }
    assert main([command, "--data", data, "--image-size", "64", *options[command]]) == 0
    assert [path.name for path in Path().iterdir()] == [COMMAND_NAME], "the name was run as a command"


@pytest.mark.parametrize("name", ["pipe:touch PWNED", "http://127.0.0.1:9/x.tar", "file:x.tar", "-", "pipe:x|.tar"])
def test_an_address_is_no_data(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"found no images in|there is no tar file at"):
        find_sources(Path(name))
    assert not list(tmp_path.iterdir())


def test_pictures_of_a_tar_and_of_a_folder_are_the_same(records: list[Record], tmp_path: Path) -> None:
    for record in records:
        write_pair(tmp_path, record.key, record)
    with tarfile.open(tmp_path.parent / "apart.tar", "w") as archive:  # all pictures first, then all documents
        for suffix in ("jpg", "json"):
            for record in sorted(records, key=lambda r: r.key):
                add_to_tar(archive, f"./{record.key}.{suffix}", (tmp_path / f"{record.key}.{suffix}").read_bytes())
    skipped = Skipped()
    folder = list(read_source(tmp_path, skipped, annotated=True))
    tar = list(read_source(tmp_path.parent / "apart.tar", skipped, annotated=True))
    assert [r.key for r in tar] == [r.key for r in folder] == sorted(r.key for r in records)
    assert [r.position for r in folder] == list(range(1, 12))
    for one, other in zip(tar, folder, strict=True):
        np.testing.assert_array_equal(one.image, other.image)
        assert one.annotations == other.annotations
    assert skipped.read == 22 and not skipped.names


def test_what_cannot_be_read_is_skipped_counted_and_named(records: list[Record], tmp_path: Path) -> None:
    whole = to_jpeg(records[0].image)
    header = b"IHDR" + struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    pixels = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    pixels += struct.pack(">I", 10) + b"IDAT"  # 900 megapixels
    bad = {
        "b.jpg": (b"not a picture", "cannot identify image"),
        "c.jpg": (whole[:200], "runcated"),
        "d.jpg": (b"", "cannot identify image"),
        "e.png": (pixels, "900000000 pixels|30000 x 30000"),
        "f.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n", "cannot identify image"),
    }
    for name, (data, _) in bad.items():
        (tmp_path / name).write_bytes(data)
    os.mkfifo(tmp_path / "g.jpg")
    (tmp_path / "h.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "i.jpg").symlink_to("/dev/zero")
    with (tmp_path / "j.jpg").open("wb") as file:
        file.truncate(LARGEST_FILE + 1)
    (tmp_path / "a.jpg").write_bytes(whole)
    (tmp_path / "a.png").write_bytes(whole)  # another picture of the same stem
    (tmp_path / ".a.jpg").write_bytes(b"left by a file manager")
    (tmp_path / "notes.json").write_text("beside pictures that need no annotations")
    skipped = Skipped()
    assert [r.key for r in read_source(tmp_path, skipped)] == ["a", "a.png"]
    expected = {name: reason for name, (_, reason) in bad.items()}
    expected |= {
        "g": "is a pipe",
        "h": "there is no picture",
        "i": "is a device",
        "j": "has 268 MB, expected a picture",
    }
    assert skipped.read == 11 and len(skipped.names) == 9
    for name, reason in expected.items():
        found = skipped.names[f"{tmp_path.name}/{Path(name).stem}"]
        assert any(part in found for part in reason.split("|")), (name, found)
    assert "9 skipped: " in str(skipped) and "\n" not in str(skipped)


def test_pictures_and_annotations_that_lack_each_other_are_named(records: list[Record], tmp_path: Path) -> None:
    write_pair(tmp_path, "a", records[0])
    for name in "bcde":
        (tmp_path / f"{name}.jpg").write_bytes(to_jpeg(records[0].image))
    (tmp_path / "c.json").write_text("{")
    (tmp_path / "d.json").write_text('{"annotations": 3}')
    with (tmp_path / "e.json").open("wb") as file:
        file.truncate(LARGEST_JSON + 1)
    (tmp_path / "f.json").write_text("{}")
    skipped = Skipped()
    assert [r.key for r in read_source(tmp_path, skipped, annotated=True)] == ["a"]
    named = {name.rpartition("/")[2]: reason for name, reason in skipped.names.items()}
    assert list(named) == ["b", "c", "d", "e", "f.json"] and skipped.read == 6
    for name, reason in {
        "b": "no JSON",
        "c": "cannot be read",
        "d": "no list",
        "e": "17 MB",
        "f.json": "no pict",
    }.items():
        assert reason in named[name]
    without = Skipped()
    assert [r.key for r in read_source(tmp_path, without)] == list("abcde")
    assert not without.names


def test_a_giant_member_and_a_name_that_comes_twice_cost_one_picture_each(
    records: list[Record], tmp_path: Path
) -> None:
    whole, path = to_jpeg(records[0].image), tmp_path / "t.tar"
    with tarfile.open(path, "w") as archive:
        add_to_tar(archive, "a.jpg", whole)
        add_to_tar(archive, "a.jpg", whole)
        add_to_tar(archive, "b\x1b[2J\n.jpg", b"no picture")
        archive.addfile(entry := tarfile.TarInfo("c.json"), io.BytesIO(b""))
        giant = tarfile.TarInfo("giant.jpg")
        giant.size = 6 * 2**30
        archive.addfile(giant, None)
        archive.fileobj.seek(giant.size, os.SEEK_CUR)  # type: ignore[union-attr]  # 6 GB that take no disk
        archive.offset += giant.size
        add_to_tar(archive, "z.jpg", whole)
    assert path.stat().st_size > 6 * 2**30 and entry.size == 0
    skipped = Skipped()
    assert [r.key for r in read_source(path, skipped)] == ["a", "z"]
    assert not skipped.cut and skipped.read == 6
    assert {name.partition("/")[2]: reason for name, reason in skipped.names.items()} == {
        "b\\x1b[2J\\n": skipped.names["t.tar/b\\x1b[2J\\n"],
        "giant": f"6442450944 bytes, expected a picture of at most {LARGEST_FILE}",
        "a.jpg": "its name comes twice",
        "c.json": "no picture",
    }


def test_a_tar_that_is_none_is_refused_before_work(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.tar")
    with pytest.raises(ValueError, match=r"a\.tar is a pipe, expected a tar file in a regular file"):
        find_sources(tmp_path)
    (tmp_path / "a.tar").unlink()
    (tmp_path / "a.tar").mkdir()
    with pytest.raises(ValueError, match=r"a\.tar is a folder"):
        find_sources(tmp_path)


def test_a_truncated_tar_keeps_what_came_before_and_stops_at_the_check(sa1b_folder: Path, tmp_path: Path) -> None:
    whole = (sa1b_folder / "sa_000000.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[: len(whole) // 2])
    skipped = Skipped()
    found = list(read_source(tmp_path / "cut.tar", skipped))
    assert 1 <= len(found) < 6
    with pytest.raises(ValueError, match=r"cut\.tar is no whole tar \(cut: .*get the file again, or move it away"):
        skipped.check()


def test_a_few_damaged_pictures_are_skipped_and_many_stop() -> None:
    skipped = Skipped(most=0.1, read=99)
    for n in range(50):
        skipped.add(Path("s"), str(n), "damaged")
    skipped.check()  # too few to tell
    with pytest.raises(ValueError, match=r"of 99 pictures 50 skipped: s/0 \(damaged\); .* --most-skipped"):
        skipped.check(all_read=True)
    skipped.read = 499
    with pytest.raises(ValueError, match="of 499 pictures 50 skipped"):
        skipped.check()
    skipped.read = 500
    skipped.check(all_read=True)
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"--most-skipped .* expected a share from 0 to 1"):
            Skipped(most=share)


def test_masks_that_are_none_are_named_and_others_take_their_place(records: list[Record]) -> None:
    good = records[0].annotations[:3]
    empty = {"segmentation": {"size": [64, 64], "counts": [64 * 64]}}
    giant = {"segmentation": {"size": [100_000, 100_000], "counts": "0"}}
    record = replace(records[0], annotations=[empty, good[0], None, good[1], giant, good[2]])
    skipped = Skipped()
    masks = list(record.masks(6, np.random.default_rng(0), skipped))
    assert len(masks) == 3 and all(mask.shape == (64, 64) and mask.any() for mask in masks)
    (reason,) = skipped.names.values()
    assert reason.startswith("annotation ") and reason.endswith(", and 2 more")
    assert len(list(record.masks(2, np.random.default_rng(1), skipped))) == 2
    assert len(skipped.names) == 1, "a picture counts once"


def test_finetuning_names_pictures_without_usable_masks_once_and_stops_if_they_are_many(
    records: list[Record], teacher_path: Path, tmp_path: Path
) -> None:
    for n, record in enumerate(records):
        write_pair(tmp_path, f"{n:02d}", record)
    speck = [[4096 - 1, 1]]
    (tmp_path / "03.json").write_text(
        json.dumps({"annotations": [{"segmentation": {"size": [64, 64], "counts": c}} for c in speck]})
    )
    config = FinetuneConfig(str(teacher_path), tmp_path, tmp_path, image_size=64, masks=2)
    skipped = Skipped(config.most_skipped)
    stream = examples(config, 0, 1, 0, skipped)
    for _ in range(25):  # two and a half passes
        assert next(stream).masks.shape[1:] == (16, 16)
    assert skipped.names == {f"{tmp_path.name}/03": "no mask of a size to learn from"} and skipped.read == 11
    (tmp_path / "05.json").unlink()
    stream = examples(config, 0, 1, 0, Skipped(config.most_skipped))
    with pytest.raises(ValueError, match="of 11 pictures 2 skipped"):
        for _ in range(10):
            next(stream)
