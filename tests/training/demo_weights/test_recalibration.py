"""Recalibration: BatchNorm's statistics become those of whole training frames, and nothing else changes."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from reference.checkpoint import load_mobile_sam
from reference.image_encoder import ImageEncoder
from reference.training.demo_weights import demonstrate as demonstrate_module
from reference.training.demo_weights.demonstrate import demonstrate
from reference.training.demo_weights.painting import Supply
from reference.training.demo_weights.phases import Feed, Phase
from reference.training.demo_weights.recalibration import BATCHES, FIRST_SCENE, SCENES_EACH, recalibrate, whole_frames
from reference.training.pixels import normalise
from reference.training.scenes.cutout_scenes import CutoutSceneGenerator
from reference.training.scenes.cutouts import prepare_cutouts
from reference.training.scenes.scenes import SceneGenerator

SIDE = 64
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve squares on transparent ground."""
    folder = tmp_path_factory.mktemp("objects")
    for n in range(12):
        rgba = np.zeros((96, 96, 4), np.uint8)
        rgba[16:80, 16:80] = (20 * n, 255 - 20 * n, 90, 255)
        Image.fromarray(rgba).save(folder / f"thing{n}.png")
    return folder


@pytest.fixture(scope="module")
def frames(objects: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Tensor]:
    prepared = tmp_path_factory.mktemp("prepared")
    prepare_cutouts(objects, prepared)
    found = list(whole_frames(prepared, SIDE))
    families = SceneGenerator("train", SIDE), CutoutSceneGenerator(prepared, "train", SIDE)
    for k, n in ((0, 0), (2, 3)):
        for family, generator in enumerate(families):
            image = generator(FIRST_SCENE + SCENES_EACH * k + n).image
            expected = normalise(torch.from_numpy(image).permute(2, 0, 1).float())
            assert torch.equal(found[k][SCENES_EACH * family + n], expected)
    return found


@pytest.fixture
def encoder() -> ImageEncoder:
    torch.manual_seed(0)
    return ImageEncoder().eval()


def state_of(encoder: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in encoder.state_dict().items()}


def test_frames_are_eight_a_batch_of_both_families(frames: list[Tensor]) -> None:
    assert [tuple(batch.shape) for batch in frames] == [(2 * SCENES_EACH, 3, SIDE, SIDE)] * BATCHES


def test_spoiled_statistics_come_back_to_those_of_the_frames_and_all_else_stays(
    encoder: ImageEncoder, frames: list[Tensor]
) -> None:
    fresh = state_of(encoder)
    recalibrate(encoder, frames)
    once = state_of(encoder)
    assert {kind(name) for name in fresh if not torch.equal(fresh[name], once[name])} == set(STATISTICS)
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.add_(3.0)  # type: ignore[union-attr]
            module.running_var.mul_(1.17)  # type: ignore[union-attr]
    spoiled = state_of(encoder)
    recalibrate(encoder, frames)
    after = state_of(encoder)
    for name, value in after.items():
        assert torch.equal(value, once[name]), name
        if kind(name) not in STATISTICS[:2]:
            assert torch.equal(value, spoiled[name]), name
    assert not any(module.training for module in encoder.modules())
    assert {module.momentum for module in encoder.modules() if isinstance(module, nn.BatchNorm2d)} == {0.1}
    assert not any(parameter.grad is not None for parameter in encoder.parameters())


def test_a_first_layers_statistics_are_the_mean_of_the_batches(encoder: ImageEncoder, frames: list[Tensor]) -> None:
    convolution, norm = _first_pair(encoder)
    with torch.inference_mode():
        seen = [convolution(batch) for batch in frames]
    recalibrate(encoder, frames)
    assert norm.running_mean is not None and norm.running_var is not None
    assert int(norm.num_batches_tracked or 0) == BATCHES
    # float32 sums of 8 x 32 x 32 values in another order: 1e-5
    torch.testing.assert_close(
        norm.running_mean, torch.stack([s.mean((0, 2, 3)) for s in seen]).mean(0), rtol=1e-5, atol=1e-6
    )
    torch.testing.assert_close(
        norm.running_var, torch.stack([s.var((0, 2, 3)) for s in seen]).mean(0), rtol=1e-5, atol=1e-6
    )


def _first_pair(encoder: nn.Module) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    modules = list(encoder.modules())
    norm = next(k for k, module in enumerate(modules) if isinstance(module, nn.BatchNorm2d))
    convolution = modules[norm - 1]
    assert isinstance(convolution, nn.Conv2d)
    return convolution, modules[norm]  # type: ignore[return-value]


def test_the_command_ends_with_it(objects: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file of a miniature run differs from its trained weights, rounded to float16, in the statistics alone."""
    feed = Feed(SIDE, SIDE, images=2, prompts=2, places=3)
    phases = (Phase("all", (dataclasses.replace(feed, own_frame=True),), 2, 1e-3, 1e-3),)
    before: dict[str, Tensor] = {}

    def watched(encoder: nn.Module, batches: Iterable[Tensor]) -> None:
        before.update(state_of(encoder))
        recalibrate(encoder, batches)

    monkeypatch.setattr(demonstrate_module, "recalibrate", watched)
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    path = demonstrate(tmp_path / "work", objects, phases=phases, supplies=(Supply(SIDE, 4, 4),))
    written = load_mobile_sam(path).image_encoder.state_dict()
    assert {kind(name) for name in before if not torch.equal(before[name], written[name])} == set(STATISTICS)
    assert {int(value) for name, value in written.items() if kind(name) == "num_batches_tracked"} == {BATCHES}


def kind(name: str) -> str:
    return name.rsplit(".", 1)[1]
