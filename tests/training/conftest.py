"""Small things that the training tests share: a teacher with random weights, and a few generated pictures in SA-1B's
format."""

from pathlib import Path

import pytest
import torch

from reference.checkpoint import save_checkpoint
from reference.training.scenes_to_sa1b import write_tar


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def teacher_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from reference.checkpoint import stand_in_mobile_sam

    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    save_checkpoint(stand_in_mobile_sam(64), path)
    return path


@pytest.fixture(scope="session")
def sa1b_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sa1b")
    write_tar(folder / "sa_000000.tar", 6, image_size=64)
    write_tar(folder / "sa_000001.tar", 5, image_size=64, first=6)
    return folder
