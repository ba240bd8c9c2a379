"""One small asset of the demonstration weights, shared by all tests here."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from reference import load_mobile_sam
from reference.mobile_sam import MobileSam

IMAGE_SIZE = 128  # windows of 7 and 14, padded; and as many channels of the masks as rows (see ``graphs``)
NEEDED = "needs pip install 'mobilesam-export[coreai]'"


@pytest.fixture(scope="session")
def sam() -> MobileSam:
    """The demonstration weights at ``IMAGE_SIZE``."""
    return load_mobile_sam("demo", IMAGE_SIZE)


@pytest.fixture(scope="session")
def asset(sam: MobileSam, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In float32."""
    pytest.importorskip("coreai_torch", reason=NEEDED)
    from mobilesam_export.targets.coreai.write import write

    (path,) = write(sam, tmp_path_factory.mktemp("float32"), metadata={"contract_version": "1"})
    return path


@pytest.fixture(scope="session")
def image() -> Tensor:
    """(1, 3, S, S) RGB noise, 0 to 255."""
    return torch.rand(1, 3, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(1)) * 255


@pytest.fixture(scope="session")
def embeddings(sam: MobileSam, image: Tensor) -> Tensor:
    """What the reference makes of ``image``."""
    with torch.no_grad():
        result: Tensor = sam.image_encoder(sam.normalise_and_pad(image))
    return result
