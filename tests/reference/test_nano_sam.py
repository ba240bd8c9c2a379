"""NanoSAM's files are recognised by their names, and compute what its publisher's code computes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mobilesam_export import cli
from reference import CheckpointError, MobileSam, Predictor, load_mobile_sam, save_checkpoint
from reference.checkpoint import official_state_dict, weights_sha256
from reference.checkpoint_names import layout_of
from reference.nano_sam import HGNETS_V2, NANO_SAM, RESNETS, nano_sam_backbone
from tests.randomised import published_nano_sam, randomised_sam, randomised_student

SIDE = 128
RECORDED = dict(np.load(Path(__file__).parent.parent / "data" / "nano_sam.npz"))
# The same operations in the same order gave equal bits where the file was made; other processors sum otherwise. Of the
# embedding's standard deviation, which is 2 to 13.
EMBEDDING_TOLERANCE = 1e-4


def trained(backbone: str = "resnet18", side: int = SIDE) -> dict[str, Any]:
    """What NanoSAM's trainer writes."""
    state = published_nano_sam(backbone, side)
    weights = [torch.nn.Parameter(tensor) for tensor in state.values() if tensor.is_floating_point()]
    return {"model": state, "optimizer": torch.optim.Adam(weights).state_dict(), "epoch": 3}


@pytest.fixture(scope="module")
def decoder() -> dict[str, Tensor]:
    return official_state_dict(randomised_sam(5, 64))


def encode(sam: MobileSam) -> Tensor:
    side = sam.image_size
    image = torch.randint(0, 256, (1, 3, side, side), generator=torch.Generator().manual_seed(0)).float()
    with torch.inference_mode():
        embedding: Tensor = sam.image_encoder(sam.normalise_and_pad(image[:, :, : side * 3 // 4]))
    assert embedding.shape == (1, 256, side // 16, side // 16)
    return embedding


def difference(found: Tensor, recorded: np.ndarray) -> float:
    return float(np.abs(found.numpy() - recorded).max() / recorded.std())


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50", "hgnetv2_b1"])
def test_the_encoder_is_the_publishers(backbone: str, decoder: dict[str, Tensor]) -> None:
    sam = load_mobile_sam(published_nano_sam(backbone, SIDE), SIDE, decoder=decoder)
    assert sam.family == f"NanoSAM {backbone}"
    assert difference(encode(sam)[0, ::16], RECORDED[backbone]) < EMBEDDING_TOLERANCE


@pytest.mark.slow  # 1024 on 1024, which is what a trained file is for
@pytest.mark.parametrize("backbone", ["resnet18", "hgnetv2_b1"])
def test_the_encoder_is_the_publishers_at_1024(backbone: str, decoder: dict[str, Tensor]) -> None:
    sam = load_mobile_sam(published_nano_sam(backbone, 1024), decoder=decoder)
    assert difference(encode(sam)[0, ::64, ::8, ::8], RECORDED[f"{backbone}_1024"]) < EMBEDDING_TOLERANCE


@pytest.mark.parametrize("backbone", [*RESNETS, *HGNETS_V2])
def test_every_backbone_is_told_by_names_and_shapes_whatever_one_weight_is_missing(backbone: str) -> None:
    layout = layout_of(NANO_SAM + backbone)
    shapes = {layout.file_name(name): layout.shapes[name] for name in layout.names("image_encoder")}
    for lacking in [None, *list(shapes)[::7]]:
        assert nano_sam_backbone({name: shape for name, shape in shapes.items() if name != lacking}) == backbone
    assert len(set(shapes)) == len(shapes)


def test_the_layout_is_the_trainers() -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in published_nano_sam("resnet18", 1024).items()}
    assert len(shapes) == 120 + 13  # of timm's ResNet18 without its classifier, and of the neck
    # Read in the publisher's code.
    assert shapes["backbone.layer4.0.downsample.0.weight"] == (512, 256, 1, 1)
    assert shapes["up_1.0.weight"] == (256, 512, 3, 3)
    assert shapes["up_1.6.bias"] == (256,)
    assert shapes["proj.2.weight"] == (256, 256, 1, 1)
    assert shapes["pos_embedding"] == (1, 256, 64, 64)
    assert "backbone.stages_3.blocks.0.aggregation.1.lab.scale" in published_nano_sam("hgnetv2_b1", 64)


def test_what_the_trainer_writes_is_taken_with_another_models_decoder(
    tmp_path: Path, decoder: dict[str, Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    torch.save(trained(), tmp_path / "nanosam.pth")
    torch.save(decoder, tmp_path / "mobile_sam.pt")
    sam = load_mobile_sam(tmp_path / "nanosam.pth", SIDE, decoder=tmp_path / "mobile_sam.pt")
    assert (sam.family, sam.weights_source) == ("NanoSAM resnet18", "nanosam.pth with the decoder of mobile_sam.pt")
    assert "the weights stand under 'model'; left out: optimizer, epoch" in caplog.text
    published = published_nano_sam("resnet18", SIDE)
    for name, tensor in sam.image_encoder.state_dict().items():
        whole = layout_of("nanosam_resnet18", SIDE).file_name(f"image_encoder.{name}")
        assert torch.equal(tensor, published[whole.removeprefix("image_encoder.")])
    assert torch.equal(sam.mask_decoder.iou_token.weight, decoder["mask_decoder.iou_token.weight"])


@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_it_is_written_with_its_decoder_and_its_own_names(tmp_path: Path, ending: str) -> None:
    sam = randomised_student("nanosam_hgnetv2_b0", 3, SIDE)
    save_checkpoint(sam, tmp_path / f"nanosam.{ending}")
    again = load_mobile_sam(tmp_path / f"nanosam.{ending}", SIDE)
    assert again.family == "NanoSAM hgnetv2_b0"
    assert weights_sha256(again) == weights_sha256(sam)
    written = official_state_dict(again)
    alone = {name.removeprefix("image_encoder."): t for name, t in written.items() if name.startswith("image_")}
    published = published_nano_sam("hgnetv2_b0", SIDE, 3)
    assert alone.keys() == published.keys()
    assert all(torch.equal(alone[name], published[name]) for name in published)


def test_a_file_says_its_backbone_where_names_do_not(tmp_path: Path) -> None:
    sam = MobileSam("nanosam_mobilenetv4_conv_small", 64).eval()
    save_checkpoint(sam, tmp_path / "nanosam.safetensors")
    assert load_mobile_sam(tmp_path / "nanosam.safetensors", 64).family == "NanoSAM mobilenetv4_conv_small"
    refused = "is a NanoSAM checkpoint with a backbone that is not known here, expected one of resnet18, "
    with pytest.raises(CheckpointError, match=refused):
        load_mobile_sam(official_state_dict(sam), 64)


def test_the_predictor_takes_it() -> None:
    predictor = Predictor(randomised_student("nanosam_resnet18", image_size=SIDE))
    predictor.set_image(np.random.default_rng(0).integers(0, 256, (61, 97, 3), np.uint8))
    masks, quality, logits = predictor.predict(np.array([[40.0, 30.0]]), np.array([1]))
    assert masks.shape == (3, 61, 97)
    assert quality.shape == (3,)
    assert np.isfinite(logits).all()
    assert logits.std() > 0.1


def refusal(state: dict[str, Any], side: int = SIDE, **options: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_mobile_sam(state, side, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_without_a_decoder_it_is_one_line_with_the_way_out() -> None:
    assert refusal(trained()) == (
        "a state dict holds an image encoder alone; give the rest with --decoder-checkpoint PATH, official or demo "
        "(load_mobile_sam(..., decoder=...))"
    )


@pytest.mark.parametrize("side", [64, 1024])
def test_another_image_size_than_it_was_trained_at_is_refused(side: int, decoder: dict[str, Tensor]) -> None:
    assert refusal(trained(), side, decoder=decoder) == (
        "a state dict is a NanoSAM that was trained at 128: it has a learned value for each place of that frame, and "
        f"none for {side}; choose --image-size 128 (image_size=128)"
    )


def test_another_image_size_is_refused_by_the_command_before_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(trained(side=1024), tmp_path / "nanosam.pth")
    options = ["--checkpoint", str(tmp_path / "nanosam.pth"), "--decoder-checkpoint", "demo", "--image-size", "512"]
    assert cli.main(["export", *options, "--out", str(tmp_path / "out")]) != 0
    assert "nanosam.pth is a NanoSAM that was trained at 1024" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_it_lacks_is_said_in_its_own_names(decoder: dict[str, Tensor]) -> None:
    state = published_nano_sam("resnet18", SIDE)
    del state["backbone.layer2.1.conv2.weight"]
    state["up_1.8.weight"] = torch.ones(256, 256, 3, 3)  # binh234/nanosam upsamples twice for images of 512
    message = refusal({"model": state}, decoder=decoder)
    assert "is no NanoSAM resnet18 checkpoint" in message
    assert (
        "1 missing (first: model.backbone.layer2.1.conv2.weight); 1 unexpected (first: model.up_1.8.weight)" in message
    )
    assert "expected the layout of the published checkpoint.pth of NanoSAM's trainer" in message


def test_misshapen_weights_are_named_and_nothing_is_allocated_for_them(decoder: dict[str, Tensor]) -> None:
    state = published_nano_sam("resnet18", SIDE)
    state["backbone.layer1.0.conv1.weight"] = torch.zeros(1).expand(64, 1 << 20, 1 << 10, 1)  # 256 GB if it were real
    message = refusal(state, decoder=decoder)
    assert "1 of another shape (first: backbone.layer1.0.conv1.weight (64, 1048576, 1024, 1) instead of" in message


@pytest.mark.parametrize("shape", [(), (256,), (1, 256, 64, 32), (1, 256, 0, 0), (1, 256, 9, 9)])
def test_places_of_another_form_are_misshapen(shape: tuple[int, ...], decoder: dict[str, Tensor]) -> None:
    state = published_nano_sam("resnet18", SIDE)
    state["pos_embedding"] = torch.zeros(1).expand(shape) if shape else torch.zeros(())
    assert f"1 of another shape (first: pos_embedding {shape} instead of (1, 256, 8, 8))" in refusal(
        state, decoder=decoder
    )


def test_it_is_converted_at_the_image_size_that_the_refusal_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(trained(), tmp_path / "nanosam.pth")
    convert = ["convert-checkpoint", str(tmp_path / "nanosam.pth"), str(tmp_path / "out.pt"), "--decoder-checkpoint"]
    assert cli.main([*convert, "demo", "-q"]) == 1
    assert "choose --image-size 128" in capsys.readouterr().err
    assert cli.main([*convert, "demo", "-q", "--image-size", "128"]) == 0
    published, written = published_nano_sam("resnet18", SIDE), torch.load(tmp_path / "out.pt", weights_only=True)
    assert all(torch.equal(written[f"image_encoder.{name}"], tensor) for name, tensor in published.items())
