"""What an export does to a folder, without the export and without PyTorch; and what a kill may leave there."""

from pathlib import Path

from mobilesam_export.bundle.destination import look
from mobilesam_export.bundle.manifest import Manifest
from mobilesam_export.bundle.staging import move_into_place, staging_directory
from tests.small_bundle import SIZE, WEIGHTS, write_bundle


def replace(directory: Path, content: bytes = b"new", weights: str = WEIGHTS, overwrite: bool = True) -> None:
    """Replace a folder's ONNX target."""
    with staging_directory(directory) as stage:
        found = look(directory, ["onnx"], weights, SIZE, overwrite)
        write_bundle(stage, "onnx", weights, content)
        move_into_place(stage, found)


def prepare(base: Path) -> Path:
    """An older bundle, in which its user keeps files: beside it, in its folders, and behind links."""
    directory = base / "bundles" / "dist"
    write_bundle(directory, content=b"old")
    (base / "elsewhere").mkdir()
    (base / "elsewhere" / "far.txt").write_text("far")
    (directory / "notes.txt").write_text("mine")
    (directory / "onnx" / "mine.txt").write_text("mine too")
    (directory / "empty").mkdir()
    (directory / "link").symlink_to("../../elsewhere")
    return directory


def encoder(directory: Path) -> bytes:
    """A bundle's encoder, once all its files are seen to be as its manifest says."""
    for entry in Manifest.read(directory).targets.values():
        entry.check_files(directory)
    return (directory / "onnx" / "mobile_sam_encoder.onnx").read_bytes()


def assert_the_users_files_are_there(directory: Path) -> None:
    """All that ``prepare`` put there."""
    assert (directory / "notes.txt").read_text() == "mine"
    assert (directory / "onnx" / "mine.txt").read_text() == "mine too"
    assert (directory / "empty").is_dir()
    assert (directory / "link").is_symlink()
    assert (directory / "link" / "far.txt").read_text() == "far"


def check_after_kill(directory: Path, two_steps: bool) -> None:
    """A whole bundle, old or new, at once; only between two renames not until the next export, even one that fails."""
    if not two_steps or directory.exists():
        assert encoder(directory) in (b"oldencoder", b"newencoder")
        assert_the_users_files_are_there(directory)
    with staging_directory(directory):
        pass
    assert encoder(directory) in (b"oldencoder", b"newencoder")
    assert_the_users_files_are_there(directory)
    assert [path.name for path in directory.parent.iterdir()] == ["dist"]
