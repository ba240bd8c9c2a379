"""Every benchmark runs in both spellings, from anywhere."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROGRAMS = sorted(
    path.stem for path in (ROOT / "benchmarks").glob("*.py") if '__name__ == "__main__"' in path.read_text()
)


def test_there_are_benchmarks() -> None:
    assert {"cpu_latency", "sizes"} <= set(PROGRAMS)


# Each takes ten seconds, most of them to import PyTorch twice.
@pytest.mark.parametrize(
    "name", [name if name == "sizes" else pytest.param(name, marks=pytest.mark.slow) for name in PROGRAMS]
)
def test_a_benchmark_tells_its_use_as_a_module_and_as_a_file(name: str, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    told = []
    for spelling in (["-m", f"benchmarks.{name}"], [str(ROOT / "benchmarks" / f"{name}.py")]):
        done = subprocess.run(
            [sys.executable, *spelling, "--help"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("usage: ")
        told.append(done.stdout.split("\n\n", 1)[1])  # behind the usage, which names the program
    assert told[0] == told[1]


def test_no_benchmark_changes_where_python_looks() -> None:
    for path in (ROOT / "benchmarks").glob("*.py"):
        assert "sys.path" not in path.read_text(), path.name
