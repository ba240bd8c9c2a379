"""The ONNX files give the reference's masks in other engines too, by the gates that ONNX Runtime is held to."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.engines import PACKAGES
from mobilesam_export.bundle.predictor import BundlePredictor
from mobilesam_export.contract import PointLabel
from mobilesam_export.parity.cases import PHOTOS, PromptKind
from mobilesam_export.parity.compare import Answers, ask
from mobilesam_export.parity.gates import FLOAT16, FLOAT32
from mobilesam_export.parity.report import judge
from mobilesam_export.targets.onnx.write import write
from reference import Predictor, load_mobile_sam
from reference.mobile_sam import MobileSam
from tests.engines import run
from tests.reference_runtime import Floats, ReferenceRuntime

COFFEE = (PHOTOS[1],)  # not square: with padding
SLOTS = 8
GATES = {
    "opencv": FLOAT32,
    "openvino": FLOAT32,
    "mnn": FLOAT16,  # it puts a GELU of its own for the file's, up to 5e-4 beside the exact one: as much as float16
}


class Recorder(ReferenceRuntime):
    """The reference, which writes down what it is asked."""

    max_points = SLOTS

    def __init__(self, sam: MobileSam) -> None:
        super().__init__(sam)
        self.feeds: dict[str, list[Floats]] = {}

    def encode(self, image: Floats) -> Floats:
        self.feeds["image"] = [image]
        return super().encode(image)

    def decode(
        self, image_embeddings: Floats, point_coords: Floats, point_labels: Floats, mask_input: Floats | None
    ) -> tuple[Floats, Floats]:
        free, low = SLOTS - point_labels.shape[1], self.image_size // 4
        asked = {
            "point_coords": np.pad(point_coords, ((0, 0), (0, free), (0, 0))),
            "point_labels": np.pad(point_labels, ((0, 0), (0, free)), constant_values=PointLabel.ABSENT),
            "mask_input": np.zeros((1, 1, low, low)) if mask_input is None else mask_input,
            "has_mask_input": np.full(1, mask_input is not None),
        }
        for name, value in asked.items():
            self.feeds.setdefault(name, []).append(value.astype(np.float32))
        return super().decode(image_embeddings, point_coords, point_labels, mask_input)


class Replay(ReferenceRuntime):
    """Gives an engine's answers in the order in which they were recorded."""

    max_points = SLOTS

    def __init__(self, sam: MobileSam, answers: dict[str, Floats]) -> None:
        super().__init__(sam)
        self.answers, self.next = answers, 0

    def encode(self, image: Floats) -> Floats:
        return self.answers["image_embeddings"]

    def decode(self, *prompt: Floats | None) -> tuple[Floats, Floats]:
        row = slice(self.next, self.next + 1)
        self.next += 1
        return self.answers["low_res_masks"][row], self.answers["iou_predictions"][row]


def check(engine: str, sam: MobileSam, files: list[Path], expected: Answers, folder: Path) -> None:
    """Every kind of prompt on one photo, in the engine, by the gates."""
    recorder = Recorder(sam)
    ask(BundlePredictor(recorder, "weights"), COFFEE, expected)
    feeds, answers = folder / "feeds.npz", folder / f"{engine}.npz"
    np.savez(feeds, **{name: np.concatenate(values) for name, values in recorder.feeds.items()})
    command = [sys.executable, run.__file__, engine, *map(str, files), str(feeds), str(answers)]
    child = subprocess.run(command, capture_output=True, text=True)
    assert child.returncode == 0, f"{engine} ended with {child.returncode}: {child.stderr[-2000:]}"
    replay = Replay(sam, dict(np.load(answers)))
    report = judge(engine, GATES[engine], expected, ask(BundlePredictor(replay, "weights"), COFFEE, expected))
    assert replay.next == len(recorder.feeds["point_labels"]) == len(PromptKind)
    assert report.passed, report.describe()
    print(report.summary())


def require(engine: str) -> None:
    if importlib.util.find_spec(PACKAGES[engine]) is None:
        pytest.skip(f'{engine} is not installed; pip install -e ".[engines]" brings it')


ENGINES = [
    "opencv",
    pytest.param("openvino", marks=pytest.mark.engines),
    pytest.param("mnn", marks=pytest.mark.engines),
]
SMALL = 320  # at which windows reach beyond the grid


@pytest.fixture(scope="module")
def sam() -> MobileSam:
    return load_mobile_sam("demo", SMALL)


@pytest.fixture(scope="module")
def expected(sam: MobileSam) -> Answers:
    return ask(Predictor(sam), COFFEE)


@pytest.fixture(scope="module")
def files(sam: MobileSam, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write(sam, tmp_path_factory.mktemp("fixed"), max_points=SLOTS)


@pytest.mark.parametrize("engine", ENGINES)
def test_another_engine_gives_the_references_masks(
    engine: str, sam: MobileSam, expected: Answers, files: list[Path], tmp_path: Path
) -> None:
    require(engine)
    check(engine, sam, files, expected, tmp_path)


@pytest.mark.parametrize("engine", ENGINES)
def test_another_engine_takes_the_decoder_for_any_number_of_points(
    engine: str, sam: MobileSam, expected: Answers, files: list[Path], tmp_path: Path
) -> None:
    require(engine)
    if engine == "opencv":
        import cv2

        if int(cv2.__version__.split(".")[0]) < 5:
            pytest.skip("OpenCV 4 has no variable shapes; it takes the files of --max-points")
    check(engine, sam, [files[0], write(sam, tmp_path)[1]], expected, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_another_engine_gives_the_references_masks_at_1024(engine: str, tmp_path: Path) -> None:
    require(engine)
    sam = load_mobile_sam("demo")
    files = write(sam, tmp_path, max_points=SLOTS)
    check(engine, sam, files, ask(Predictor(sam), COFFEE), tmp_path)
