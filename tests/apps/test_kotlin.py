"""The Kotlin library compiles without a warning, passes the vectors and agrees with Python on the real models."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from numpy.typing import NDArray

import mobilesam_export
from mobilesam_export.segmenter import Mask, Segmenter
from mobilesam_export.vectors import write_vectors
from reference import load_mobile_sam

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
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sam = load_mobile_sam("demo", IMAGE_SIZE)
    directory = tmp_path_factory.mktemp("android") / "bundle"
    mobilesam_export.export(sam, targets=["tflite"], out_dir=directory, verify=False)
    write_vectors(directory / "vectors", directory, lambda _: sam)
    return directory


def test_the_kotlin_passes_all_vectors(core: Path) -> None:
    report = run_java("mobilesam.VectorsTestKt", VECTORS, jars=(core,))
    assert report.splitlines()[0].startswith("resize: ") and report.count(" cases\n") == 9


def test_calls_queue_fail_cancel_and_close_as_the_host_api_says(core: Path) -> None:
    run_java("mobilesam.SegmenterTestKt", jars=(core,))


def test_bitmaps_are_read_painted_and_cut_out_row_by_row(core: Path, adapter: Path, stubs: Path) -> None:
    run_java("mobilesam.BitmapsTestKt", jars=(core, adapter, stubs, JNA))


def test_the_sample_is_compiled_against_its_own_strings() -> None:
    strings = ElementTree.parse(APP / "sample" / "src" / "main" / "res" / "values" / "strings.xml").getroot()
    stub = (APP / "stubs" / "src" / "mobilesam" / "sample" / "R.java").read_text(encoding="utf-8")
    assert re.findall(r"int (\w+) =", stub) == [string.attrib["name"] for string in strings]


def test_the_readme_shows_the_example_that_is_compiled() -> None:
    source = APP / "sample" / "src" / "main" / "kotlin" / "mobilesam" / "sample" / "Example.kt"
    example = source.read_text(encoding="utf-8").removeprefix("package mobilesam.sample\n\n")
    assert f"```kotlin\n{example}```" in (APP / "README.md").read_text(encoding="utf-8")


def test_the_adapter_gives_the_masks_of_the_python_runtime_and_500_taps_take_no_memory(
    core: Path, adapter: Path, stubs: Path, bundle: Path, tmp_path: Path
) -> None:
    library = Path(pytest.importorskip("ai_edge_litert").__file__).parent / "libLiteRt.so"
    report = run_java(
        "mobilesam.RuntimeTestKt",
        bundle,
        tmp_path,
        jars=(core, adapter, stubs, JNA),
        options=(*FIXED_HEAP, f"-Dmobilesam.liteRt={library}"),
    )
    assert "500 taps" in report
    photos = json.loads((bundle / "vectors" / "vectors.json").read_text())["bundle"]["photos"]

    def stored(array: dict[str, Any]) -> NDArray[Any]:
        values = np.fromfile(bundle / "vectors" / array["file"], np.dtype(array["dtype"]).newbyteorder("<"))
        return values.reshape(array["shape"])

    compared = 0
    with Segmenter.open(bundle, "tflite") as segmenter:
        for photo in photos:
            segmenter.set_image(stored(photo["pixels"]))
            for case in photo["cases"]:
                logits = case["previous_mask"]
                previous = None if logits is None else Mask(np.zeros((1, 1), np.bool_), stored(logits))
                points = [(x, y, label) for x, y, label in case["points"]]
                mask, _ = segmenter.predict(points, case["box"], previous)
                name = f"{photo['name']}-{case['name']}.u8".replace(" ", "_")
                kotlin = np.fromfile(tmp_path / name, np.uint8).reshape(mask.pixels.shape)
                assert np.array_equal(kotlin, mask.pixels.astype(np.uint8)), name
                compared += 1
    assert compared == 24
