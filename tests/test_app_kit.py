"""``export --with-app-kit``: what a developer gets in one folder, and what is refused before any work."""

import json
import re
from pathlib import Path

import pytest

from mobilesam_export import app_kit, web
from mobilesam_export.bundle.manifest import Manifest
from mobilesam_export.cli import main
from mobilesam_export.errors import ExportError
from mobilesam_export.targets import ALL, named
from reference.mobile_sam import MobileSam
from tests.small_bundle import SIZE, write_bundle


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A page that counts as built."""
    page = tmp_path / "page" / "dist"
    page.mkdir(parents=True)
    (page / "index.html").write_text("<title>page</title>")
    (page / "demo.js.map").write_text("{}")
    monkeypatch.setattr(web, "built_page", lambda: page)
    monkeypatch.setattr(web, "is_built", lambda: True)
    return page


@pytest.fixture
def no_vectors_of_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """The small bundle has no model, so that its vectors are one file."""

    def write(directory: Path, bundle: Path, load: object) -> Path:
        directory.mkdir(parents=True)
        (directory / "vectors.json").write_text(Manifest.read(bundle).weights.sha256)
        return directory / "vectors.json"

    monkeypatch.setattr("mobilesam_export.vectors.write_vectors", write)


def kit_of(bundle: Path, *targets: str) -> Path:
    return app_kit.write_app_kit(bundle, [named(target) for target in targets], MobileSam())


def test_every_folder_of_host_code_belongs_to_a_target_and_each_of_a_plain_install_has_one() -> None:
    claimed = {host for target in ALL for host in target.hosts}
    assert claimed == {host.name for host in app_kit.HOSTS}
    assert {target.name for target in ALL if target.hosts} >= {"onnx", "coreml", "tflite"}


@pytest.mark.usefixtures("page", "no_vectors_of_a_model")
def test_the_kit_holds_host_code_models_and_vectors_of_the_chosen_targets(tmp_path: Path) -> None:
    bundle = tmp_path / "dist"
    manifest = write_bundle(bundle, "tflite")
    kit = kit_of(bundle, "tflite")
    assert sorted(path.name for path in kit.iterdir()) == ["README.md", "android", "web"]
    assets = kit / "android" / "sample" / "src" / "main" / "assets" / "mobilesam"
    for models in (assets, kit / "web" / "bundle"):
        assert Manifest.read(models) == manifest
        for entry in manifest.targets.values():
            entry.check_files(models)
    for vectors in (assets / "vectors", kit / "web" / "vectors"):
        assert (vectors / "vectors.json").read_text() == manifest.weights.sha256
    assert (kit / "android" / "core" / "src" / "main" / "kotlin" / "mobilesam" / "Segmenter.kt").is_file()
    assert (kit / "web" / "index.html").is_file()
    assert (kit / "web" / "package" / "src" / "index.ts").is_file()
    assert not list(kit.rglob("*.map")) and not list(kit.rglob("stubs")) and not list(kit.rglob("node_modules"))
    readme = (kit / "README.md").read_text()
    assert f"S = {SIZE}" in readme and "a notice" in readme
    assert len(readme.splitlines()) <= 12
    assert not list(bundle.glob(".app-kit*")), "the place where it was made is gone"


@pytest.mark.usefixtures("no_vectors_of_a_model")
def test_xcode_gets_the_packages_by_name_and_a_swift_package_that_is_whole(tmp_path: Path) -> None:
    bundle = tmp_path / "dist"
    write_bundle(bundle, "coreml")
    kit = kit_of(bundle, "coreml") / "ios"
    for part in ("encoder", "decoder"):
        name = f"mobile_sam_{part}.coreml"
        assert (kit / "Sample" / "Sample" / name).read_bytes() == (bundle / "coreml" / name).read_bytes()
    assert (kit / "vectors" / "vectors.json").is_file()
    declared = re.findall(r'path: "([^"\\]+)"', (kit / "Package.swift").read_text())
    named = re.findall(r'\.(?:target|testTarget)\(\s*name: "([^"]+)"', (kit / "Package.swift").read_text())
    assert named
    for folder in declared:
        assert (kit / folder).is_dir(), f"Package.swift names {folder}"
    for name in set(named) & {"MobileSam", "MobileSamCoreML", "MobileSamUI", "MobileSamTests"}:
        assert (kit / "Sources" / name).is_dir() or (kit / "Tests" / name).is_dir()


@pytest.mark.usefixtures("page", "no_vectors_of_a_model")
def test_a_manifest_in_the_kit_names_only_what_lies_beside_it(tmp_path: Path) -> None:
    bundle = tmp_path / "dist"
    write_bundle(bundle, "tflite")
    both = Manifest.read(bundle)
    write_bundle(tmp_path / "other", "onnx")
    other = Manifest.read(tmp_path / "other")
    (tmp_path / "other" / "onnx").rename(bundle / "onnx")
    Manifest(both.weights, both.image_size, {**both.targets, **other.targets}).write(bundle)
    kit = kit_of(bundle, "onnx", "tflite")
    android = json.loads((kit / "android/sample/src/main/assets/mobilesam/manifest.json").read_text())
    page = json.loads((kit / "web/bundle/manifest.json").read_text())
    assert list(android["targets"]) == ["tflite"]
    assert sorted(page["targets"]) == ["onnx", "tflite"]


@pytest.mark.usefixtures("page", "no_vectors_of_a_model")
def test_a_kit_that_is_there_is_replaced_whole(tmp_path: Path) -> None:
    bundle = tmp_path / "dist"
    write_bundle(bundle, "tflite")
    (bundle / "app-kit" / "ios").mkdir(parents=True)
    kit = kit_of(bundle, "tflite")
    assert not (kit / "ios").exists()


def test_a_kit_that_fails_leaves_the_one_that_is_there(
    tmp_path: Path, page: Path, no_vectors_of_a_model: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "dist"
    write_bundle(bundle, "tflite")
    (bundle / "app-kit").mkdir()
    (bundle / "app-kit" / "mine.txt").write_text("mine")

    def fail() -> Path:
        raise ExportError("npm failed")

    monkeypatch.setattr(web, "built_page", fail)
    with pytest.raises(ExportError, match="npm failed"):
        kit_of(bundle, "tflite")
    assert [path.name for path in (bundle / "app-kit").iterdir()] == ["mine.txt"]
    assert not list(bundle.glob(".app-kit*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "onnx", "--official-decoder"], "leave out --official-decoder or --with-app-kit"),
        (["--target", "onnx", "--single-mask"], "leave out --single-mask or --with-app-kit"),
    ],
)
def test_files_that_host_code_does_not_read_are_refused_before_any_work(
    arguments: list[str], message: str, tmp_path: Path, page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["export", "--with-app-kit", "--out", str(tmp_path / "dist"), *arguments])
    assert code == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "dist").exists()


def test_a_kit_that_is_there_needs_overwrite(tmp_path: Path, page: Path) -> None:
    (tmp_path / "app-kit").mkdir()
    with pytest.raises(ExportError, match="replace it: --overwrite"):
        app_kit.refuse([named("tflite")], [], tmp_path, overwrite=False)
    app_kit.refuse([named("tflite")], [], tmp_path, overwrite=True)


def test_without_npm_a_page_that_is_not_built_is_told_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "is_built", lambda: False)
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(ExportError, match=r"install Node\.js"):
        app_kit.refuse([named("tflite")], [], tmp_path, overwrite=False)


def test_a_clone_is_needed(tmp_path: Path, page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_kit, "APPS", tmp_path / "missing")
    with pytest.raises(ExportError, match="clone the repository"):
        app_kit.refuse([named("tflite")], [], tmp_path, overwrite=False)
