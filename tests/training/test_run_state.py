"""What a run keeps: whole or refused in one line. A step's result must not depend on how threads happen to run."""

import io
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reference.training.run_state import LossLog, load_state, read_checkpoint, read_losses, repeatable, save_state

CPU = torch.device("cpu")


def test_two_threads_find_the_same_gradient_of_shared_values_every_time() -> None:
    """TinyViT's attention biases are shared: 196 x 196 pixel pairs read 196 of them. Here a million read eight.

    A race shows only while two cores are free: then ten runs had four to eight different results.
    """
    generator = torch.Generator().manual_seed(0)
    values = torch.zeros(1, 8, requires_grad=True)
    readers = torch.randint(0, 8, (1_000_000,), generator=generator)
    gradient = torch.randn(1, 1_000_000, generator=generator)
    torch.set_num_threads(2)
    found: set[bytes] = set()
    for _ in range(10):
        values.grad = None
        with repeatable(CPU):
            values[:, readers].backward(gradient)
        assert values.grad is not None
        found.add(values.grad.numpy().tobytes())
    assert len(found) == 1


def test_torch_is_left_as_it_was() -> None:
    assert not torch.are_deterministic_algorithms_enabled()
    with repeatable(CPU):
        assert torch.are_deterministic_algorithms_enabled()
    with repeatable(torch.device("cuda")):
        assert not torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    with repeatable(torch.device("cuda")):
        assert torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)


def saved(folder: Path, step: int) -> tuple[Path, torch.nn.Module, torch.optim.Optimizer]:
    """A checkpoint after one step of a small model."""
    torch.manual_seed(step)
    model = torch.nn.Linear(3, 2)
    optimiser = torch.optim.AdamW(model.parameters())
    with repeatable(CPU):
        model(torch.ones(1, 3)).sum().backward()
        optimiser.step()
    save_state(folder / "last.pt", model, optimiser, {"seed": 0}, step)
    return folder / "last.pt", model, optimiser


def test_the_checkpoint_before_the_last_one_stays_and_can_take_its_place(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    path, model, optimiser = saved(tmp_path, 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last.pt", "last.pt.old"]
    assert load_state(path, model, optimiser, {"seed": 0}) == 2
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"last.pt is damaged .*; rename last\.pt\.old to last\.pt to go on from"):
        load_state(path, model, optimiser, {"seed": 0})
    (tmp_path / "last.pt.old").rename(path)
    assert load_state(path, model, optimiser, {"seed": 0}) == 1
    torch.manual_seed(1)
    assert not torch.equal(model.weight, torch.nn.Linear(3, 2).weight)


def test_a_damaged_checkpoint_is_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    path, model, optimiser = saved(tmp_path, 1)
    whole = path.read_bytes()
    state = torch.load(path, weights_only=True)
    at = whole.index(model.weight.detach().numpy().tobytes())

    def written(**changes: Any) -> bytes:
        torch.save({**state, **changes}, buffer := io.BytesIO())
        return buffer.getvalue()

    def compressed() -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("archive/data.pkl", b"\0" * 10**6)
        return buffer.getvalue()

    cases = {
        "empty": b"",
        "truncated": whole[:-300],
        "garbage": bytes(range(256)) * 20,
        "one flipped bit": whole[:at] + bytes([whole[at] ^ 64]) + whole[at + 1 :],
        "compressed": compressed(),
        "no checkpoint": written(step="3"),
        "a list": written(model=[1]),
        "NaN": written(model={**state["model"], "weight": torch.full((2, 3), float("nan"))}),
        "another model": written(model={"weight": torch.zeros(5, 5)}),
        "no optimiser": written(optimiser={"state": 3}),
    }
    for name, data in cases.items():
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"last\.pt is damaged \(.+\); delete last\.pt to start again") as failed:
            load_state(path, model, optimiser, {})
        assert "\n" not in str(failed.value), name
        assert name != "compressed" or "(compressed, as no checkpoint is)" in str(failed.value)
    path.unlink()
    assert load_state(path, model, optimiser, {}) == 0
    path.mkdir()
    with pytest.raises(ValueError, match="is a folder, expected a checkpoint"):
        load_state(path, model, optimiser, {})


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])  # 2 ms each
@given(changes=st.lists(st.tuples(st.integers(0, 10**4), st.binary(min_size=1, max_size=9)), min_size=1, max_size=3))
def test_whatever_is_changed_in_a_checkpoint_it_loads_or_is_one_line(
    tmp_path: Path, changes: list[tuple[int, bytes]]
) -> None:
    if not (tmp_path / "whole.pt").exists():
        saved(tmp_path, 1)[0].rename(tmp_path / "whole.pt")
    data = bytearray((tmp_path / "whole.pt").read_bytes())
    for at, new in changes:
        data[at % len(data) : at % len(data) + len(new)] = new
    (tmp_path / "last.pt").write_bytes(data)
    try:
        assert read_checkpoint(tmp_path / "last.pt")["step"] == 1
    except ValueError as error:
        assert "is damaged" in str(error) and "\n" not in str(error)


def test_a_cut_or_damaged_loss_file_costs_its_lines_and_not_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "losses.csv"
    lines = ["step,loss,learning_rate", "1,0.5,0.1", "2,0.4,0.1", "3,nan,0.1", "x,1,2", "4,0.3", "5,0.2,0.1", "7,0.1,1"]
    path.write_bytes(("\n".join(lines) + "\n6,0.1").encode() + b"\xff\0")
    assert read_losses(path, 6) == [(1, 0.5, 0.1), (2, 0.4, 0.1), (5, 0.2, 0.1)]
    log = LossLog(tmp_path, 8, 4, 6, quiet=False)
    assert "losses.csv lacks 3 of 6 steps; the training goes on, the curve has a gap" in capsys.readouterr().out
    log.add(7, 0.05, 0.1, every=1)
    assert path.read_text().split() == ["step,loss,learning_rate", "1,0.5,0.1", "2,0.4,0.1", "5,0.2,0.1", "7,0.05,0.1"]
    for data in (b"", b"\0" * 1000, "step,loss".encode("utf-16")):
        path.write_bytes(data)
        assert read_losses(path, 6) == []
