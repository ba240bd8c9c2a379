"""The Kotlin library compiles without a warning and passes the vectors on a JVM."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

APP = Path(__file__).parents[2] / "apps" / "android"
VECTORS = APP.parent / "conformance" / "vectors"
COMPILER = APP / "tools" / "node_modules" / "kotlin-compiler"

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
    libraries = (*against, COMPILER / "lib" / "kotlinx-coroutines-core-jvm.jar")
    classpath = os.pathsep.join(map(str, libraries))
    kotlinc = COMPILER / "bin" / "kotlinc"  # npm unpacks it without its executable bit
    run("bash", kotlinc, "-Werror", "-no-reflect", "-jvm-target", "17", "-cp", classpath, "-d", into, *sources)
    return into


def run_java(main: str, *arguments: str | Path, jars: tuple[Path, ...]) -> str:
    libraries = (COMPILER / "lib" / "kotlin-stdlib.jar", COMPILER / "lib" / "kotlinx-coroutines-core-jvm.jar")
    return run("java", "-cp", os.pathsep.join(map(str, (*jars, *libraries))), main, *arguments)


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The core and its tests in one jar, with nothing of Android on the class path."""
    program("java", "default-jdk-headless")
    npm = program("npm", "npm")
    if not COMPILER.is_dir():
        run(npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", directory=APP / "tools")
    sources = APP / "core" / "src"
    return compile_kotlin(tmp_path_factory.mktemp("kotlin") / "core.jar", sources / "main", sources / "test")


def test_the_kotlin_passes_all_vectors(core: Path) -> None:
    report = run_java("mobilesam.VectorsTestKt", VECTORS, jars=(core,))
    assert report.splitlines()[0].startswith("resize: ") and report.count(" cases\n") == 9
