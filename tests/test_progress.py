"""People who wait are told about how long it takes."""

import io
import time
from collections.abc import Iterator

import pytest
from rich.console import Console

from mobilesam_export import estimates
from mobilesam_export.measured_sizes import Cell, MeasuredSizes
from mobilesam_export.progress import ConsoleProgress, about
from mobilesam_export.targets import ALL, named


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    yield now


def test_the_first_step_tells_how_fast_the_machine_is(clock: list[float]) -> None:
    said = io.StringIO()
    progress = ConsoleProgress(Console(file=said, width=200))
    with progress.step("weights"):
        clock[0] += 1
    with progress.step("reference answers", 20):
        clock[0] += 60  # three times slower than the machine of the estimates
    with progress.step("onnx float32: write", 4):
        clock[0] += 11
    with progress.step("coreml float16: verify", 50):
        clock[0] += 140
    lines = [" ".join(line.split()) for line in said.getvalue().splitlines()]
    assert lines == [
        "✓ weights 1.0 s",
        "… reference answers, about 20 s",
        "✓ reference answers 60.0 s",
        "✓ onnx float32: write 11.0 s",  # expected in 12 s: too short to be announced
        "… coreml float16: verify, about 2 min",
        "✓ coreml float16: verify 140.0 s",
    ]


def test_a_spinner_shows_the_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    shown: list[str] = []
    status = console.status

    def remember(text: str) -> object:
        shown.append(text)
        return status(text)

    monkeypatch.setattr(console, "status", remember)
    with ConsoleProgress(console).step("tflite float32: write", 31):
        pass
    assert shown == ["tflite float32: write, about 30 s"]


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.2, "about 1 s"), (7.4, "about 7 s"), (33, "about 35 s"), (89, "about 90 s"), (100, "about 2 min"),
     (605, "about 10 min")],
)  # fmt: skip
def test_an_estimate_is_no_more_precise_than_it_is(seconds: float, told: str) -> None:
    assert about(seconds) == told


def test_every_step_of_every_target_has_an_estimate_that_grows_with_size_and_photos() -> None:
    for target in ALL:
        assert {"write", "verify"} <= target.seconds.keys() <= {"write", "report", "verify"}
        assert all(cost.at(1024, 4) >= cost.at(512, 1) > 0 for cost in target.seconds.values())
    assert estimates.REFERENCE.at(1024, 4) > estimates.REFERENCE.at(512, 4) > estimates.REFERENCE.at(512, 1) > 0


def test_what_was_measured_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = Cell("coreml", "w8a8", 512, 0.95, 0.98, 0, None, None, {"write": 40.0, "verify": 8.0})
    table = MeasuredSizes("demo", "any", "a test", (cell,))
    monkeypatch.setattr(MeasuredSizes, "read", classmethod(lambda cls: table))
    assert estimates.seconds_of("write", "coreml", "w8a8", 512) == 40
    assert estimates.seconds_of("verify", "coreml", "w8a8", 512, 1) == 2  # measured on four photos
    assert estimates.seconds_of("verify", "coreml", "w8a8", 512, 8) == 16
    assert estimates.seconds_of("report", "coreml", "w8a8", 512) == named("coreml").seconds["report"].at(512)
    assert estimates.seconds_of("write", "coreml", "w8a8", 256) == named("coreml").seconds["write"].at(256)


def test_a_long_step_says_in_a_log_now_and_then_what_it_is_at(clock: list[float]) -> None:
    said = io.StringIO()
    with ConsoleProgress(Console(file=said, width=200)).step("measure") as step:
        for _ in range(100):
            clock[0] += 1
            step.update(f"{clock[0]:g} of 100")
    assert said.getvalue().splitlines()[:-1] == [f"… measure: {at} of 100" for at in (30, 60, 90)]
