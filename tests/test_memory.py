"""Too little memory is one line: before the work where it can be known, else when it runs out."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from mobilesam_export import cli, memory
from mobilesam_export.errors import ExportError
from mobilesam_export.memory import free_bytes, out_of_memory, require_memory
from mobilesam_export.photos import PHOTO_DIR
from mobilesam_export.pipeline import export
from reference.checkpoint import stand_in_mobile_sam

ROOT = Path(__file__).parent.parent


def test_what_a_container_allows_is_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert free_bytes() == pytest.approx(psutil.virtual_memory().available, rel=0.3)  # others come and go
    (tmp_path / "memory.max").write_text("50001000\n")
    (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 200\nactive_file 7\n")
    assert free_bytes() == 50_000_200  # the kernel gives cached files back
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "memory.stat").write_text("inactive_file 5\ntotal_inactive_file 8\n")
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("3000\n")
    (tmp_path / "memory" / "memory.usage_in_bytes").write_text("1000\n")
    assert free_bytes() == 2005


def test_work_that_does_not_fit_is_refused_before_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda: 2_000_000_000)
    require_memory(1_900_000_000, "this", "do less")
    with pytest.raises(ExportError) as caught:
        require_memory(4_100_000_000, "an export at 1024", "take --image-size 512, or ")
    assert str(caught.value) == (
        "an export at 1024 takes another 4.1 GB of memory, 2.0 GB are free; take --image-size 512, or make room (other "
        "programs, the container's limit, ulimit -v)"
    )


def test_every_librarys_way_to_say_it_is_understood() -> None:
    said: list[BaseException] = [
        MemoryError(),
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
        RuntimeError("std::bad_alloc"),
        RuntimeError("can't start new thread"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        Exception("[ONNXRuntimeError] : 1 : FAIL : Failed to allocate memory for requested buffer of size 67108864"),
    ]
    for too_large in (lambda: torch.empty(2**60, dtype=torch.uint8), lambda: np.empty(2**60, np.uint8)):
        with pytest.raises((RuntimeError, MemoryError)) as caught:
            too_large()
        said.append(caught.value)
    for error in said:
        told = out_of_memory(error)
        assert told is not None and told.startswith("out of memory") and "\n" not in told and len(told) < 300, error
        assert "take a smaller --image-size, or make room" in told
    wrapped = ExportError("the onnx target is not available here")
    wrapped.__cause__ = said[4]
    assert "failed to map segment from shared object (" in str(out_of_memory(wrapped))
    for other in (RuntimeError("shapes do not match"), ValueError("allocate"), OSError(errno.ENOSPC, "No space left")):
        assert out_of_memory(other) is None


def test_running_out_of_memory_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: str) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried")

    monkeypatch.setattr("mobilesam_export.bundle.manifest.Manifest.read", fail)
    assert cli.main(["inspect", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: out of memory: can't allocate memory (") and error.count("\n") == 1
    with pytest.raises(RuntimeError, match="enforce fail"):
        cli.main(["inspect", str(tmp_path), "--debug"])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps to a limit of the address space")
@pytest.mark.parametrize(
    "limit_kib", [700_000, 3_200 * 1024]
)  # imports fail; on the way, and with their libraries read
def test_a_limit_on_the_address_space_is_one_line(tmp_path: Path, limit_kib: int) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    arguments = ["segment", str(PHOTO_DIR / "coffee.png"), "--bundle", str(tmp_path), "--point", "1,1"]
    run = subprocess.run(
        ["bash", "-c", f'ulimit -v {limit_kib}; exec "$@"', "_", sys.executable, "-m", "mobilesam_export", *arguments],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 1
    assert run.stderr.count("\n") == 1
    if limit_kib < 10**6 or "out of memory" in run.stderr:  # PyTorch without CUDA loads in less
        assert run.stderr.startswith("error: out of memory: PyTorch and the runtimes cannot be loaded in")
    else:
        assert "manifest" in run.stderr


def test_an_export_that_does_not_fit_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sam = stand_in_mobile_sam(64)
    monkeypatch.setattr(memory, "free_bytes", lambda: 700_000_000)
    with pytest.raises(ExportError, match=r"an export at 64 takes another 0\.8 GB of memory, 0\.7 GB are free; make"):
        export(sam, "onnx", tmp_path / "dist")
    monkeypatch.setattr(memory, "free_bytes", lambda: 3_000_000_000)
    memory.require_memory_for_export(1024)
    with pytest.raises(ExportError, match=r"an export at 2048 takes another 3\.2 GB .* take a smaller"):
        memory.require_memory_for_export(2048)
    assert list(tmp_path.iterdir()) == []
