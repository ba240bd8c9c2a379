"""The manifest survives its file, refuses what it does not understand, and hashes trees as documented."""

import hashlib
import subprocess
from pathlib import Path

import pytest

from mobilesam_export.contract import Contract
from mobilesam_export.errors import ExportError
from mobilesam_export.manifest import (
    FILE_NAME,
    FileEntry,
    Manifest,
    TargetEntry,
    Weights,
    describe_contract,
    tree_sha256,
    versions_for,
)


def manifest_of(directory: Path) -> Manifest:
    (directory / "onnx").mkdir()
    encoder = directory / "onnx" / "mobile_sam_encoder.onnx"
    encoder.write_bytes(b"abc")
    entry = TargetEntry(
        "onnx",
        "float32",
        {},
        describe_contract(Contract(64)),
        [FileEntry.of(encoder, directory)],
        None,
        versions_for("onnx"),
    )
    return Manifest(Weights("demo", "0" * 64, "a notice"), 64, {"onnx": entry})


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path)
    manifest.write(tmp_path)
    assert Manifest.read(tmp_path) == manifest


def test_a_file_entry_has_size_role_and_the_hash_of_its_bytes(tmp_path: Path) -> None:
    entry = manifest_of(tmp_path).targets["onnx"].files[0]
    assert entry == FileEntry("onnx/mobile_sam_encoder.onnx", "encoder", "file", 3, hashlib.sha256(b"abc").hexdigest())


def test_a_tree_is_hashed_by_paths_and_contents(tmp_path: Path) -> None:
    for name, content in {"b/z.bin": b"1", "a.txt": b"2", "b/a b.bin": b"3"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    shell = "find * -type f | LC_ALL=C sort | tr '\\n' '\\0' | xargs -0 sha256sum | sha256sum"
    expected = subprocess.run(shell, shell=True, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    before = tree_sha256(tmp_path)
    assert before == expected.split()[0]
    (tmp_path / "a.txt").rename(tmp_path / "c.txt")
    assert tree_sha256(tmp_path) != before


def test_the_contract_names_every_port_and_label() -> None:
    described = describe_contract(Contract(1024, 8))
    assert [port["name"] for port in described["decoder"]["inputs"]] == [
        "image_embeddings",
        "point_coords",
        "point_labels",
        "mask_input",
        "has_mask_input",
    ]
    assert described["decoder"]["inputs"][1]["shape"] == [1, 8, 2]
    assert described["point_labels"] == {
        "absent": -2,
        "padding": -1,
        "background": 0,
        "foreground": 1,
        "box_top_left": 2,
        "box_bottom_right": 3,
    }


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "is no bundle's manifest"),
        ("[]", "is no bundle's manifest"),
        ("{}", "is no bundle's manifest"),
        ('{"format": "mobilesam-export-bundle", "format_version": "99"}', "has format mobilesam-export-bundle 99"),
    ],
)
def test_what_is_no_manifest_is_refused_in_one_line(tmp_path: Path, content: str, told: str) -> None:
    (tmp_path / FILE_NAME).write_text(content)
    with pytest.raises(ExportError, match=told) as raised:
        Manifest.read(tmp_path)
    assert "\n" not in str(raised.value)


def test_a_folder_without_manifest_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="there is no bundle at"):
        Manifest.read(tmp_path / "nowhere")


@pytest.mark.parametrize("path", ["../outside.onnx", "/etc/passwd"])
def test_a_path_out_of_the_bundle_is_refused(tmp_path: Path, path: str) -> None:
    manifest_of(tmp_path).write(tmp_path)
    text = (tmp_path / FILE_NAME).read_text().replace("onnx/mobile_sam_encoder.onnx", path)
    (tmp_path / FILE_NAME).write_text(text)
    with pytest.raises(ExportError, match="points out of its directory"):
        Manifest.read(tmp_path)


def test_a_target_that_is_not_there_is_told(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path)
    assert manifest.target(None).target == "onnx"
    with pytest.raises(ExportError, match="holds onnx, got target 'coreml'"):
        manifest.target("coreml")
    with pytest.raises(ExportError, match="has no decoder"):
        manifest.target("onnx").path_of("decoder")


def test_versions_name_the_packages_of_the_target() -> None:
    assert {"python", "platform", "torch", "onnxruntime"} <= versions_for("onnx").keys()
    assert "coremltools" not in versions_for("onnx")
