"""One small conversion of each graph, shared by all tests here: it takes half a minute at any size."""

from pathlib import Path

import pytest
import torch

from reference.mobile_sam import MobileSam
from tests.randomised import randomised_sam

IMAGE_SIZE = 96  # windows of 7 (padded and several), of 14 (one, padded), and an odd grid of 6


@pytest.fixture(scope="session")
def sam() -> MobileSam:
    """The reference at ``IMAGE_SIZE`` with weights that all matter."""
    return randomised_sam(seed=0, image_size=IMAGE_SIZE)


@pytest.fixture(scope="session")
def files(sam: MobileSam, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Encoder and decoder in float32."""
    pytest.importorskip("executorch", reason="needs pip install 'mobilesam-export[executorch]'")
    from mobilesam_export.targets.executorch.write import write

    return write(sam, tmp_path_factory.mktemp("float32"), metadata={"contract_version": "1", "pad_colour": "mean"})


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
