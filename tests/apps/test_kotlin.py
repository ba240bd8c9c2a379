"""The Kotlin library compiles without a warning, passes the vectors and agrees with Python on the real models."""

import functools
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

import mobilesam_export
from mobilesam_export import cli
from mobilesam_export.options import Value
from mobilesam_export.receipts import read_receipt
from mobilesam_export.vectors import write_vectors
from reference import MobileSam, load_mobile_sam
from tests.apps.python_masks import python_masks

IMAGE_SIZE = 128  # 10 ms a tap, and every mask of the parity cases still says something
APP = Path(__file__).parents[2] / "apps" / "android"
VECTORS = APP.parent / "conformance" / "vectors"
COMPILER = APP / "tools" / "node_modules" / "kotlin-compiler"
COROUTINES = COMPILER / "lib" / "kotlinx-coroutines-core-jvm.jar"
JNA = Path("/usr/share/java/jna.jar")
# A heap of one size from the start: what grows is native memory.
FIXED_HEAP = ("-Xms192m", "-Xmx192m", "-XX:+AlwaysPreTouch", "-XX:+UseSerialGC")

pytestmark = pytest.mark.apps


def program(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed; apt-get install {package}")
    return found


def run(*command: str | Path, directory: Path = APP) -> str:
    done = subprocess.run(list(map(str, command)), cwd=directory, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
    return done.stdout


def compile_kotlin(into: Path, *sources: Path, against: tuple[Path, ...] = ()) -> Path:
    """A jar of the sources; a warning is an error."""
    classpath = os.pathsep.join(map(str, (*against, COROUTINES)))
    kotlinc = COMPILER / "bin" / "kotlinc"  # npm unpacks it without its executable bit
    run("bash", kotlinc, "-Werror", "-no-reflect", "-jvm-target", "17", "-cp", classpath, "-d", into, *sources)
    return into


def run_java(main: str, *arguments: str | Path, jars: tuple[Path, ...], options: tuple[str, ...] = ()) -> str:
    libraries = (*jars, COMPILER / "lib" / "kotlin-stdlib.jar", COROUTINES)
    return run("java", *options, "-cp", os.pathsep.join(map(str, libraries)), main, *arguments)


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The core and its tests in one jar, with nothing of Android on the class path."""
    program("java", "default-jdk-headless")
    npm = program("npm", "npm")
    if not COMPILER.is_dir():
        run(npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", directory=APP / "tools")
    sources = APP / "core" / "src"
    return compile_kotlin(tmp_path_factory.mktemp("kotlin") / "core.jar", sources / "main", sources / "test")


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Android's classes, as far as the library and the sample use them, without what they do."""
    into = tmp_path_factory.mktemp("stubs")
    javac = program("javac", "default-jdk-headless")
    run(javac, "--release", "17", "-Werror", "-d", into, *sorted((APP / "stubs" / "src").rglob("*.java")))
    return into


@pytest.fixture(scope="module")
def adapter(core: Path, stubs: Path) -> Path:
    """The LiteRT adapter and the sample app, and LiteRT's class names over the Python wheel's library."""
    if not JNA.is_file():
        pytest.skip(f"{JNA} is not there; apt-get install libjna-java")
    sources = [APP / folder / "src" for folder in ("litert", "sample", "shim")]
    return compile_kotlin(core.with_name("adapter.jar"), *sources, against=(core, stubs, JNA))


@pytest.fixture(scope="module")
def sam() -> MobileSam:
    return load_mobile_sam("demo", IMAGE_SIZE)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory, sam: MobileSam) -> Callable[[str], Path]:
    """By name, each with its vectors, exported when it is asked for."""
    options: dict[str, dict[str, Value]] = {
        "two files": {},
        "one file, 8-bit pixels": {"combined": True, "image_input": "uint8"},
    }

    @functools.cache
    def exported(name: str) -> Path:
        directory = tmp_path_factory.mktemp("android") / "bundle"
        mobilesam_export.export(sam, targets=["tflite"], out_dir=directory, verify=False, **options[name])
        write_vectors(directory / "vectors", directory, lambda _: sam)
        return directory

    return exported


@pytest.fixture(scope="module")
def runtime(core: Path, adapter: Path, stubs: Path) -> Callable[..., str]:
    """Run one of the shim's programs over the Python wheel's library."""
    library = Path(pytest.importorskip("ai_edge_litert").__file__).parent / "libLiteRt.so"
    version = importlib.metadata.version("ai-edge-litert")
    options = (*FIXED_HEAP, f"-Dmobilesam.liteRt={library}", f"-Dmobilesam.liteRtVersion={version}")

    def run_program(main: str, *arguments: Path) -> str:
        return run_java(f"mobilesam.{main}", *arguments, jars=(core, adapter, stubs, JNA), options=options)

    return run_program


def test_the_kotlin_passes_all_vectors(core: Path) -> None:
    report = run_java("mobilesam.VectorsTestKt", VECTORS, jars=(core,))
    assert report.splitlines()[0].startswith("resize: ") and report.count(" cases\n") == 9


def test_calls_queue_fail_cancel_and_close_as_the_host_api_says(core: Path) -> None:
    run_java("mobilesam.SegmenterTestKt", jars=(core,))


def test_a_receipt_is_measured_and_other_vectors_are_refused(core: Path) -> None:
    run_java("mobilesam.MeasureTestKt", jars=(core,))


def test_photos_come_upright_and_what_is_none_or_too_large_is_refused(core: Path, adapter: Path, stubs: Path) -> None:
    report = run_java("mobilesam.PhotosTestKt", VECTORS, jars=(core, adapter, stubs, JNA))
    assert len(report.splitlines()) == 6


def test_bitmaps_are_read_painted_and_cut_out_row_by_row(core: Path, adapter: Path, stubs: Path) -> None:
    run_java("mobilesam.BitmapsTestKt", jars=(core, adapter, stubs, JNA))


def test_the_sample_is_compiled_against_its_own_strings() -> None:
    strings = ElementTree.parse(APP / "sample" / "src" / "main" / "res" / "values" / "strings.xml").getroot()
    stub = (APP / "stubs" / "src" / "mobilesam" / "sample" / "R.java").read_text(encoding="utf-8")
    assert re.findall(r"int (\w+) =", stub) == [string.attrib["name"] for string in strings]


def test_the_screens_of_the_manifest_are_those_that_are_compiled() -> None:
    sample = APP / "sample" / "src" / "main"
    name = "{http://schemas.android.com/apk/res/android}name"
    screens = [screen.attrib[name] for screen in ElementTree.parse(sample / "AndroidManifest.xml").iter("activity")]
    assert sorted(screens) == sorted(f".{path.stem}" for path in sample.rglob("*Activity.kt"))


@pytest.mark.parametrize("name", ["two files", "one file, 8-bit pixels"])
def test_the_adapter_gives_the_masks_of_the_python_runtime_and_a_receipt(
    runtime: Callable[..., str], bundles: Callable[[str], Path], name: str, tmp_path: Path
) -> None:
    bundle = bundles(name)
    assert len(list((bundle / "tflite").glob("*.tflite"))) == (2 if name == "two files" else 1)
    runtime("RuntimeTestKt", bundle, tmp_path)
    ious = {}
    for case in python_masks(bundle, "tflite"):
        kotlin = np.fromfile(tmp_path / case.file, np.uint8).reshape(case.pixels.shape)
        assert case.differing(kotlin) == 0, case.label
        union = np.count_nonzero(kotlin | case.expected)
        ious[case.label] = np.count_nonzero(kotlin & case.expected) / union if union else 1.0
    assert len(ious) == 24

    receipt = read_receipt(tmp_path / "receipt.json")
    assert receipt["desktop"] is True and receipt["cases"] == 24 and receipt["image_size"] == IMAGE_SIZE
    assert receipt["engine"] == f"LiteRT {importlib.metadata.version('ai-edge-litert')}"
    assert receipt["compute_unit"] == "CPU encoder, CPU decoder" and receipt["precision"] == "float32"
    assert receipt["weights_sha256"] == json.loads((bundle / "manifest.json").read_text())["weights"]["sha256"]
    assert receipt["lowest_mask_iou"] == pytest.approx(min(ious.values()), abs=5.1e-6)  # it has five digits
    assert ious[receipt["worst_case"]] == min(ious.values())
    assert receipt["encode_ms"]["runs"] == receipt["predict_ms"]["runs"] == 20
    assert cli.main(["receipts", str(tmp_path / "receipt.json")]) == 0


def test_500_taps_take_no_memory(runtime: Callable[..., str], bundles: Callable[[str], Path]) -> None:
    assert runtime("MemoryTestKt", bundles("two files")).startswith("500 taps: ")


def test_damaged_files_a_lost_gpu_and_a_destroyed_screen_leave_nothing_open(
    runtime: Callable[..., str], bundles: Callable[[str], Path]
) -> None:
    codes = [line.split(":")[0] for line in runtime("FaultsTestKt", bundles("two files")).splitlines()]
    assert codes == ["model_file", "contract_version", *["model_file"] * 3, "engine", "engine"]
