"""The encoder never runs with yesterday's bias; students build, answer and round-trip."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from reference import CheckpointError, MobileSam, load_mobile_sam, save_checkpoint
from reference.checkpoint import official_state_dict, stand_in_mobile_sam, weights_sha256
from reference.image_encoder import FreshBiasAttention, ImageEncoder


@pytest.fixture
def image() -> Tensor:
    return torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))


def encode(sam: MobileSam, image: Tensor) -> Tensor:
    with torch.inference_mode():
        embeddings: Tensor = sam.image_encoder(image)
    return embeddings


def test_new_weights_after_a_forward_pass_answer_as_a_fresh_model(image: Tensor) -> None:
    sam, fresh = stand_in_mobile_sam(96, seed=0), stand_in_mobile_sam(96, seed=1)
    before = encode(sam, image)
    sam.load_state_dict(fresh.state_dict())
    after = encode(sam, image)
    assert torch.equal(after, encode(fresh, image))
    assert not torch.allclose(after, before, atol=1e-2)


def test_a_bias_changed_in_place_counts_at_once(image: Tensor) -> None:
    sam = stand_in_mobile_sam(96)
    before = encode(sam, image)
    with torch.no_grad():
        for module in sam.modules():
            if isinstance(module, FreshBiasAttention):
                module.attention_biases.normal_()
    assert not torch.allclose(encode(sam, image), before, atol=1e-2)
    changed = official_state_dict(sam)
    assert torch.equal(encode(sam, image), encode(load_mobile_sam(changed, 96), image))


def test_switching_modes_changes_no_answer(image: Tensor) -> None:
    sam = stand_in_mobile_sam(96)
    before = encode(sam, image)
    sam.train()
    sam.eval()
    assert torch.equal(encode(sam, image), before)


@pytest.mark.parametrize("side", [32, 96, 160, 224])
def test_any_multiple_of_32_gives_a_sixteenth_of_it(small_sam: MobileSam, side: int) -> None:
    embeddings = encode(small_sam, torch.zeros(1, 3, side, side))
    assert embeddings.shape == (1, 256, side // 16, side // 16)
    assert embeddings.isfinite().all()


def test_images_of_a_batch_do_not_mix(small_sam: MobileSam, image: Tensor) -> None:
    other = image.flip(3)
    both = encode(small_sam, torch.cat([image, other]))
    torch.testing.assert_close(both[:1], encode(small_sam, image), rtol=0, atol=1e-4)
    torch.testing.assert_close(both[1:], encode(small_sam, other), rtol=0, atol=1e-4)


@pytest.mark.parametrize("backbone", ["mobilenetv4_conv_small", "repvit_m0_9", "efficientvit_b0", "tiny_vit_11m_224"])
def test_students_build_and_round_trip(backbone: str, image: Tensor, tmp_path: Path) -> None:
    torch.manual_seed(0)
    student = MobileSam(backbone, image_size=96).eval()
    embeddings = encode(student, image)
    assert embeddings.shape == (1, 256, 6, 6)

    path = tmp_path / "student.safetensors"
    save_checkpoint(student, path)
    loaded = load_mobile_sam(path, image_size=96)
    assert loaded.image_encoder.backbone == backbone
    assert weights_sha256(loaded) == weights_sha256(student)
    assert torch.equal(encode(loaded, image), embeddings)

    with pytest.raises(CheckpointError, match=f"no published layout holds {backbone} .*; save as .safetensors"):
        save_checkpoint(student, tmp_path / "student.pt")
    assert not (tmp_path / "student.pt").exists()


def test_a_students_weights_do_not_pass_for_tiny_vit(tmp_path: Path) -> None:
    student = MobileSam("mobilenetv4_conv_small", image_size=96)
    with pytest.raises(CheckpointError, match=r"with an image encoder of no family known here .*image_encoder\.body\."):
        load_mobile_sam(student.state_dict())


def test_a_backbone_without_a_sixteenth_map_is_refused() -> None:
    with pytest.raises(ValueError, match=r"feature maps at strides .*, expected one at 16"):
        ImageEncoder("vit_small_patch32_224")


@pytest.mark.parametrize("backbone", ["no_such_net", "tiny_vit_no_such", "repvit_m1.no_such_tag"])
def test_a_backbone_that_timm_does_not_know_is_one_line(backbone: str) -> None:
    with pytest.raises(ValueError, match=rf"timm cannot make backbone '{backbone}' \(.*\); choose another"):
        ImageEncoder(backbone)


def test_the_last_downsampling_keeps_the_grid(small_sam: MobileSam) -> None:
    convolution = small_sam.image_encoder.get_submodule("body.stages.3.downsample.conv2.conv")
    assert isinstance(convolution, nn.Conv2d)
    assert convolution.stride == (1, 1)
