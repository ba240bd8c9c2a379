"""One pair of packages for all tests: stand-in weights at 224, where an export takes seconds."""

from pathlib import Path

import pytest

from mobilesam_export.targets.coreml.write import write
from reference.mobile_sam import MobileSam
from tests.randomised import randomised_sam

IMAGE_SIZE = 224


@pytest.fixture(scope="session")
def sam() -> MobileSam:
    return randomised_sam(0, IMAGE_SIZE).eval()


@pytest.fixture(scope="session")
def packages(sam: MobileSam, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Encoder and decoder with the default options."""
    encoder, decoder = write(sam, tmp_path_factory.mktemp("coreml"), metadata={"weights_sha256": "abc123"})
    return encoder, decoder


@pytest.fixture(scope="session")
def float32_packages(sam: MobileSam, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """In float32, with a tensor input and a decoder of flexible size."""
    folder = tmp_path_factory.mktemp("coreml32")
    encoder, decoder = write(sam, folder, precision="float32", image_input="tensor", flexible_points=True)
    return encoder, decoder
