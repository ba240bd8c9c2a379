"""Weights that cannot be right, and files that would take all memory, are refused in one line."""

import hashlib
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from reference import CheckpointError, MobileSam, checkpoint_file, load_mobile_sam, save_checkpoint
from reference import checkpoint as checkpoint_module
from reference.checkpoint import DEMO_SHA256, DEMO_WEIGHTS, official_state_dict
from reference.checkpoint_file import open_checkpoint
from reference.checkpoint_names import layout_of

State = dict[str, Tensor]
SIZE = 64
A_WEIGHT = "mask_decoder.transformer.layers.1.mlp.lin2.weight"
A_VARIANCE = "image_encoder.layers.0.blocks.0.conv1.bn.running_var"


@pytest.fixture
def state(small_sam: MobileSam) -> State:
    """All official entries of ``small_sam``, free to be changed."""
    return {name: tensor.clone() for name, tensor in official_state_dict(small_sam).items()}


def refused(checkpoint: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        load_mobile_sam(checkpoint, SIZE)
    assert "\n" not in str(caught.value)


FLOATS = [torch.float64, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", ["other.pt", "other.safetensors"])
def test_a_file_of_another_float_type_loads_rounded(
    state: State, tmp_path: Path, dtype: torch.dtype, name: str
) -> None:
    other = {entry: tensor.to(dtype) if tensor.is_floating_point() else tensor for entry, tensor in state.items()}
    if name.endswith(".pt"):
        torch.save(other, tmp_path / name)
    else:
        save_file(other, tmp_path / name)
    found = official_state_dict(load_mobile_sam(tmp_path / name, SIZE))
    for entry in (A_WEIGHT, A_VARIANCE, "image_encoder.neck.0.weight"):
        assert torch.equal(found[entry], other[entry].float()), entry


def test_a_float8_file_with_nan_is_one_line(state: State) -> None:
    state[A_WEIGHT] = torch.full_like(state[A_WEIGHT], float("nan")).to(torch.float8_e4m3fn)
    refused(state, f"NaN or infinite weights in 1 entries .*{A_WEIGHT}")


def test_a_float64_weight_beyond_float32_is_refused(state: State) -> None:
    state[A_WEIGHT] = state[A_WEIGHT].double() * 1e300
    refused(state, "NaN or infinite weights in 1 entries")


def test_a_negative_variance_is_refused(state: State) -> None:
    state[A_VARIANCE][3] = -1e-3
    refused(state, f"negative variances in 1 entries .*{A_VARIANCE}.*damaged or its entries are mixed up")


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool, torch.complex64])
def test_entries_that_are_no_floats_are_refused(state: State, dtype: torch.dtype) -> None:
    state[A_WEIGHT] = state[A_WEIGHT].to(dtype)
    refused(state, f"holds {dtype} in 1 entries .*{A_WEIGHT}.*expected floating-point weights")


@pytest.mark.parametrize("part", ["image_encoder", "prompt_encoder", "mask_decoder"])
def test_a_part_that_is_all_zeros_is_refused(state: State, part: str) -> None:
    for name in state:
        if name.startswith(part):
            state[name] = torch.zeros_like(state[name])
    refused(state, f"holds nothing but zeros in its {part}")


def test_a_trained_model_may_hold_single_entries_of_zeros(state: State) -> None:
    state[A_WEIGHT].zero_()
    state[A_VARIANCE].zero_()
    assert load_mobile_sam(state, SIZE).state_dict()[A_WEIGHT].count_nonzero() == 0


ODD: dict[str, Any] = {
    "sparse": lambda t: t.to_sparse(),
    "meta device": lambda t: t.to("meta"),
    "nested": lambda t: torch.nested.nested_tensor([t, t]),
    "quantised": lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8),
}


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("saved", [False, True])
def test_tensors_of_odd_kinds_are_refused(state: State, tmp_path: Path, kind: str, saved: bool) -> None:
    state[A_WEIGHT] = ODD[kind](state[A_WEIGHT])
    if saved:
        torch.save(state, tmp_path / "odd.pt")
    refused(tmp_path / "odd.pt" if saved else state, f"{kind}.*under '{A_WEIGHT}', expected a plain tensor")


def test_a_view_of_one_number_is_not_blown_up(state: State) -> None:
    state[A_WEIGHT] = torch.zeros(1).expand(10**7, 10**7)  # 400 TB if it were looked at
    refused(state, r"1 of another shape \(first: .* \(10000000, 10000000\) instead of \(256, 2048\)")


@pytest.mark.parametrize("place", [0.3, 0.6, 0.9])
def test_a_flipped_bit_in_a_pt_file_is_found(small_sam: MobileSam, tmp_path: Path, place: float) -> None:
    path = tmp_path / "flipped.pt"
    save_checkpoint(small_sam, path)
    content = bytearray(path.read_bytes())
    content[int(len(content) * place)] ^= 1
    path.write_bytes(content)
    refused(path, r"flipped\.pt is damaged: the checksum of its entry .*/data/\d+ is wrong; fetch it again")


def repacked(source: Path, path: Path) -> Path:
    """The same archive, compressed."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    return path


def test_a_compressed_file_loads_if_it_is_small(small_sam: MobileSam, tmp_path: Path) -> None:
    save_checkpoint(small_sam, tmp_path / "plain.pt")
    found = load_mobile_sam(repacked(tmp_path / "plain.pt", tmp_path / "packed.pt"), SIZE).state_dict()
    for name, tensor in small_sam.state_dict().items():
        assert torch.equal(found[name], tensor), name


def never(*_: Any, **__: Any) -> None:
    raise AssertionError("sizes come first")


def test_a_bomb_is_refused_before_anything_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"weight": torch.zeros(5_000_000)}, tmp_path / "plain.pt")
    bomb = repacked(tmp_path / "plain.pt", tmp_path / "bomb.pt")
    assert bomb.stat().st_size < 200_000
    assert checkpoint_file.LARGEST_UNPACKED_BYTES <= 10**9
    monkeypatch.setattr(checkpoint_file, "LARGEST_UNPACKED_BYTES", 10**7)
    monkeypatch.setattr(torch, "load", never)
    monkeypatch.setattr(zipfile.ZipFile, "testzip", never)
    refused(bomb, r"bomb\.pt of 0\.\d MB unpacks to 20 MB, expected at most 10 MB of a compressed file")


def test_entries_that_share_their_bytes_are_counted_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"weight": torch.zeros(1_000_000)}, tmp_path / "bomb.pt")
    with zipfile.ZipFile(tmp_path / "bomb.pt", "a") as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
        archive.filelist.extend([largest] * 100)  # the same place, listed a hundred times
        archive.writestr("archive/more", b"")
    monkeypatch.setattr(checkpoint_file, "LARGEST_UNPACKED_BYTES", 10**7)
    monkeypatch.setattr(torch, "load", never)
    refused(tmp_path / "bomb.pt", r"unpacks to 404 MB")


def test_a_giant_pickle_is_refused_by_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"losses": [0.5] * 10_000}, tmp_path / "long.pt")
    monkeypatch.setattr(checkpoint_file, "LARGEST_PICKLE_BYTES", 50_000)
    monkeypatch.setattr(torch, "load", never)
    refused(tmp_path / "long.pt", r"MB of names and objects, expected at most 0 MB; save model\.state_dict\(\) alone")


def test_a_giant_file_is_refused_by_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "giant.pt").open("wb") as file:
        file.truncate(13 * 10**9)  # a hole: it takes no disk
    refused(tmp_path / "giant.pt", r"has 13,000 MB, expected a checkpoint of at most 12,000 MB")


@pytest.mark.parametrize("backbone", ["swinv2_cr_giant_384", "regnety_2560", "vit_giant_patch14_224"])
def test_a_giant_backbone_is_named_and_not_built(
    tmp_path: Path, backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file({"image_encoder.body.weight": torch.zeros(1)}, tmp_path / "small.safetensors", {"backbone": backbone})
    monkeypatch.setattr(checkpoint_module, "MobileSam", never)
    refused(tmp_path / "small.safetensors", rf"small\.safetensors.*{backbone}")


def test_a_layout_takes_no_memory_for_its_weights() -> None:
    shapes = layout_of("regnety_2560").shapes
    assert sum(torch.Size(shape).numel() for shape in shapes.values()) > 10**9


def test_the_bundled_weights_are_the_known_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hashlib.sha256(DEMO_WEIGHTS.read_bytes()).hexdigest() == DEMO_SHA256
    changed = tmp_path / "demo.safetensors"
    shutil.copy(DEMO_WEIGHTS, changed)
    with changed.open("r+b") as file:
        file.seek(-1000, 2)
        byte = file.read(1)[0]
        file.seek(-1000, 2)
        file.write(bytes([byte ^ 1]))
    assert open_checkpoint(changed).tree.keys() == open_checkpoint(DEMO_WEIGHTS).tree.keys()
    monkeypatch.setattr(checkpoint_module, "DEMO_WEIGHTS", changed)
    refused("demo", r"bundled weights at .* have sha256 \w{12}, expected \w{12}; .*install again")
