"""Models that the tests of the reference share; none may change them."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from reference import MobileSam, Predictor
from reference.checkpoint import stand_in_mobile_sam
from tests.randomised import randomised_sam
from tests.reference import golden


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """Sums in one order everywhere; and on a busy machine PyTorch's threads wait for each other most of the time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def small_sam() -> MobileSam:
    """Random weights in a 224-pixel model frame."""
    return randomised_sam()


@pytest.fixture
def small_predictor(small_sam: MobileSam) -> Predictor:
    """Over ``small_sam``, with a landscape photo of noise set."""
    predictor = Predictor(small_sam)
    predictor.set_image(np.random.default_rng(0).integers(0, 256, (61, 97, 3), np.uint8))
    return predictor


@pytest.fixture(scope="session")
def golden_predictors() -> dict[str, Predictor]:
    """The photos of the golden file at full size, each encoded once."""
    sam = stand_in_mobile_sam(1024)
    predictors = {name: Predictor(sam) for name in ("astronaut", "coffee")}
    for name, predictor in predictors.items():
        predictor.set_image(golden.photo(name))
    return predictors
