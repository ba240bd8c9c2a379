"""The Swift package compiles without a warning, passes the vectors and agrees with Python on the real models."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import mobilesam_export
from mobilesam_export.receipts import read_receipt
from mobilesam_export.vectors import write_vectors
from reference import load_mobile_sam
from tests.apps.python_masks import python_masks

IMAGE_SIZE = 128  # every mask of the parity cases still says something
APP = Path(__file__).parents[2] / "apps" / "ios"
VECTORS = APP.parent / "conformance" / "vectors"

pytestmark = pytest.mark.apps

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def root() -> Path:
    """The system that has Swift: this one, or the folder SWIFT_CHROOT."""
    if sys.platform != "linux":
        pytest.skip("Apple's modules are there: run swift test in apps/ios")
    chroot = os.environ.get("SWIFT_CHROOT")
    if chroot is None:
        if shutil.which("swift") is None:
            pytest.skip("swift is not on PATH and SWIFT_CHROOT is not set; apps/ios/README.md says how to get it")
        return Path("/")
    if not os.path.lexists(Path(chroot) / "usr" / "bin" / "swift"):  # a link from the root of its own system
        pytest.skip(f"SWIFT_CHROOT is {chroot}, which has no usr/bin/swift; apps/ios/README.md says how to make it")
    if os.geteuid() != 0:
        pytest.skip("SWIFT_CHROOT is set, and only root may use it; run as root, or put swift on PATH")
    return Path(chroot)


@pytest.fixture(scope="module")
def work(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that Swift sees, with copies of the package and the vectors: nothing is built in the repository."""
    temporary = tmp_path_factory.mktemp("swift")
    folder = temporary if root == Path("/") else root / "tmp" / temporary.relative_to("/")
    shutil.copytree(APP, folder / "ios", ignore=shutil.ignore_patterns(".build"))
    shutil.copytree(VECTORS, folder / "conformance" / "vectors")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def swift(root: Path, work: Path) -> Run:
    def run(*arguments: str, **environment: Path) -> subprocess.CompletedProcess[str]:
        command = ["swift", *arguments, "--package-path", inside(root, work / "ios")]
        if root != Path("/"):  # swift looks for its own libraries in /proc
            enter = ["unshare", "--mount", "--pid", "--fork", f"--mount-proc={root / 'proc'}", "chroot", str(root)]
            command = [*enter, *command]
        given = {name: inside(root, path) for name, path in environment.items()}
        done = subprocess.run(command, env={**os.environ, **given}, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-8000:]}\n{done.stderr[-8000:]}"
        return done

    return run


def inside(root: Path, path: Path) -> str:
    """A path as Swift sees it."""
    return f"/{path.relative_to(root)}"


@pytest.fixture(scope="module")
def onnxruntime(root: Path, work: Path) -> Path | None:
    """The library of the Python wheel, where Swift sees it; None without its header."""
    headers = root / "usr" / "include" / "onnxruntime"
    if not any(headers.rglob("onnxruntime_c_api.h")):
        return None
    package = Path(pytest.importorskip("onnxruntime").__file__).parent
    return Path(shutil.copy(next((package / "capi").glob("libonnxruntime.so.*")), work))


@pytest.fixture(scope="module")
def bundle(work: Path) -> Path:
    sam = load_mobile_sam("demo", IMAGE_SIZE)
    directory = work / "bundle"
    # Eight slots, as Core ML's decoder has.
    mobilesam_export.export(sam, targets=["onnx"], out_dir=directory, verify=False, max_points=8)
    write_vectors(directory / "vectors", directory, lambda _: sam)
    return directory


@pytest.fixture(scope="module")
def report(swift: Run, work: Path, onnxruntime: Path | None, request: pytest.FixtureRequest) -> str:
    """One build and one run of all tests: they share what takes long."""
    given = {"MOBILESAM_VECTORS": work / "conformance" / "vectors"}
    if onnxruntime is not None:
        (work / "out").mkdir()
        given["MOBILESAM_ONNXRUNTIME"] = onnxruntime
        given["MOBILESAM_BUNDLE"] = request.getfixturevalue("bundle")
        given["MOBILESAM_OUT"] = work / "out"
    # Optimised, and yet open to @testable: a quarter of the time.
    done = swift("test", "-c", "release", "-Xswiftc", "-enable-testing", **given)
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def made(report: str, onnxruntime: Path | None, work: Path) -> Path:
    """What the models themselves have made."""
    if onnxruntime is None:
        pytest.skip("there is no onnxruntime_c_api.h beside Swift; apt-get install libonnxruntime-dev")
    return work / "out"


def test_everything_is_compiled_without_a_warning(report: str) -> None:
    assert "Build complete!" in report
    assert [line for line in report.splitlines() if "warning:" in line] == []


def test_all_tests_in_swift_pass(report: str, onnxruntime: Path | None) -> None:
    passed = set(re.findall(r"Test Case '(\w+\.\w+)' passed", report))
    expected = set()
    for path in (APP / "Tests").rglob("*Tests.swift"):
        if onnxruntime is not None or path.name != "RuntimeTests.swift":
            names = re.findall(r"func (test\w+)\(", path.read_text(encoding="utf-8"))
            expected |= {f"{path.stem}.{name}" for name in names}
    # Foundation on Linux has no decoder of JPEG files.
    assert passed == expected - {"VectorsTests.testJPEGFilesOfAllOrientationsAreReadUpright"}


def test_masks_are_those_of_the_python_runtime(made: Path, bundle: Path) -> None:
    compared = 0
    for case in python_masks(bundle, "onnx"):
        by_swift = np.fromfile(made / f"tensor-{case.file}", np.uint8).reshape(case.pixels.shape)
        assert case.differing(by_swift) == 0, case.label
        compared += 1
    assert compared == 24


def test_the_measure_screen_writes_a_receipt(made: Path) -> None:
    receipt = read_receipt(made / "receipt.json")
    assert receipt["desktop"] and receipt["engine"] == "Core ML" and receipt["cases"] == 24
