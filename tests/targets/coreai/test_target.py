"""What the target says where its packages are missing or too old, and on which photos it is verified."""

import logging
import warnings
from pathlib import Path

import pytest

from mobilesam_export import export, targets, verify_bundle
from mobilesam_export.bundle.manifest import Manifest
from mobilesam_export.errors import ExportError
from mobilesam_export.parity.cases import PHOTOS, QUICK_PHOTO
from mobilesam_export.targets.coreai import backend
from reference.mobile_sam import MobileSam
from tests.fake_target import install
from tests.randomised import randomised_sam
from tests.targets.coreai.conftest import NEEDED


@pytest.fixture(scope="module")
def small() -> MobileSam:
    return randomised_sam(image_size=64)


def test_a_missing_package_is_one_line_with_the_command_that_brings_it(
    small: MobileSam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets.named("coreai"), "packages", ("a_package_that_is_not_there",))
    with pytest.raises(ExportError, match=r"coreai target is not available here \(no a_package_that_is_not_there\)"):
        export(small, "coreai", tmp_path / "dist")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("machine", "reason"),
    [
        (("linux", "x86_64", (3, 11), (2, 34)), None),
        (("linux", "x86_64", (3, 13), (2, 41)), None),
        (("darwin", "arm64", (3, 12), (26, 0)), None),
        (("linux", "x86_64", (3, 11), (2, 31)), "glibc 2.31"),
        (("linux", "x86_64", (3, 11), ()), "another C library"),
        (("linux", "aarch64", (3, 11), (2, 39)), "linux on aarch64"),
        (("darwin", "x86_64", (3, 11), (26, 0)), "darwin on x86_64"),
        (("darwin", "arm64", (3, 11), (15, 5)), "macOS 15.5"),
        (("linux", "x86_64", (3, 15), (2, 39)), "Python 3.15"),
        (("win32", "AMD64", (3, 11), ()), "win32"),
    ],
)
def test_where_apple_has_no_wheel_the_remedy_says_why(
    machine: tuple[str, str, tuple[int, int], tuple[int, ...]], reason: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert backend.without_wheels(*machine) == reason
    monkeypatch.setattr(backend, "without_wheels", lambda *_: reason)
    if reason is None:
        assert backend.remedy() == "run: pip install 'mobilesam-export[coreai]', or choose another --target"
    else:
        assert f"here is {reason}. Choose another --target" in backend.remedy()
        assert "pip install" not in backend.remedy()


def test_a_package_that_is_too_old_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "version", lambda _: "0.4.2")
    with pytest.raises(ExportError, match=r"got coreai-torch 0.4.2, expected 0.4.3 or later; run: pip install"):
        targets.named("coreai").load(verify=True)


def test_a_remark_on_the_version_of_pytorch_is_one_line_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("coreai_torch", reason=NEEDED)
    monkeypatch.setattr(backend, "_told", set())
    remark = warnings.WarningMessage("validated with torch<=2.13.0;\nfound torch 9", UserWarning, "file", 1)
    with caplog.at_level(logging.WARNING, "mobilesam_export"):
        for _ in range(2):
            backend.tell([remark])
    assert caplog.messages == ["validated with torch<=2.13.0; found torch 9 Parity judges what it writes."]


def test_options_of_other_targets_and_unknown_precisions_are_refused(small: MobileSam, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="opset 17 is for onnx, got target coreai"):
        export(small, "coreai", tmp_path / "dist", opset=17)
    with pytest.raises(ExportError, match="got precision palette6 for coreai, expected float32"):
        export(small, "coreai", tmp_path / "dist", precision="palette6")


def test_it_is_verified_on_one_photo_unless_all_are_asked_for(
    small: MobileSam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("onnx", "coreai"):
        install(monkeypatch, small, name)
    monkeypatch.setattr(targets.named("coreai"), "verified_by_default", "quick")
    every, quick = [photo.name for photo in PHOTOS], [QUICK_PHOTO.name]

    def photos_of(directory: Path) -> dict[str, list[str]]:
        entries = Manifest.read(directory).targets
        return {name: [*entry.parity["embeddings"]] for name, entry in entries.items() if entry.parity}

    export(small, "onnx,coreai", tmp_path / "default")
    assert photos_of(tmp_path / "default") == {"onnx": every, "coreai": quick}
    entries = Manifest.read(tmp_path / "default").targets
    assert [entry.parity["judged"]["level"] for entry in entries.values() if entry.parity] == ["full", "quick"]
    export(small, "onnx,coreai", tmp_path / "full", verify="full")
    assert photos_of(tmp_path / "full") == {"onnx": every, "coreai": every}
    export(small, "coreai", tmp_path / "alone")
    assert photos_of(tmp_path / "alone") == {"coreai": quick}

    def verified(level: str | None) -> list[int]:
        reports = verify_bundle(tmp_path / "default", small, level=level)
        return [len(report.as_dict()["embeddings"]) for report in reports]

    assert verified(None) == [4, 1]
    assert verified("full") == [4, 4]
    assert verified("quick") == [1, 1]
