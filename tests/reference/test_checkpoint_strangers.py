"""Files that are no MobileSAM checkpoint: the error names what they are and says what to do."""

import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from reference import CheckpointError, load_mobile_sam
from reference.checkpoint import stand_in_mobile_sam

ONE = torch.ones(1)
DECODER = {"mask_decoder.iou_token.weight": torch.ones(1, 256), "mask_decoder.mask_tokens.weight": torch.ones(4, 256)}


def sam_vit(width: int) -> dict[str, torch.Tensor]:
    return {
        "image_encoder.pos_embed": torch.zeros(1, 64, 64, width),
        "image_encoder.patch_embed.proj.weight": torch.zeros(width, 3, 16, 16),
        "image_encoder.blocks.0.attn.rel_pos_h": torch.zeros(27, 64),
        "image_encoder.neck.0.weight": torch.zeros(256, width, 1, 1),
        **DECODER,
    }


STATES: dict[str, tuple[dict[str, Any], str]] = {
    "SAM ViT-B": (sam_vit(768), r"is a SAM ViT-B checkpoint, not MobileSAM's; .*--decoder-checkpoint"),
    "SAM ViT-L": (sam_vit(1024), "is a SAM ViT-L checkpoint"),
    "SAM ViT-H": (sam_vit(1280), "is a SAM ViT-H checkpoint"),
    "EfficientSAM": (
        {
            "model": {
                "image_encoder.blocks.0.attn.qkv.weight": ONE,
                "prompt_encoder.bbox_top_left_embeddings.weight": torch.ones(1, 256),
                **DECODER,
            }
        },
        "is an EfficientSAM checkpoint; expected MobileSAM's weights",
    ),
    "RepViT-SAM": (
        {"image_encoder.features.1.token_mixer.0.conv.c.weight": ONE, "image_encoder.neck.1.bias": ONE, **DECODER},
        "is a checkpoint with a RepViT encoder of 1 blocks on 1 to 1 channels, expected one of the sizes m0.9, ",
    ),
    "SAM 2": (
        {
            "model": {
                "maskmem_tpos_enc": torch.ones(7, 1, 1, 64),
                "image_encoder.trunk.pos_embed": ONE,
                "memory_attention.layers.0.norm1.weight": ONE,
                "sam_mask_decoder.iou_token.weight": torch.ones(1, 256),
            }
        },
        "is a SAM 2 checkpoint",
    ),
    "HQ-SAM": (
        {**DECODER, "mask_decoder.hf_token.weight": torch.ones(1, 256)},
        "is an HQ-SAM checkpoint, whose mask decoder has a further token",
    ),
    "SAM of transformers": (
        {"shared_image_embedding.positional_embedding": ONE, "vision_encoder.layers.0.attn.qkv.weight": ONE},
        "is a SAM checkpoint in the layout of transformers",
    ),
    "YOLO": (
        {"model.0.conv.weight": ONE, "model.0.bn.weight": ONE, "model.22.cv2.0.0.conv.weight": ONE},
        "is a YOLO detector",
    ),
    "LoRA": (
        {"image_encoder.layers.1.blocks.0.attn.qkv.lora_A.weight": ONE, **DECODER},
        "is a checkpoint with LoRA adapters; merge them",
    ),
    "TinyViT": (
        {"layers.1.blocks.0.local_conv.c.weight": ONE, "head.weight": torch.ones(1000, 320)},
        "is a TinyViT image classifier, without MobileSAM's neck",
    ),
    "something else": (
        {"conv1.weight": ONE, "fc.weight": ONE},
        r"is no MobileSAM checkpoint .*2 unexpected \(first: (state_dict\.)?conv1\.weight, ",
    ),
    "nothing": ({"epoch": 3}, r"holds no tensors, expected a dict from names to tensors: save model.state_dict\(\)"),
}  # fmt: skip


def refused(path: Path, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        load_mobile_sam(path)
    assert str(caught.value).count("\n") == 0
    assert path.name in str(caught.value)
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize("name", STATES)
@pytest.mark.parametrize("wrapper", [None, "state_dict"])
def test_another_models_weights_are_named(tmp_path: Path, name: str, wrapper: str | None) -> None:
    state, message = STATES[name]
    torch.save({wrapper: state} if wrapper else state, tmp_path / "other.pt")
    refused(tmp_path / "other.pt", message)


@pytest.mark.parametrize("wrapper", [None, "optimizer"])
def test_an_optimizers_state_is_named(tmp_path: Path, wrapper: str | None) -> None:
    layer = nn.Linear(2, 2)
    optimiser = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(1, 2)).sum().backward()
    optimiser.step()
    state = optimiser.state_dict()
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, tmp_path / "optimizer.pt")
    refused(tmp_path / "optimizer.pt", r"is an optimizer's state without weights; save model\.state_dict\(\)")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_is_named(tmp_path: Path) -> None:
    torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)).save(str(tmp_path / "script.pt"))
    refused(tmp_path / "script.pt", "is a TorchScript program; expected weights")


def test_a_whole_pickled_model_is_named(tmp_path: Path) -> None:
    torch.save(nn.Sequential(nn.Linear(2, 2)), tmp_path / "model.pt")
    refused(tmp_path / "model.pt", r"is a whole pickled model .*torch\.save\(model\.state_dict\(\)")
    torch.save({"model": nn.Sequential(nn.Linear(2, 2)), "epoch": 3}, tmp_path / "run.pt")
    refused(tmp_path / "run.pt", "is a whole pickled model")


def test_a_pickled_yolo_is_named_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("ultralytics.nn.tasks")
    detector = type("DetectionModel", (nn.Module,), {"__module__": module.__name__})
    module.__dict__["DetectionModel"] = detector
    with monkeypatch.context() as while_saving:
        for name in ("ultralytics", "ultralytics.nn"):
            while_saving.setitem(sys.modules, name, ModuleType(name))
        while_saving.setitem(sys.modules, module.__name__, module)
        torch.save({"model": detector(), "epoch": -1}, tmp_path / "yolo.pt")
    refused(tmp_path / "yolo.pt", "is a YOLO detector; expected MobileSAM's weights")


BYTES = {
    "HTML": (b"\n <!DOCTYPE html>\n<html lang=en>", "is a web page instead of the file; download"),
    "XML": (b'<?xml version="1.0"?><Error><Code>AccessDenied', "is a web page instead of the file"),
    "Git LFS": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:6dbb\nsize 40728226\n",
        "is a Git LFS pointer instead of the file; run git lfs pull",
    ),
    "ONNX": (b"\x08\x08\x12\x07pytorch\x1a\x052.4.0:\xff\x01", "is an ONNX model"),
    "TFLite": (b"\x20\x00\x00\x00TFL3\x00\x00", "is a TFLite model"),
    "gzip": (b"\x1f\x8b\x08\x00", "is a gzip archive; unpack it"),
    "HDF5": (b"\x89HDF\r\n\x1a\n", r"is an HDF5 \(Keras\) file"),
}


@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
@pytest.mark.parametrize("name", BYTES)
def test_a_file_of_another_kind_is_named(tmp_path: Path, name: str, ending: str) -> None:
    content, message = BYTES[name]
    (tmp_path / f"file{ending}").write_bytes(content + bytes(100))
    refused(tmp_path / f"file{ending}", message)


def test_a_zip_without_weights_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "weights.pt", "w") as archive:
        archive.writestr("mobile_sam.pt", b"weights")
    refused(tmp_path / "weights.pt", "is a zip archive without weights; unpack it")


def test_a_folder_is_named(tmp_path: Path) -> None:
    refused(tmp_path, "is a folder, expected a checkpoint in a regular file")


def test_a_model_is_asked_for_its_state_dict() -> None:
    sam = stand_in_mobile_sam(64)
    for model in (sam, nn.DataParallel(sam)):
        with pytest.raises(
            CheckpointError, match=rf"got a model \({type(model).__name__}\), .*give model\.state_dict\(\)"
        ):
            load_mobile_sam(model)  # type: ignore[arg-type]  # of a wrong type on purpose
    with pytest.raises(CheckpointError, match=r"got a model \(MaskDecoder\)"):
        load_mobile_sam("demo", decoder=sam.mask_decoder)  # type: ignore[arg-type]  # of a wrong type on purpose


@pytest.mark.parametrize("what", [None, 5, b"mobile_sam.pt", [torch.ones(1)], torch.ones(2)])
def test_an_object_that_is_no_checkpoint_is_named(what: Any) -> None:
    with pytest.raises(CheckpointError, match=f"got an object of type {type(what).__name__}, expected the path"):
        load_mobile_sam(what)


@pytest.mark.parametrize("name", ["demo", "official"])
def test_a_file_that_is_called_like_the_named_weights_is_not_taken_for_them(tmp_path: Path, name: str) -> None:
    torch.save(stand_in_mobile_sam(64).state_dict(), tmp_path / name)
    assert load_mobile_sam(tmp_path / name, 64).weights_source == f"./{name}"
