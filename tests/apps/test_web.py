"""The TypeScript package passes the vectors, and the demo page agrees with PyTorch in a headless Chromium."""

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import mobilesam_export
from mobilesam_export.receipts import read_receipt
from mobilesam_export.vectors import write_vectors
from mobilesam_export.web import APP, open_server
from reference import Predictor, load_mobile_sam
from reference.everything import EverythingOptions, segment_everything
from reference.images import read_image

pytestmark = pytest.mark.apps

IMAGE_SIZE = 128  # 0.1 s a photo in WebAssembly, and every mask of the parity cases still says something
# Small and permissive, so that the demonstration weights find a dozen masks at this size.
EVERYTHING = {"pointsPerSide": 5, "predIouThresh": 0.4, "stabilityScoreThresh": 0.7}
PHOTOS = Path(mobilesam_export.__file__).parent / "photos"


def program(*names: str) -> str:
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"{' or '.join(names)} is not installed")
    return found


def run(*command: str, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command, cwd=APP, env={**os.environ, **(environment or {})}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def page() -> Path:
    """The page, built from the present sources."""
    npm = program("npm")
    if not (APP / "node_modules").is_dir():
        run(npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund")
    run(npm, "run", "build")
    return APP / "dist"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both browser targets of the bundled weights, with vectors, and what everything mode finds in PyTorch."""
    sam = load_mobile_sam("demo", IMAGE_SIZE)
    directory = tmp_path_factory.mktemp("web") / "bundle"
    mobilesam_export.export(sam, targets=["onnx", "tflite"], out_dir=directory, verify=False)
    write_vectors(directory / "vectors", directory, lambda _: sam)
    found = segment_everything(
        Predictor(sam),
        read_image(PHOTOS / "coffee.png"),
        EverythingOptions(
            points_per_side=int(EVERYTHING["pointsPerSide"]),
            pred_iou_thresh=EVERYTHING["predIouThresh"],
            stability_score_thresh=EVERYTHING["stabilityScoreThresh"],
        ),
    )
    assert len(found) >= 5
    masks = [
        {"box": m.box, "area": m.area, "score": m.iou_prediction, "stability": m.stability_score, "point": m.point}
        for m in found
    ]
    (directory / "vectors" / "everything.json").write_text(json.dumps({"options": EVERYTHING, "masks": masks}))
    return directory


@pytest.fixture(scope="module")
def address(bundle: Path, page: Path) -> Iterator[str]:
    with open_server(bundle, port=0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://localhost:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def test_the_typescript_passes_all_vectors() -> None:
    npm = program("npm")
    if not (APP / "node_modules").is_dir():
        run(npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund")
    report = run(npm, "test")
    assert "# fail 0" in report and "# pass 0" not in report


def test_the_readme_shows_the_example_that_is_compiled() -> None:
    example = (APP / "example.ts").read_text(encoding="utf-8").replace('"./src/index.js"', '"mobilesam"')
    assert f"```ts\n{example}```" in (APP / "README.md").read_text(encoding="utf-8")
    assert "example.ts" in (APP / "tsconfig.json").read_text(encoding="utf-8")


def test_the_page_in_chromium(address: str, tmp_path: Path) -> None:
    chromium = program("chromium", "chromium-browser", "google-chrome")
    report = run(
        program("node"),
        "--test",
        "test/browser.test.mjs",
        environment={"MOBILESAM_URL": address, "MOBILESAM_SHOTS": str(tmp_path), "CHROMIUM": chromium},
    )
    assert "# fail 0" in report and "# skipped 0" in report
    receipt = read_receipt(tmp_path / "receipt.json")
    assert receipt["desktop"] and receipt["engine"].startswith("LiteRT.js") and receipt["cases"] == 24
