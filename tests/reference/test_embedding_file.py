"""An embedding file answers as the photo did, or is refused with the reason."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from reference import EmbeddingFileError, Predictor, PromptError
from reference.checkpoint import stand_in_mobile_sam

CLICK: dict[str, Any] = {"point_coords": [[40, 20]], "point_labels": [1]}


@pytest.fixture
def saved(small_predictor: Predictor, tmp_path: Path) -> Path:
    small_predictor.save_embedding(tmp_path / "photo.embedding")
    return tmp_path / "photo.embedding"


def rewrite(path: Path, **changes: str | np.ndarray | None) -> None:
    """Change or, with None, leave out metadata and the tensor of a file."""
    with safe_open(path, "numpy") as file:
        metadata = dict(file.metadata())
        tensors = {"image_embeddings": file.get_tensor("image_embeddings")}
    for name, value in changes.items():
        target = tensors if name == "image_embeddings" else metadata
        if value is None:
            del target[name]
        else:
            target[name] = value
    save_file(tensors, path, metadata)


def test_a_loaded_embedding_answers_bit_for_bit(small_predictor: Predictor, saved: Path) -> None:
    other = Predictor(small_predictor.sam)
    other.load_embedding(saved)
    assert other.original_size == (61, 97)
    for got, expected in zip(other.predict(**CLICK), small_predictor.predict(**CLICK), strict=True):
        np.testing.assert_array_equal(got, expected)
    assert [path.name for path in saved.parent.iterdir()] == ["photo.embedding"]


def test_nothing_can_be_saved_before_a_photo_is_set(small_predictor: Predictor, tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="no image is set"):
        Predictor(small_predictor.sam).save_embedding(tmp_path / "none")
    assert list(tmp_path.iterdir()) == []


def test_an_embedding_of_other_weights_is_refused(small_predictor: Predictor, saved: Path) -> None:
    other = Predictor(stand_in_mobile_sam(224, seed=1))
    with pytest.raises(EmbeddingFileError, match=r"made with weights \w{12}, expected \w{12} here; encode the photo"):
        other.load_embedding(saved)


def test_an_embedding_of_another_image_size_is_refused(small_predictor: Predictor, saved: Path) -> None:
    other = Predictor(stand_in_mobile_sam(96))
    with pytest.raises(EmbeddingFileError, match="made with image_size 224, expected 96 here"):
        other.load_embedding(saved)


def test_another_version_is_refused(small_predictor: Predictor, saved: Path) -> None:
    rewrite(saved, version="2")
    with pytest.raises(EmbeddingFileError, match="made with version 2, expected 1 here"):
        small_predictor.load_embedding(saved)


def test_another_safetensors_file_is_refused(small_predictor: Predictor, saved: Path) -> None:
    save_file({"image_embeddings": np.zeros(3, np.float32)}, saved)
    with pytest.raises(EmbeddingFileError, match="is no embedding file; make one with save_embedding"):
        small_predictor.load_embedding(saved)


@pytest.mark.parametrize("name", ["version", "image_size", "weights", "original_height", "original_width"])
def test_missing_metadata_is_refused(small_predictor: Predictor, saved: Path, name: str) -> None:
    rewrite(saved, **{name: None})
    with pytest.raises(EmbeddingFileError, match=name):
        small_predictor.load_embedding(saved)


@pytest.mark.parametrize(
    ("embeddings", "reason"),
    [
        (np.zeros((1, 256, 14, 13), np.float32), r"F32 \[1, 256, 14, 13\], expected F32 \[1, 256, 14, 14\]"),
        (np.zeros((1, 256, 14, 14), np.float64), "holds F64"),
        (np.full((1, 256, 14, 14), np.nan, np.float32), "or holds NaN, expected .* finite numbers"),
    ],
    ids=["wrong shape", "wrong kind", "NaN"],
)
def test_a_wrong_tensor_is_refused(
    small_predictor: Predictor, saved: Path, embeddings: np.ndarray, reason: str
) -> None:
    rewrite(saved, image_embeddings=embeddings)
    with pytest.raises(EmbeddingFileError, match=reason):
        small_predictor.load_embedding(saved)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("original_height", "tall"),
        ("original_width", "0"),
        ("original_width", "-5"),
        ("original_width", "1000000000"),  # a mask of that size would take all memory
        ("original_height", "9" * 5000),
        ("original_height", "inf"),
    ],
)
def test_a_size_that_is_none_is_refused(small_predictor: Predictor, saved: Path, name: str, value: str) -> None:
    rewrite(saved, **{name: value})
    with pytest.raises(EmbeddingFileError) as caught:
        small_predictor.load_embedding(saved)
    assert "\n" not in str(caught.value)


def test_a_pipe_a_device_and_a_giant_are_refused_before_they_are_opened(
    small_predictor: Predictor, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "giant").open("wb") as file:
        file.truncate(6 * 2**30)
    for path, reason in (
        (tmp_path / "pipe", "is a pipe"),
        (Path("/dev/zero"), "is a device"),
        (tmp_path, "is a folder"),
        (tmp_path / "giant", "has 6,442 MB, expected a file of an embedding of at most"),
    ):
        with pytest.raises(EmbeddingFileError, match=reason):
            small_predictor.load_embedding(path)


@pytest.mark.parametrize("part", [0.0, 0.0005, 0.5, 0.999])
def test_a_truncated_file_is_refused_and_the_photo_stays(small_predictor: Predictor, saved: Path, part: float) -> None:
    data = saved.read_bytes()
    saved.write_bytes(data[: int(len(data) * part)])
    before = small_predictor.predict(**CLICK)[2]
    with pytest.raises(EmbeddingFileError, match="cannot be read as an embedding file") as caught:
        small_predictor.load_embedding(saved)
    assert "\n" not in str(caught.value)
    np.testing.assert_array_equal(small_predictor.predict(**CLICK)[2], before)


def test_a_missing_file_is_refused(small_predictor: Predictor, tmp_path: Path) -> None:
    with pytest.raises(EmbeddingFileError, match="nowhere"):
        small_predictor.load_embedding(tmp_path / "nowhere")
