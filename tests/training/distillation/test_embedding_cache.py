"""Embeddings on disk, and what can be wrong with them."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from reference.training.__main__ import main
from reference.training.distillation import embedding_cache
from reference.training.distillation.embed import EmbedConfig, embed, model_frame
from reference.training.distillation.embedding_cache import (
    EmbeddingCache,
    ShardFacts,
    finished_shards,
    read_facts,
    sha256_of,
)
from reference.training.distillation.image_source import find_sources
from reference.training.distillation.teacher import Teacher, load_teacher
from reference.training.pixels import to_jpeg


def copy_cache(source: Path, target: Path) -> None:
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())


def rewrite(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Write a shard that agrees with its checksum."""
    save_file(tensors, path)
    sidecar = path.with_suffix(".json")
    facts = json.loads(sidecar.read_text()) | {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
    sidecar.write_text(json.dumps(facts))


@pytest.fixture(scope="module")
def cached(sa1b_folder: Path, teacher_path: Path, tmp_path_factory: pytest.TempPathFactory) -> EmbedConfig:
    config = EmbedConfig(
        str(teacher_path), sa1b_folder, tmp_path_factory.mktemp("embeddings"), image_size=64, shard_size=4
    )
    assert not embed(config).names
    return config


def test_every_picture_has_the_embedding_of_what_is_stored(cached: EmbedConfig, teacher_path: Path) -> None:
    cache, teacher = EmbeddingCache(cached.out, verify=True), load_teacher(str(teacher_path), 64)
    assert len(cache) == 11
    assert [len(s.keys) for s in cache.shards] == [4, 2, 4, 1]
    for index in (0, 3, 5, 10):
        picture, embedding = cache[index]
        direct = teacher.embed(model_frame([picture], 64))[0]
        # float16 keeps 11 bits: 5e-4 of the value, and embeddings stay below 8.
        torch.testing.assert_close(embedding, direct, atol=4e-3, rtol=1e-3)


def test_embedding_again_does_nothing_and_a_lost_shard_is_made_again(cached: EmbedConfig) -> None:
    before = {s.name: s.sha256 for s in finished_shards(cached.out)}
    last = sorted(before)[-1]
    stamp = (cached.out / f"{sorted(before)[0]}.safetensors").stat().st_mtime_ns
    for suffix in (".json", ".safetensors"):
        (cached.out / f"{last}{suffix}").unlink()
    embed(cached)
    assert {s.name: s.sha256 for s in finished_shards(cached.out)} == before
    assert (cached.out / f"{sorted(before)[0]}.safetensors").stat().st_mtime_ns == stamp


def test_a_full_disk_loses_no_finished_shard(
    cached: EmbedConfig, tmp_path: Path, full_disk: Callable[[int], AbstractContextManager[None]]
) -> None:
    config = replace(cached, out=tmp_path)
    embed(replace(config, limit=4))
    before = {s.name: s.sha256 for s in finished_shards(tmp_path)}
    with full_disk(8_000), pytest.raises(OSError, match=r"could not write shard .*; free some disk and run the same"):
        embed(config)
    assert {s.name: s.sha256 for s in finished_shards(tmp_path)} == before
    assert not list(tmp_path.glob("*.part"))
    embed(config)
    assert len(EmbeddingCache(tmp_path, verify=True)) == 11


def test_another_teacher_or_size_is_refused(cached: EmbedConfig) -> None:
    with pytest.raises(ValueError, match=r"was made by teacher .* expected 000000000000"):
        EmbeddingCache(cached.out, teacher="0" * 64)
    with pytest.raises(ValueError, match="has image size 64, expected 1024"):
        EmbeddingCache(cached.out, image_size=1024)
    with pytest.raises(ValueError, match="give another --out"):
        embed(replace(cached, image_size=96))


def test_a_truncated_or_altered_shard_is_named(cached: EmbedConfig, tmp_path: Path) -> None:
    copy_cache(cached.out, tmp_path)
    victim = sorted(tmp_path.glob("*.safetensors"))[1]
    whole = victim.read_bytes()
    victim.write_bytes(whole[:-100])
    with pytest.raises(ValueError, match=rf"{victim.name} has {len(whole) - 100} bytes, expected {len(whole)}; delete"):
        EmbeddingCache(tmp_path)
    victim.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    EmbeddingCache(tmp_path)
    with pytest.raises(ValueError, match="does not have its sha256"):
        EmbeddingCache(tmp_path, verify=True)


def test_a_lost_shard_in_the_middle_is_made_again_too(cached: EmbedConfig, tmp_path: Path) -> None:
    """The advice `delete NAME.* and run embed again` has to bring the shard back, whichever it is."""
    config = replace(cached, out=tmp_path)
    copy_cache(cached.out, tmp_path)
    before = {s.name: s.sha256 for s in finished_shards(tmp_path)}
    for suffix in (".json", ".safetensors"):
        (tmp_path / f"{min(before)}{suffix}").unlink()
    embed(config)
    assert {s.name: s.sha256 for s in finished_shards(tmp_path)} == before
    (tmp_path / f"{min(before)}.json").unlink()
    embed(config)  # a shard without its facts does not count
    assert {s.name: s.sha256 for s in finished_shards(tmp_path)} == before


def test_a_checked_shard_is_checked_again_only_when_it_changes(
    cached: EmbedConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_cache(cached.out, tmp_path)
    read: list[str] = []
    monkeypatch.setattr(embedding_cache, "sha256_of", lambda path: read.append(path.name) or sha256_of(path))
    cache = EmbeddingCache(tmp_path)
    assert not read
    for _ in range(3):
        cache.require_whole(1)
    assert read == [f"{cache.shards[1].name}.safetensors"]
    path = tmp_path / read[0]
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(ValueError, match="does not have its sha256"):
        cache.require_whole(1)


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("embeddings", lambda t: t[:, :128].contiguous(), r"F16 \[4, 128, 4, 4\], expected F16 \[4, 256, 4, 4\]"),
        ("embeddings", lambda t: t.float(), "F32"),
        (
            "embeddings",
            lambda t: t.index_fill(0, torch.tensor([2]), float("nan")),
            "embedding of picture 2 is not finite",
        ),
        (
            "embeddings",
            lambda t: t.index_fill(3, torch.tensor([0]), float("inf")),
            "embedding of picture 0 is not finite",
        ),
        ("ends", lambda t: t.flip(0).contiguous(), "picture 1 ends at byte"),
        ("ends", lambda t: t + 10**12, "picture 0 ends at byte 10000"),
        ("ends", lambda t: t[:3].contiguous(), r"I64 \[3\], expected I64 \[4\]"),
        ("jpegs", lambda t: t.new_zeros(len(t)), "cannot identify image"),
        ("jpegs", lambda t: t.view(1, -1), r"U8 \[1, \d+\]"),
        ("more", lambda _: torch.zeros(1), "tensors embeddings, ends, jpegs, more"),
    ],
)
def test_a_shard_that_does_not_hold_what_its_facts_say_is_named(
    cached: EmbedConfig, tmp_path: Path, name: str, change: Callable[[Any], torch.Tensor], reason: str
) -> None:
    """A checksum proves that a shard is what was written, not that what was written makes sense."""
    copy_cache(cached.out, tmp_path)
    path = min(tmp_path.glob("*.safetensors"))
    tensors = load_file(path)
    rewrite(path, {**tensors, name: change(tensors.get(name))})
    with pytest.raises(ValueError, match=f"{path.name} does not hold what its facts say .*{reason}.*; delete .* embed"):
        EmbeddingCache(tmp_path, verify=True)


def test_a_picture_of_another_size_than_its_facts_say_is_not_decoded(cached: EmbedConfig, tmp_path: Path) -> None:
    copy_cache(cached.out, tmp_path)
    path = min(tmp_path.glob("*.safetensors"))
    tensors = load_file(path)
    giant = to_jpeg(np.zeros((8, 8, 3), np.uint8)).replace(b"\x08\x00\x08\x00\x08", b"\x08\x75\x30\x75\x30")
    first = int(tensors["ends"][0])
    tensors["jpegs"] = torch.cat([torch.tensor(list(giant), dtype=torch.uint8), tensors["jpegs"][first:]])
    tensors["ends"] += len(giant) - first
    rewrite(path, tensors)
    with pytest.raises(ValueError, match=r"900000000 pixels|picture 0 has 30000 x 30000 pixels"):
        EmbeddingCache(tmp_path, verify=True)


def test_facts_that_are_none_name_the_field(cached: EmbedConfig, tmp_path: Path) -> None:
    copy_cache(cached.out, tmp_path)
    sidecar = min(tmp_path.glob("*.json"))
    right = json.loads(sidecar.read_text())
    wrong: dict[str, Any] = {
        "name": "../../elsewhere",
        "teacher": None,
        "teacher_name": "two\nlines",
        "image_size": float("inf"),
        "keys": ["a", "a", "b", "c"],
        "sizes": [[65, 64]] * 4,
        "records_read": 0,
        "bytes": True,
        "sha256": "0" * 63,
    }
    assert wrong.keys() == right.keys()
    for field, value in wrong.items():
        sidecar.write_text(json.dumps({**right, field: value}))
        with pytest.raises(ValueError, match=rf"{sidecar.name} does not describe a shard \({field} is .*delete it and"):
            EmbeddingCache(tmp_path)
    for text in ("", "[" * 100_000, "[]", "{}", json.dumps({**right, "more": 1}), "\0"):
        sidecar.write_text(text)
        with pytest.raises(ValueError, match=rf"{sidecar.name} does not describe a shard"):
            EmbeddingCache(tmp_path)


@settings(max_examples=300, deadline=None)  # half a second together
@given(
    st.dictionaries(
        st.sampled_from([field.name for field in fields(ShardFacts)]),
        st.recursive(
            st.none() | st.booleans() | st.integers(-2, 2**60) | st.floats() | st.text(max_size=70),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
            max_leaves=6,
        ),
        max_size=3,
    )
)
def test_whatever_facts_say_they_are_read_as_written_or_refused_in_one_line(changes: dict[str, Any]) -> None:
    right = ShardFacts("a", "0" * 64, "teacher", 64, ["x", "y"], [(64, 48), (1, 64)], 2, 5, "f" * 64)
    document = json.dumps({**asdict(right), **changes})
    try:
        found = read_facts(document.encode(), "a")
    except ValueError as error:
        assert str(error) and "\n" not in str(error)
    else:
        assert json.loads(json.dumps(asdict(found))) == json.loads(document)
        assert all(1 <= side <= found.image_size for size in found.sizes for side in size)


def test_an_embedding_that_is_not_finite_in_float16_is_skipped_and_named(
    cached: EmbedConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    right = Teacher.embed

    def overflowing(self: Teacher, images: torch.Tensor) -> torch.Tensor:
        found = right(self, images)
        calls.append(len(images))
        return (
            found * torch.tensor([1.0, 1e6] + [1.0] * 2)[: len(images), None, None, None] if len(calls) == 1 else found
        )

    monkeypatch.setattr(Teacher, "embed", overflowing)
    skipped = embed(replace(cached, out=tmp_path, shard_size=6))
    assert list(skipped.names.items()) == [("sa_000000.tar/sa_1", "its embedding is not finite in float16")]
    cache = EmbeddingCache(tmp_path, verify=True)
    assert len(cache) == 10 and "sa_1" not in cache.shards[0].keys
    assert cache.shards[0].records_read == 6


def test_a_cut_tar_fails_the_command_after_everything_else_is_embedded_and_is_mended_later(
    cached: EmbedConfig, sa1b_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    for path in sa1b_folder.iterdir():
        (tmp_path / "data" / path.name).write_bytes(path.read_bytes())
    first = tmp_path / "data/sa_000000.tar"
    whole = first.read_bytes()
    first.write_bytes(whole[: len(whole) // 2])
    config = replace(cached, data=tmp_path / "data", out=tmp_path / "out")
    command = ["embed", "--teacher", config.teacher, "--image-size", "64", "--shard-size", "4"]
    command += ["--data", str(config.data), "--out", str(config.out)]
    assert main(command) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "sa_000000.tar is no whole tar (cut: " in error
    assert 5 < len(EmbeddingCache(config.out)) < 11
    first.write_bytes(whole)
    assert not embed(config).names
    assert sorted(k for s in finished_shards(config.out) for k in s.keys) == sorted(f"sa_{n}" for n in range(11))


def test_an_empty_folder_says_how_to_fill_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no embedding shards in .* python -m reference.training embed"):
        EmbeddingCache(tmp_path)
    with pytest.raises(ValueError, match="found no images in"):
        find_sources(tmp_path)
