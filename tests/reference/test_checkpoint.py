"""Weights in and out: the official layout, strict errors, nothing run."""

import hashlib
import json
import os
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from reference import CheckpointError, MobileSam, load_mobile_sam, save_checkpoint
from reference import checkpoint as checkpoint_module
from reference.checkpoint import STAND_IN, UNUSED_SHAPES, official_state_dict, stand_in_mobile_sam, weights_sha256
from reference.checkpoint_file import read_state, write_state
from tests.reference.golden import OFFICIAL_SHAPES

State = dict[str, Tensor]
A_WEIGHT = "mask_decoder.transformer.layers.1.mlp.lin2.weight"


@pytest.fixture
def state(small_sam: MobileSam) -> State:
    """All official entries of ``small_sam``, free to be changed."""
    return {name: tensor.clone() for name, tensor in official_state_dict(small_sam).items()}


def same_weights(a: MobileSam, b: MobileSam) -> bool:
    theirs = b.state_dict()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in a.state_dict().items())


def test_layout_is_the_official_one(state: State) -> None:
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == OFFICIAL_SHAPES
    assert len(state) == 439
    counters = {name for name in state if name.endswith("num_batches_tracked")}
    assert {name for name, tensor in state.items() if tensor.dtype != torch.float32} == counters


def test_parameters_number_as_published(small_sam: MobileSam) -> None:
    counts = [
        sum(tensor.numel() for tensor in part.parameters())
        for part in (small_sam.image_encoder, small_sam.prompt_encoder, small_sam.mask_decoder)
    ]
    assert [round(count / 1e6, 3) for count in counts] == [5.744, 0.006, 4.058]


@pytest.mark.parametrize("name", ["weights.pt", "weights.pth", "weights.safetensors"])
def test_what_is_saved_loads_back_bit_for_bit(small_sam: MobileSam, tmp_path: Path, name: str) -> None:
    save_checkpoint(small_sam, tmp_path / name)
    loaded = load_mobile_sam(tmp_path / name, image_size=224)
    assert same_weights(small_sam, loaded)
    assert weights_sha256(loaded) == weights_sha256(small_sam)
    assert loaded.weights_source == name
    assert not any(module.training for module in loaded.modules())
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_the_official_code_could_load_a_saved_file_strictly(small_sam: MobileSam, tmp_path: Path) -> None:
    save_checkpoint(small_sam, tmp_path / "weights.pt")
    raw = torch.load(tmp_path / "weights.pt", weights_only=True)
    assert {name: tuple(tensor.shape) for name, tensor in raw.items()} == OFFICIAL_SHAPES


@pytest.mark.parametrize("name", ["half.pt", "half.safetensors"])
def test_float16_files_hold_the_rounded_weights(small_sam: MobileSam, tmp_path: Path, name: str) -> None:
    save_checkpoint(small_sam, tmp_path / name, torch.float16)
    assert (tmp_path / name).stat().st_size < 22e6
    loaded = load_mobile_sam(tmp_path / name, image_size=224)
    theirs = loaded.state_dict()
    for entry, tensor in small_sam.state_dict().items():
        assert theirs[entry].dtype == tensor.dtype
        assert torch.equal(theirs[entry], tensor.half().float() if tensor.is_floating_point() else tensor), entry
    assert weights_sha256(loaded) != weights_sha256(small_sam)


def test_weights_beyond_float16_are_not_saved_as_float16(state: State, tmp_path: Path) -> None:
    state[A_WEIGHT][0, 0] = 1e6
    with pytest.raises(CheckpointError, match=f"1 entries .*{re.escape(A_WEIGHT)}.*float32"):
        save_checkpoint(load_mobile_sam(state, 224), tmp_path / "half.pt", torch.float16)
    assert list(tmp_path.iterdir()) == []


def test_the_unused_classifier_is_dropped_and_written_neutral(state: State, tmp_path: Path) -> None:
    for name, shape in UNUSED_SHAPES.items():
        state[name] = torch.full(shape, float("nan"))  # not even looked at
    sam = load_mobile_sam(state, 224)
    assert not [name for name in sam.state_dict() if "head" in name and "image_encoder" in name]
    save_checkpoint(sam, tmp_path / "weights.pt")
    saved = torch.load(tmp_path / "weights.pt", weights_only=True)
    for name, shape in UNUSED_SHAPES.items():
        assert torch.equal(saved[name], torch.full(shape, float(name.endswith("norm_head.weight")))), name
    save_checkpoint(sam, tmp_path / "weights.safetensors")
    with safe_open(tmp_path / "weights.safetensors", "pt") as file:
        assert len(file.keys()) == 435


def test_a_state_dict_without_the_classifier_loads(state: State, small_sam: MobileSam) -> None:
    for name in UNUSED_SHAPES:
        del state[name]
    assert same_weights(load_mobile_sam(state, 224), small_sam)


def test_a_state_dict_wrapped_by_a_training_script_loads(state: State, small_sam: MobileSam, tmp_path: Path) -> None:
    torch.save({"model": state, "epoch": 3}, tmp_path / "run.pt")
    assert same_weights(load_mobile_sam(tmp_path / "run.pt", 224), small_sam)


def test_misfits_are_named_all_at_once(state: State) -> None:
    del state["mask_decoder.iou_token.weight"]
    state["image_encoder.blocks.0.attn.qkv.weight"] = torch.zeros(1)
    state["mask_decoder.mask_tokens.weight"] = torch.zeros(3, 256)
    with pytest.raises(CheckpointError) as caught:
        load_mobile_sam(state)
    message = str(caught.value)
    assert "1 missing (first: mask_decoder.iou_token.weight)" in message
    assert "1 unexpected (first: image_encoder.blocks.0.attn.qkv.weight)" in message
    assert "1 of another shape (first: mask_decoder.mask_tokens.weight (3, 256) instead of (4, 256))" in message
    assert "\n" not in message


def test_a_misfit_changes_no_weight(state: State) -> None:
    sam = stand_in_mobile_sam(224, seed=1)
    before = weights_sha256(sam)
    del state["mask_decoder.iou_token.weight"]
    with pytest.raises(CheckpointError):
        checkpoint_module.load_state(sam, state)
    assert weights_sha256(sam) == before


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(state: State, value: float) -> None:
    state[A_WEIGHT][3, 4] = value
    with pytest.raises(CheckpointError, match=f"NaN or infinite weights in 1 entries .*{re.escape(A_WEIGHT)}"):
        load_mobile_sam(state)


def test_entries_that_are_no_tensors_are_refused(state: State) -> None:
    foreign: dict[str, Any] = {**state, A_WEIGHT: np.zeros((256, 2048), np.float32)}
    with pytest.raises(CheckpointError, match=f"ndarray under '{re.escape(A_WEIGHT)}'"):
        load_mobile_sam(foreign)


@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
@pytest.mark.parametrize("part", [0.0, 0.0001, 0.5, 0.999])
def test_a_truncated_file_is_refused(small_sam: MobileSam, tmp_path: Path, ending: str, part: float) -> None:
    whole, cut = tmp_path / f"whole{ending}", tmp_path / f"cut{ending}"
    save_checkpoint(small_sam, whole)
    data = whole.read_bytes()
    cut.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(CheckpointError, match=r"cut\.\w+ is truncated or no .*; fetch it again") as caught:
        load_mobile_sam(cut)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n" + bytes(99), b"PK\x03\x04"])
@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes, ending: str) -> None:
    path = tmp_path / f"other{ending}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="truncated or no") as caught:
        load_mobile_sam(path)
    assert "weights_only" not in str(caught.value)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_bytes_give_a_checkpoint_error_or_a_dict(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    path = tmp_path_factory.mktemp("damaged") / "damaged.pt"
    torch.save({"weight": torch.arange(8.0)}, path)
    content = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=12)):
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        state, _ = read_state(path)
    except CheckpointError as error:
        assert "damaged.pt" in str(error)
    else:
        assert isinstance(state, dict)


class Bomb:
    """Touches a file when unpickled."""

    built = 0

    def __init__(self, mark: Path) -> None:
        Bomb.built += 1
        self.mark = mark

    def __reduce__(self) -> Any:
        return (Path.touch, (self.mark,))


@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path: Path, legacy: bool) -> None:
    path, mark = tmp_path / "bomb.pt", tmp_path / "mark"
    if legacy:
        path.write_bytes(pickle.dumps({"weight": Bomb(mark)}, protocol=2))
    else:
        torch.save({"weight": Bomb(mark)}, path)
    with pytest.raises(CheckpointError, match="holds code besides weights and was not opened") as caught:
        load_mobile_sam(path)
    assert not mark.exists()
    assert "\n" not in str(caught.value)


def run(mark: Path) -> None:
    """A function of a module that is not the standard library's."""
    mark.touch()


class Caller:
    """Calls such a function when unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("function", [run, os.system, eval, torch.hub.load, np.load])
def test_code_beside_the_weights_is_refused_and_not_run(tmp_path: Path, state: State, function: Any) -> None:
    path, mark = tmp_path / "bomb.pt", tmp_path / "mark"
    argument = mark if function is run else f"touch {mark}"
    torch.save({"model": state, "hyper_parameters": {"x": Caller(function, argument)}}, path)
    with pytest.raises(CheckpointError, match="holds code besides weights and was not opened"):
        load_mobile_sam(path)
    assert not mark.exists()


def test_a_class_beside_the_weights_is_not_built(tmp_path: Path, state: State, small_sam: MobileSam) -> None:
    torch.save({"model": state, "config": Caller(Bomb, tmp_path / "mark")}, tmp_path / "run.pt")
    Bomb.built = 0
    assert same_weights(load_mobile_sam(tmp_path / "run.pt", 224), small_sam)
    assert Bomb.built == 0


@pytest.mark.parametrize("content", [[1, 2], torch.zeros(3), {1: torch.zeros(1)}])
def test_another_object_than_a_state_dict_is_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="expected a dict from names to tensors"):
        load_mobile_sam(tmp_path / "other.pt")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r'no checkpoint at .*nowhere\.pt; give a path .* "official" or "demo"'):
        load_mobile_sam(tmp_path / "nowhere.pt")


@pytest.mark.parametrize("backbone", ["no_such_backbone", "hf-hub:someone/something", "local-dir:/tmp"])
def test_a_file_cannot_make_timm_fetch_a_backbone(tmp_path: Path, backbone: str) -> None:
    save_file({"weight": torch.zeros(1)}, tmp_path / "student.safetensors", {"backbone": backbone})
    with pytest.raises(CheckpointError, match=f"student.safetensors: the backbone '{backbone}' is not in timm"):
        load_mobile_sam(tmp_path / "student.safetensors")


def test_an_interrupted_save_leaves_the_old_file(
    small_sam: MobileSam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(b"old")

    def full_disk(state: State, file: Path) -> None:
        file.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(small_sam, path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_demo_without_bundled_weights_is_the_announced_stand_in(
    small_sam: MobileSam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_module, "DEMO_WEIGHTS", tmp_path / "none.safetensors")
    sam = load_mobile_sam("demo", 224)
    assert same_weights(sam, small_sam)
    assert sam.weights_source == STAND_IN


def test_demo_takes_the_bundled_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundled = stand_in_mobile_sam(224, seed=7)
    save_checkpoint(bundled, tmp_path / "demo.safetensors", torch.float16)
    path = tmp_path / "demo.safetensors"
    monkeypatch.setattr(checkpoint_module, "DEMO_WEIGHTS", path)
    monkeypatch.setattr(checkpoint_module, "DEMO_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    sam = load_mobile_sam("demo", 224)
    assert sam.weights_source == "demo"
    assert weights_sha256(sam) == weights_sha256(load_mobile_sam(tmp_path / "demo.safetensors", 224))


def test_the_same_weights_are_the_same_safetensors_file(tmp_path: Path) -> None:
    """The library writes metadata in an order of its own each time; eight keys are in order once in 40,320 times."""
    metadata = {name: f"ü {name}" for name in "hgfedcba"}
    path = tmp_path / "weights.safetensors"
    write_state({"a": torch.ones(2)}, path, metadata)
    data = path.read_bytes()
    written = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    assert list(written.items()) == sorted(metadata.items())
    with safe_open(path, "pt") as file:
        assert file.metadata() == metadata
        assert torch.equal(file.get_tensor("a"), torch.ones(2))


def test_one_changed_weight_changes_the_sha256(state: State, small_sam: MobileSam) -> None:
    state[A_WEIGHT][0, 0] += 1e-6
    assert weights_sha256(load_mobile_sam(state, 224)) != weights_sha256(small_sam)


def test_the_sha256_does_not_depend_on_the_image_size(state: State, small_sam: MobileSam) -> None:
    assert weights_sha256(load_mobile_sam(state, 64)) == weights_sha256(small_sam)


@pytest.mark.parametrize("image_size", [0, -32, 16, 1000])
def test_an_image_size_that_the_encoder_cannot_take_is_refused(image_size: int) -> None:
    with pytest.raises(ValueError, match=f"got image size {image_size}, expected a positive multiple of 32"):
        MobileSam(image_size=image_size)
