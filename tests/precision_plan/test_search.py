"""The search on losses that are known: which precision, which exceptions, how many trials, and what an error tells."""

from collections.abc import Mapping, Sequence

import pytest

from mobilesam_export.errors import ExportError
from mobilesam_export.precision_plan.search import Trial, search

MB = 10**6


class KnownLosses:
    """A bench on which each rounded part costs a known loss of mask IoU, independent of the others."""

    def __init__(self, losses: Mapping[str, Mapping[str, float]], sizes: Mapping[str, int], gate: float) -> None:
        self.losses, self.sizes, self.gate = losses, sizes, gate
        self.measured: list[tuple[str, tuple[str, ...]]] = []

    def parts(self, precision: str) -> Sequence[str]:
        return tuple(self.losses[precision])

    def size(self, precision: str) -> int:
        return self.sizes[precision]

    def measure(self, precision: str, exceptions: Sequence[str], what: str) -> Trial:
        self.measured.append((precision, tuple(exceptions)))
        loss = sum(cost**2 for part, cost in self.losses[precision].items() if part not in exceptions)
        lowest = 1 - loss**0.5
        misses = lowest < self.gate
        size = self.sizes[precision] + MB * len(exceptions)
        worst = "coffee, box" if misses else None
        return Trial(precision, tuple(exceptions), lowest, lowest, loss, int(misses), worst, size)


LOSSES = {"a": 0.001, "b": 0.04, "c": 0.002, "d": 0.02, "e": 0.001, "f": 0.001, "g": 0.002, "h": 0.001}


def test_the_worst_parts_alone_become_exceptions_and_no_more_than_the_gate_needs() -> None:
    bench = KnownLosses({"int8": LOSSES}, {"int8": 10 * MB}, 0.99)
    found = search("onnx", ("int8",), bench, smallest=True)
    assert found.trial.exceptions == ("b", "d")
    assert found.trial.holds
    assert [part for part, _ in found.costs[:4]] == ["b", "d", "c", "g"]
    assert found.costs[0][1] == pytest.approx(0.04**2)
    # The whole, each part alone, one exception, two: no other trial is needed.
    assert len(bench.measured) == 1 + len(LOSSES) + 2


def test_the_gap_between_too_few_and_enough_exceptions_is_halved() -> None:
    losses = {f"part{i}": 0.02 if i < 5 else 1e-4 for i in range(16)}
    bench = KnownLosses({"int8": losses}, {"int8": 10 * MB}, 0.99)
    assert len(search("onnx", ("int8",), bench, smallest=True).trial.exceptions) == 5
    assert [len(exceptions) for _, exceptions in bench.measured[17:]] == [1, 2, 4, 8, 6, 5]


def test_a_precision_that_holds_as_it_is_is_not_taken_apart() -> None:
    bench = KnownLosses({"int8": {"a": 0.001, "b": 0.001}}, {"int8": MB}, 0.99)
    found = search("onnx", ("int8", "float32"), bench, smallest=True)
    assert (found.trial.exceptions, found.costs) == ((), ())
    assert bench.measured == [("int8", ())]


def test_a_precision_that_needs_half_its_parts_is_left_for_the_next() -> None:
    losses = {"int8": {f"part{i}": 0.05 for i in range(4)}, "float16": {"a": 0.001, "b": 0.001}}
    bench = KnownLosses(losses, {"int8": MB, "float16": 9 * MB}, 0.99)
    found = search("onnx", ("int8", "float16"), bench, smallest=True)
    assert (found.trial.precision, found.trial.exceptions) == ("float16", ())
    assert [tried.trial.precision for tried in found.tried] == ["int8", "float16"]


def test_a_later_precision_wins_where_exceptions_made_the_first_one_larger() -> None:
    losses = {"float16": LOSSES, "int8": {"a": 0.001, "b": 0.001}}
    sizes = {"float16": 10 * MB, "int8": 11 * MB}  # two exceptions make 12 of the first
    found = search("onnx", ("float16", "int8"), KnownLosses(losses, sizes, 0.99), smallest=True)
    assert found.trial.precision == "int8"
    faster = search("onnx", ("float16", "int8"), KnownLosses(losses, sizes, 0.99), smallest=False)
    assert (faster.trial.precision, faster.trial.exceptions) == ("float16", ("b", "d"))


def test_where_nothing_holds_the_error_tells_what_was_reached_and_what_costs_most() -> None:
    losses = {"int8": {f"part{i}": 0.01 + i / 1000 for i in range(8)}, "float32": {}}
    bench = KnownLosses({**losses, "float32": {"rounding": 0.001}}, {"int8": MB, "float32": 9 * MB}, 0.9999)
    with pytest.raises(ExportError) as refusal:
        search("onnx", ("int8", "float32"), bench, smallest=True)
    lines = str(refusal.value).splitlines()
    assert lines[0] == "no plan of onnx holds on the calibration photos:"
    assert lines[1].startswith("  int8 with 4 parts exact: lowest mask IoU 0.97")
    assert lines[2] == "    what costs most: part7, part6, part5, part4, part3"
    assert lines[3] == "  float32: lowest mask IoU 0.9990; missed: coffee, box"
    assert lines[-1] == "next: --min-iou 0.999 or a larger --image-size"
