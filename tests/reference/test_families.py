"""RepViT-SAM and TinySAM files are recognised by their names, and compute what their publishers' code computes."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from reference import CheckpointError, MobileSam, Predictor, load_mobile_sam, save_checkpoint
from reference.checkpoint import official_state_dict, weights_sha256
from reference.checkpoint_names import layout_of
from reference.families import REPVIT_SIZES, family_of, widths_of
from reference.image_encoder import DEFAULT_BACKBONE, REPVIT_SAM
from tests.randomised import published_repvit, randomised_repvit, randomised_sam
from tests.reference.golden import OFFICIAL_SHAPES

SIDE = 128
RECORDED = dict(np.load(Path(__file__).parent.parent / "data" / "repvit_sam.npz"))
# The same operations in the same order gave equal bits where the file was made; other processors sum otherwise.
EMBEDDING_TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    return published_repvit("m0_9")


@pytest.mark.parametrize("size", ["m0_9", "m1_1", "m2_3"])
def test_the_encoder_is_the_publishers(size: str) -> None:
    sam = randomised_repvit(size, image_size=SIDE)
    assert sam.family == f"RepViT-SAM {size.replace('_', '.')}"
    image = torch.randint(0, 256, (1, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(0)).float()
    with torch.inference_mode():
        embedding = sam.image_encoder(sam.normalise_and_pad(image[:, :, : SIDE * 3 // 4]))
    assert embedding.shape == (1, 256, SIDE // 16, SIDE // 16)
    assert np.abs(embedding[0, ::16].numpy() - RECORDED[size]).max() < EMBEDDING_TOLERANCE


@pytest.mark.parametrize("size", REPVIT_SIZES)
def test_every_size_is_told_by_its_blocks(size: str) -> None:
    layout = layout_of(REPVIT_SAM + size)
    names = [layout.file_name(name) for name in layout.shapes]
    assert len(set(names)) == len(names)
    read = {
        name: layout.shapes[own][0]
        for name, own in zip(names, layout.shapes, strict=True)
        if name.endswith(("token_mixer.0.conv.c.weight", "token_mixer.0.c.weight"))
    }
    by_number = sorted(read, key=lambda name: int(name.split(".")[2]))
    assert [read[name] for name in by_number] == widths_of(*REPVIT_SIZES[size])


def test_the_published_layout_is_the_m2_3_with_1598_entries() -> None:
    layout = layout_of(REPVIT_SAM + "m2_3")
    names = {layout.file_name(name): shape for name, shape in layout.shapes.items()}
    assert len(names) == 1598
    # Read in the publisher's code: the second number of blocks is that of the width, two of each stage stand before it.
    assert names["image_encoder.features.0.2.c.weight"] == (80, 40, 3, 3)
    assert names["image_encoder.features.1.token_mixer.1.fc1.weight"] == (24, 80, 1, 1)
    assert names["image_encoder.features.7.token_mixer.0.conv1.bias"] == (80,)
    assert "image_encoder.features.7.token_mixer.1.fc1.weight" not in names
    assert names["image_encoder.features.8.token_mixer.2.c.weight"] == (160, 80, 1, 1)
    assert names["image_encoder.features.52.token_mixer.0.c.weight"] == (320, 1, 3, 3)
    assert names["image_encoder.features.54.channel_mixer.m.2.bn.running_var"] == (640,)
    assert names["image_encoder.neck.0.weight"] == (256, 640, 1, 1)


@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_a_repvit_sam_is_written_as_its_publisher_does(
    published: dict[str, Tensor], tmp_path: Path, ending: str
) -> None:
    torch.save({"model": {f"module.{name}": tensor for name, tensor in published.items()}}, tmp_path / "run.ckpt")
    sam = load_mobile_sam(tmp_path / "run.ckpt", SIDE)
    save_checkpoint(sam, tmp_path / f"repvit_sam.{ending}")
    again = load_mobile_sam(tmp_path / f"repvit_sam.{ending}", SIDE)
    assert (again.family, again.weights_source) == ("RepViT-SAM m0.9", f"repvit_sam.{ending}")
    assert weights_sha256(again) == weights_sha256(sam)
    written = official_state_dict(again)
    assert written.keys() == published.keys()
    assert all(torch.equal(written[name], published[name]) for name in published)


def test_the_predictor_takes_it() -> None:
    predictor = Predictor(randomised_repvit(image_size=SIDE))
    predictor.set_image(np.random.default_rng(0).integers(0, 256, (61, 97, 3), np.uint8))
    masks, quality, logits = predictor.predict(np.array([[40.0, 30.0]]), np.array([1]))
    assert masks.shape == (3, 61, 97)
    assert quality.shape == (3,)
    assert np.isfinite(logits).all()
    assert logits.std() > 0.1


def test_another_models_decoder_goes_with_it(published: dict[str, Tensor]) -> None:
    other = randomised_sam(5, SIDE)
    joined = load_mobile_sam(published, SIDE, decoder=official_state_dict(other))
    assert joined.family == "RepViT-SAM m0.9"
    encoder = randomised_repvit(image_size=SIDE).image_encoder.state_dict()
    assert all(torch.equal(tensor, encoder[name]) for name, tensor in joined.image_encoder.state_dict().items())
    for part in ("prompt_encoder", "mask_decoder"):
        wanted = other.get_submodule(part).state_dict()
        found = joined.get_submodule(part).state_dict()
        assert all(torch.equal(tensor, wanted[name]) for name, tensor in found.items())
    assert load_mobile_sam(official_state_dict(other), SIDE, decoder=published).family == "MobileSAM"


def test_mobile_sam_v2s_prompt_guided_decoder_goes_with_it(published: dict[str, Tensor]) -> None:
    other = official_state_dict(randomised_sam(5, SIDE))
    parts = {"PromtEncoder": "prompt_encoder.", "MaskDecoder": "mask_decoder."}  # its file's own spelling
    state = {
        key: {name.removeprefix(part): tensor for name, tensor in other.items() if name.startswith(part)}
        for key, part in parts.items()
    }
    joined = load_mobile_sam(published, SIDE, decoder=state)
    for part in parts.values():
        found = joined.get_submodule(part[:-1]).state_dict()
        assert found.keys() == state[next(key for key in parts if parts[key] == part)].keys()
        assert all(torch.equal(tensor, other[part + name]) for name, tensor in found.items())


def test_a_tiny_sam_file_has_mobile_sams_names_and_loads_as_it_is(tmp_path: Path) -> None:
    """Its 439 names and shapes, by the publisher's code, are MobileSAM's."""
    sam = randomised_sam(7, SIDE)
    state = official_state_dict(sam)
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == OFFICIAL_SHAPES
    torch.save(state, tmp_path / "tinysam_42.3.pth")
    loaded = load_mobile_sam(tmp_path / "tinysam_42.3.pth", SIDE)
    assert (loaded.family, loaded.weights_source) == ("MobileSAM", "tinysam_42.3.pth")
    assert weights_sha256(loaded) == weights_sha256(sam)
    family = family_of(DEFAULT_BACKBONE)
    assert family is not None
    assert family.published == "mobile_sam.pt"


def test_what_a_student_lacks_is_said_without_taking_it_for_a_published_model(tmp_path: Path) -> None:
    sam = MobileSam("resnet18", 64)
    save_checkpoint(sam, tmp_path / "whole.safetensors")
    state = load_file(tmp_path / "whole.safetensors")
    del state["image_encoder.body.model.layer3.0.bn1.weight"]
    save_file(state, tmp_path / "student.safetensors", {"backbone": "resnet18"})
    with pytest.raises(CheckpointError) as caught:
        load_mobile_sam(tmp_path / "student.safetensors", 64)
    assert str(caught.value) == (
        "student.safetensors is no checkpoint of MobileSAM with resnet18: entries 232 there; 1 missing (first: "
        "image_encoder.body.model.layer3.0.bn1.weight); expected that model's own names, as save_checkpoint writes them"
    )


def test_a_student_is_called_by_its_backbone() -> None:
    assert MobileSam("mobilenetv4_conv_small", 96).family == "MobileSAM with mobilenetv4_conv_small"


def refusal(state: dict[str, Tensor]) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_mobile_sam(state, SIDE)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_a_repvit_sam_lacks_is_said_in_its_own_names(published: dict[str, Tensor]) -> None:
    lacking = dict(published)
    del lacking["image_encoder.features.3.channel_mixer.m.0.c.weight"]
    lacking["image_encoder.features.2.extra.weight"] = torch.ones(3)
    assert refusal(lacking) == (
        "a state dict is no RepViT-SAM m0.9 checkpoint for repvit_sam_m0_9: entries 841 there; 1 missing (first: "
        "image_encoder.features.3.channel_mixer.m.0.c.weight); 1 unexpected (first: "
        "image_encoder.features.2.extra.weight); its names are of RepViT-SAM m0.9, which it resembles most: expected "
        "the layout of the published repvit_sam.pt"
    )


@pytest.mark.parametrize("lacking", ["features.3.token_mixer.0.conv.c.weight", "features.24.token_mixer.0.c.weight"])
def test_the_weight_that_tells_a_blocks_width_is_missed_by_its_name(published: dict[str, Tensor], lacking: str) -> None:
    state = {name: tensor for name, tensor in published.items() if name != f"image_encoder.{lacking}"}
    message = refusal(state)
    assert "is no RepViT-SAM m0.9 checkpoint for repvit_sam_m0_9: entries 841 there; 1 missing (first: " in message
    assert f"image_encoder.{lacking}); its names are of RepViT-SAM m0.9" in message


def test_a_repvit_of_another_size_is_named(published: dict[str, Tensor]) -> None:
    shorter = {  # a block less in the third stage
        re.sub(r"features\.(\d+)", lambda number: f"features.{int(number[1]) - (int(number[1]) > 20)}", name): tensor
        for name, tensor in published.items()
        if ".features.20." not in name
    }
    assert "a RepViT encoder of 25 blocks on 48 to 384 channels, expected one of the sizes m0.9, m1.0," in refusal(
        shorter
    )


@pytest.mark.parametrize("digits", [5, 5000])  # Python itself refuses to read more than 4300
def test_a_block_of_an_absurd_number_is_no_block(published: dict[str, Tensor], digits: int) -> None:
    name = f"image_encoder.features.{'9' * digits}.token_mixer.0.conv.c.weight"
    assert "is no RepViT-SAM m0.9 checkpoint" in refusal({**published, name: torch.ones(48, 1, 3, 3)})


def test_a_repvit_classifier_is_named(published: dict[str, Tensor]) -> None:
    classifier = {name.removeprefix("image_encoder."): t for name, t in published.items() if "features" in name}
    assert refusal(classifier) == (
        "a state dict is a RepViT image classifier, without RepViT-SAM's neck; expected such as repvit_sam.pt"
    )


def test_a_merged_repvit_is_named(published: dict[str, Tensor]) -> None:
    merged = {name: t for name, t in published.items() if "features" not in name}
    merged["image_encoder.features.1.token_mixer.0.weight"] = torch.ones(48, 1, 3, 3)
    assert "is a RepViT whose branches were merged already; expected its weights from before fuse()" in refusal(merged)


def test_sams_decoder_with_an_unknown_encoder_is_told_apart(published: dict[str, Tensor]) -> None:
    state = {name: t for name, t in published.items() if not name.startswith("image_encoder.features")}
    state["image_encoder.backbone.stages.0.weight"] = torch.ones(3)
    message = refusal(state)
    assert "with an image encoder of no family known here (7 entries, first: image_encoder.backbone." in message
    assert "known: TinySAM, MobileSAM, RepViT-SAM m0.9, " in message
    assert "--decoder-checkpoint" in message


def test_names_of_no_family_are_said_to_be_of_none() -> None:
    message = refusal({"conv1.weight": torch.ones(2), "fc.weight": torch.ones(2)})
    assert "its names are of none of TinySAM, MobileSAM, RepViT-SAM m0.9, " in message
