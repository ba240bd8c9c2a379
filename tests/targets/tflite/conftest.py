"""One small conversion of each graph, shared by all tests here: a conversion takes ten seconds at any size."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from mobilesam_export.targets.tflite.runtime import TFLiteRuntime
from mobilesam_export.targets.tflite.write import compress, write
from reference.mobile_sam import MobileSam
from tests.randomised import randomised_sam

IMAGE_SIZE = 96  # windows of 7 (padded and several), of 14 (one, padded), and an odd grid of 6


@pytest.fixture(scope="session")
def sam() -> MobileSam:
    """The reference at ``IMAGE_SIZE`` with weights that all matter."""
    return randomised_sam(seed=0, image_size=IMAGE_SIZE)


@pytest.fixture(scope="session")
def float32_files(sam: MobileSam, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Encoder and decoder."""
    return write(sam, tmp_path_factory.mktemp("float32"), metadata={"contract_version": "1", "pad_colour": "mean"})


@pytest.fixture(scope="session")
def combined_file(sam: MobileSam, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both signatures in one file, with an 8-bit image and three slots."""
    (path,) = write(
        sam, tmp_path_factory.mktemp("combined"), combined=True, image_input="uint8", max_points=3,
        metadata={"precision": "float32"},
    )  # fmt: skip
    return path


@pytest.fixture(scope="session")
def float16_files(float32_files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The same conversion with the float16 passes of ``write``, without converting again: with products in halves."""
    folder = tmp_path_factory.mktemp("float16")
    paths = []
    for path in float32_files:
        paths.append(folder / path.name)
        shutil.copyfile(path, paths[-1])
        compress(paths[-1], None, "any")
    return paths


@pytest.fixture(scope="session")
def runtime(float32_files: list[Path]) -> Iterator[TFLiteRuntime]:
    """LiteRT's interpreter over the float32 files."""
    with TFLiteRuntime(*float32_files, threads=1) as opened:
        yield opened


@pytest.fixture(scope="session")
def image() -> torch.Tensor:
    """(1, 3, S, S) RGB noise, 0 to 255."""
    return torch.rand(1, 3, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(1)) * 255


@pytest.fixture(scope="session")
def embeddings(sam: MobileSam, image: torch.Tensor) -> torch.Tensor:
    """What the reference makes of ``image``."""
    with torch.no_grad():
        result: torch.Tensor = sam.image_encoder(sam.normalise_and_pad(image))
    return result
