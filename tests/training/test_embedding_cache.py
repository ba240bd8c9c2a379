"""Embeddings on disk, and what can be wrong with them."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from reference.training.embed import EmbedConfig, embed, model_frame
from reference.training.embedding_cache import EmbeddingCache, finished_shards
from reference.training.image_source import Skipped, find_sources, read_source
from reference.training.teacher import load_teacher


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
    for path in cached.out.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    victim = sorted(tmp_path.glob("*.safetensors"))[1]
    whole = victim.read_bytes()
    victim.write_bytes(whole[:-100])
    with pytest.raises(ValueError, match=rf"{victim.name} has {len(whole) - 100} bytes, expected {len(whole)}; delete"):
        EmbeddingCache(tmp_path)
    victim.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    EmbeddingCache(tmp_path)
    with pytest.raises(ValueError, match="does not have its sha256"):
        EmbeddingCache(tmp_path, verify=True)


def test_an_empty_folder_says_how_to_fill_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no embedding shards in .* python -m reference.training embed"):
        EmbeddingCache(tmp_path)
    with pytest.raises(ValueError, match="found no images in"):
        find_sources(tmp_path)


def test_a_corrupt_picture_is_skipped_counted_and_named(sa1b_folder: Path, tmp_path: Path) -> None:
    record = next(read_source(sa1b_folder / "sa_000000.tar", Skipped()))
    from reference.training.embedding_cache import to_jpeg

    (tmp_path / "a.jpg").write_bytes(to_jpeg(record.image))
    (tmp_path / "b.jpg").write_bytes(b"not a picture")
    (tmp_path / "c.jpg").write_bytes(to_jpeg(record.image)[:200])
    (tmp_path / "d.jpg").write_bytes(to_jpeg(record.image))
    (tmp_path / "d.json").write_text(json.dumps({"annotations": record.annotations}))
    skipped = Skipped()
    found = list(read_source(find_sources(tmp_path)[0], skipped))
    assert [r.key for r in found] == ["a", "d"]
    assert len(skipped.names) == 2 and "/b (" in str(skipped) and "/c (" in str(skipped)
    masks = found[1].masks(3, np.random.default_rng(0))
    assert masks and all(mask.shape == record.image.shape[:2] and mask.any() for mask in masks)


def test_a_truncated_tar_keeps_what_came_before(sa1b_folder: Path, tmp_path: Path) -> None:
    whole = (sa1b_folder / "sa_000000.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[: len(whole) // 2])
    skipped = Skipped()
    found = list(read_source(tmp_path / "cut.tar", skipped))
    assert 1 <= len(found) < 6
    assert skipped.names and "cut.tar" in skipped.names[0]
