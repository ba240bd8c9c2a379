"""Small things that the training tests share: a teacher with random weights, and a few generated pictures in SA-1B's
format."""

import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from reference.checkpoint import save_checkpoint
from reference.training.scenes.scenes_to_sa1b import write_tar


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def every_step_is_repeatable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever trains here may sum only in an order that threads cannot change, see test_run_state.py."""
    seen = []
    step = torch.optim.AdamW.step

    def watched(self: torch.optim.AdamW, *arguments: Any, **options: Any) -> Any:
        seen.append(torch.are_deterministic_algorithms_enabled())
        return step(self, *arguments, **options)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    yield
    assert all(seen)


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


@pytest.fixture
def full_disk() -> Callable[[int], AbstractContextManager[None]]:
    """Within `with full_disk(size):` no file can grow beyond `size` bytes, as on a disk with that much room."""
    resource = pytest.importorskip("resource", reason="file size limits exist on POSIX only")

    @contextmanager
    def limited(size: int) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # else the limit kills the process
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, handler)

    return limited
