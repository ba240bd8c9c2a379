"""The notebook of ``examples/`` runs as it stands, and its outputs are of the code that stands there."""

import json
from pathlib import Path

import pytest

from mobilesam_export.targets.choices import targets_of

NOTEBOOK = Path(__file__).parent.parent / "examples" / "quickstart.ipynb"


def code_cells() -> list[dict[str, object]]:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def test_the_notebook_was_executed_from_top_to_bottom_without_an_error() -> None:
    cells = code_cells()
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    kinds = [output["output_type"] for cell in cells for output in cell["outputs"]]  # type: ignore[attr-defined]
    assert "error" not in kinds
    pictures = [o for cell in cells for o in cell["outputs"] if "image/png" in o.get("data", {})]  # type: ignore[attr-defined]
    assert len(pictures) == 3, "a tap, a cut-out, everything"


def test_the_notebooks_cells_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for cell in code_cells():
        source = "".join(cell["source"])  # type: ignore[arg-type]
        # A small model frame and grid: the cells are tried here, not the model.
        source = source.replace('load_mobile_sam("demo")', 'load_mobile_sam("demo", image_size=224)')
        exec(source.replace("points_per_side=16", "points_per_side=4"), names)
    assert targets_of("onnx") == tuple(names["bundle"].manifest.targets)  # type: ignore[attr-defined]
    assert names["found"] is not None
