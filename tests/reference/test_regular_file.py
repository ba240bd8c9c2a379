"""Pipes, devices and giants are refused by name before anything opens them."""

import os
import socket
import sys
from pathlib import Path

import pytest

from reference.checkpoint import load_mobile_sam
from reference.errors import CheckpointError
from reference.regular_file import MEGABYTE, regular_file_size


def size(path: str | Path) -> int:
    return regular_file_size(path, "checkpoint", 3 * MEGABYTE, CheckpointError)


def test_the_size_of_a_file_or_of_what_a_link_points_at_is_returned(tmp_path: Path) -> None:
    (tmp_path / "weights.pt").write_bytes(b"12345")
    (tmp_path / "link.pt").symlink_to("weights.pt")
    assert size(tmp_path / "weights.pt") == size(str(tmp_path / "link.pt")) == 5


def test_what_is_no_regular_file_is_refused_by_name(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pt")
    with pytest.raises(CheckpointError, match=r"pipe\.pt is a pipe, expected a checkpoint in a regular file; give"):
        size(tmp_path / "pipe.pt")
    with pytest.raises(CheckpointError, match="/dev/zero is a device, expected a checkpoint"):
        size("/dev/zero")
    with pytest.raises(CheckpointError, match="is a folder, expected a checkpoint"):
        size(tmp_path)


@pytest.mark.skipif(sys.platform == "darwin", reason="its temporary folders are too deep for a socket's name")
def test_a_socket_is_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as open_socket:
        open_socket.bind(str(tmp_path / "s"))
        with pytest.raises(CheckpointError, match="is a socket, expected a checkpoint"):
            size(tmp_path / "s")


def test_what_is_not_there_or_cannot_be_a_name_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"there is no checkpoint at .*missing\.pt; check the path"):
        size(tmp_path / "missing.pt")
    (tmp_path / "dangling.pt").symlink_to("nowhere")
    with pytest.raises(CheckpointError, match="there is no checkpoint at"):
        size(tmp_path / "dangling.pt")
    for name in ("a\0b", "x" * 5000, tmp_path / "loop"):
        (tmp_path / "loop").unlink(missing_ok=True)
        (tmp_path / "loop").symlink_to("loop")
        with pytest.raises(CheckpointError, match=r"cannot be opened .*; give the path of a checkpoint"):
            size(name)


def test_a_giant_is_refused_by_its_size_without_reading_it(tmp_path: Path) -> None:
    giant = tmp_path / "giant.pt"
    with giant.open("wb") as file:
        file.truncate(10**12)  # sparse: takes no disk
    with pytest.raises(CheckpointError, match=r"has 1,000,000 MB, expected a checkpoint of at most 3 MB"):
        size(giant)


def test_a_pipe_or_device_as_checkpoint_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pt")
    (tmp_path / "zeros.safetensors").symlink_to("/dev/zero")
    for name, kind in (("pipe.pt", "a pipe"), ("zeros.safetensors", "a device")):
        with pytest.raises(CheckpointError, match=rf"{name} is {kind}, expected a checkpoint in a regular file"):
            load_mobile_sam(tmp_path / name)
