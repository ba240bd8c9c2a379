"""``--precision auto`` end to end on a target whose roundings are known: decided, judged on other photos, repeated."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import mobilesam_export
from mobilesam_export import ExportError, ParityError, targets
from mobilesam_export.bundle.manifest import Manifest
from mobilesam_export.cli import main
from mobilesam_export.parity.cases import PHOTOS
from mobilesam_export.photos import PHOTO_DIR
from mobilesam_export.precision_plan.bench import calibration_cases, other_photos
from mobilesam_export.precision_plan.decide import journal_of
from mobilesam_export.precision_plan.plan import PrecisionPlan
from mobilesam_export.targets.target import Draft, Runtime
from reference.mobile_sam import MobileSam
from tests.fake_target import Fake, write_small_files
from tests.randomised import randomised_sam
from tests.reference_runtime import Floats, ReferenceRuntime

# What a rounded part adds to the embedding, in parts of its deviation; at 64 pixels little moves masks.
NOISE = {"stem": 1e-4, "neck": 0.3, "mbconvs.0": 1e-4, "mbconvs.1": 1e-4}
SIZE = 64


class Rounded(ReferenceRuntime):
    """The reference with the noise of every part that the files do not call exact."""

    def __init__(self, sam: MobileSam, noise: float) -> None:
        super().__init__(sam)
        self.noise = noise

    def encode(self, image: Floats) -> Floats:
        embeddings = super().encode(image)
        unit = np.random.default_rng(0).standard_normal(embeddings.shape).astype(np.float32)
        return embeddings + np.float32(self.noise * embeddings.std()) * unit


class RoundedDraft:
    def __init__(self, sam: MobileSam, precision: str, metadata: Mapping[str, str], log: list[str]) -> None:
        self.sam, self.precision, self.metadata, self.log = sam, precision, metadata, log

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(NOISE) if self.precision == "int8" else ()

    def write(self, out_dir: Path, exceptions: Collection[str] = ()) -> list[Path]:
        self.log.append(" ".join([self.precision, *sorted(exceptions)]))
        rounded = [part for part in self.parts if part not in exceptions]
        paths = write_small_files(self.sam, out_dir, self.metadata)
        noise = json.dumps(sum(NOISE[part] ** 2 for part in rounded) ** 0.5)
        paths[0].write_text(noise.ljust(1000 - 100 * len(rounded)))
        return paths


class RoundedTarget(Fake):
    """ONNX's place, with one cheap precision that rounds four parts."""

    searched: Mapping[str, tuple[str, ...]] = {"size": ("int8", "float32"), "speed": ("int8", "float32")}

    def __init__(self, sam: MobileSam) -> None:
        super().__init__(targets.named("onnx"), sam, ReferenceRuntime, write_small_files)
        self.log: list[str] = []

    def draft(self, sam: MobileSam, *, precision: str, metadata: Mapping[str, str], **_: Any) -> Draft:
        return RoundedDraft(sam, precision, metadata, self.log)

    def write(self, sam: MobileSam, out_dir: Path, **arguments: Any) -> list[Path]:
        return self.draft(sam, **arguments).write(out_dir)

    def open(self, encoder: Path, decoder: Path) -> Runtime:
        return Rounded(self._sam, json.loads(encoder.read_text()))


@pytest.fixture(scope="module")
def sam() -> MobileSam:
    return randomised_sam(image_size=SIZE)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder with a small photo to decide on, and one with another to judge by."""
    folders = []
    for name, source in (("decide", "coffee.png"), ("judge", "astronaut.png")):
        folders.append(tmp_path_factory.mktemp(name))
        Image.open(PHOTO_DIR / source).resize((96, 64)).save(folders[-1] / f"{name}.png")
    return folders[0], folders[1]


@pytest.fixture
def target(sam: MobileSam, monkeypatch: pytest.MonkeyPatch) -> RoundedTarget:
    fake = RoundedTarget(sam)
    monkeypatch.setattr(targets, "ALL", tuple(fake if one.name == "onnx" else one for one in targets.ALL))
    return fake


def export(sam: MobileSam, out: Path, photos: tuple[Path, Path], **options: Any) -> mobilesam_export.Bundle:
    calibration, judging = photos
    given = {"precision": "auto", "min_iou": 0.97, "calibration": calibration, "photos": judging, **options}
    return mobilesam_export.export(sam, out_dir=out, **given)


@dataclass(frozen=True)
class Decided:
    """An export that decided, and what it wrote on the way."""

    out: Path
    bundle: mobilesam_export.Bundle
    log: tuple[str, ...]


@pytest.fixture(scope="module")
def decided(sam: MobileSam, photos: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Decided]:
    with pytest.MonkeyPatch.context() as patch:
        fake = RoundedTarget(sam)
        patch.setattr(targets, "ALL", tuple(fake if one.name == "onnx" else one for one in targets.ALL))
        out = tmp_path_factory.mktemp("decided") / "dist"
        bundle = export(sam, out, photos)
        yield Decided(out, bundle, tuple(fake.log))


def test_the_costliest_part_stays_exact_and_the_receipt_tells_of_both_sets_of_photos(decided: Decided) -> None:
    entry = decided.bundle.manifest.targets["onnx"]
    assert entry.precision == "int8"
    assert entry.notes["plan"]["exceptions"] == ["neck"]
    decision = entry.notes["decision"]
    assert decision["decided_on"] == ["decide.png"]
    assert decision["judged_on"] == ["judge.png"]
    assert decision["decided"]["mask_iou_min"] >= decision["decided"]["aim"] == pytest.approx(0.976)
    assert entry.parity is not None
    assert decision["judged"]["mask_iou_min"] == entry.parity["worst_mask"]["mask_iou"] >= 0.97
    (tried,) = decision["tried"]
    assert next(iter(tried["costliest_parts"])) == "neck"
    assert Manifest.read(decided.out).targets["onnx"].notes == entry.notes
    assert PrecisionPlan.read(decided.out / "plan-onnx.json").exceptions == ("neck",)
    assert not journal_of(decided.out, "onnx").exists()


def test_a_plan_is_repeated_without_a_search(
    sam: MobileSam, decided: Decided, target: RoundedTarget, photos: tuple[Path, Path], tmp_path: Path
) -> None:
    plan = decided.out / "plan-onnx.json"
    again = mobilesam_export.export(sam, out_dir=tmp_path / "again", plans=[plan], min_iou=0.97, photos=photos[1])
    assert target.log == ["int8 neck"]
    first, repeated = decided.bundle.manifest.targets["onnx"], again.manifest.targets["onnx"]
    assert [file.sha256 for file in repeated.files] == [file.sha256 for file in first.files]
    assert repeated.notes["plan"] == first.notes["plan"]


def test_a_search_that_was_killed_goes_on_where_it_was(
    sam: MobileSam,
    decided: Decided,
    target: RoundedTarget,
    photos: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "dist"
    write = RoundedDraft.write

    def dies(self: RoundedDraft, *arguments: Any) -> list[Path]:
        if len(target.log) == 4:
            raise KeyboardInterrupt
        return write(self, *arguments)

    monkeypatch.setattr(RoundedDraft, "write", dies)
    with pytest.raises(KeyboardInterrupt):
        export(sam, out, photos)
    monkeypatch.setattr(RoundedDraft, "write", write)
    with journal_of(out, "onnx").open("a") as journal:
        journal.write('{"trial": "int8 ne')  # as a kill cuts a line
    export(sam, out, photos)
    assert tuple(target.log) == decided.log
    assert PrecisionPlan.read(out / "plan-onnx.json") == PrecisionPlan.read(decided.out / "plan-onnx.json")


def test_a_plan_that_fails_on_the_other_photos_writes_nothing(
    sam: MobileSam, target: RoundedTarget, photos: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = RoundedTarget.open

    def worse_at_the_end(self: RoundedTarget, encoder: Path, decoder: Path) -> Runtime:
        runtime = opened(self, encoder, decoder)
        assert isinstance(runtime, Rounded)
        runtime.noise += 1.0 if "onnx" in encoder.parts else 0.0  # the bundle's files, not a trial's
        return runtime

    monkeypatch.setattr(RoundedTarget, "open", worse_at_the_end)
    with pytest.raises(ParityError, match="onnx parity FAILED") as refusal:
        export(sam, tmp_path / "dist", photos)
    assert str(refusal.value).splitlines()[-1].startswith("next: --calibration DIR with more photos")
    assert not (tmp_path / "dist").exists()


def test_photos_that_were_decided_on_do_not_judge(
    sam: MobileSam, target: RoundedTarget, photos: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match="got the same photos to decide on and to judge by"):
        export(sam, tmp_path / "dist", (photos[0], photos[0]))


def test_two_bundled_photos_decide_and_the_other_two_judge_if_none_are_given(photos: tuple[Path, Path]) -> None:
    assert [photo.name for photo in calibration_cases(None)] == ["astronaut", "coffee"]
    assert other_photos(PHOTOS, calibration_cases(None)) == ["chelsea", "rocket_portrait"]
    many = [photos[0] / "decide.png"] * 9
    assert len(calibration_cases(many)) == 3  # every third


@pytest.mark.parametrize(
    ("options", "refusal"),
    [
        ({"verify": False, "min_iou": None}, "got precision auto without verification, by which it decides"),
        ({"prefer": "beauty"}, "got prefer beauty, expected size or speed"),
        ({"min_iou": 2}, "got min_iou 2, expected 0 to 1"),
        ({"precision": "float32", "prefer": "size"}, "got prefer size, which only precision auto takes"),
    ],
)
def test_what_cannot_be_decided_is_refused_before_any_work(
    sam: MobileSam,
    target: RoundedTarget,
    photos: tuple[Path, Path],
    tmp_path: Path,
    options: dict[str, Any],
    refusal: str,
) -> None:
    with pytest.raises(ExportError, match=refusal):
        mobilesam_export.export(sam, out_dir=tmp_path / "dist", **{"precision": "auto", **options})
    assert target.log == []


def plan_file(path: Path, **changes: Any) -> Path:
    plan = PrecisionPlan("onnx", SIZE, "int8", ("neck",), "0" * 64, 0.97).as_dict() | changes
    path.write_text(json.dumps(plan))
    return path


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"target": "coreml", "precision": "int8"}, "is a plan for coreml, got target onnx; add --target coreml"),
        ({"image_size": 128}, "was decided at image size 128, got 64"),
        ({"exceptions": ["stages.9.blocks.9"]}, "got exceptions stages.9.blocks.9 in the plan, expected parts that"),
        ({"exceptions": ["../neck"]}, r"exceptions\[0\] is \"../neck\", expected a part of the graph"),
        ({"exceptions": ["neck", "neck"]}, "each once"),
        ({"precision": "int4"}, 'precision is "int4", expected one of'),
        ({"min_iou": 2}, "min_iou is 2, expected 0 to 1"),
        ({"format": "something"}, 'format is "something", expected one of mobilesam-precision-plan 1'),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(
    sam: MobileSam,
    target: RoundedTarget,
    photos: tuple[Path, Path],
    tmp_path: Path,
    changes: dict[str, Any],
    refusal: str,
) -> None:
    path = plan_file(tmp_path / "plan.json", **changes)
    with pytest.raises(ExportError, match=refusal):
        mobilesam_export.export(sam, out_dir=tmp_path / "dist", plans=[path], verify=False)
    assert not (tmp_path / "dist").exists()


@pytest.mark.parametrize(
    ("arguments", "refusal"),
    [
        (["--precision", "float16", "--plan", "PLAN"], "got precision float16 for onnx and a plan of int8"),
        (["--plan", "PLAN", "--plan", "PLAN"], "got two plans for onnx, expected one"),
        (["--plan", "PLAN", "--image-size", "128"], "was decided at image size 64, got 128"),
        (["--precision", "auto", "--min-iou", "2"], "got min_iou 2.0, expected 0 to 1"),
        (["--precision", "auto", "--no-verify"], "got precision auto without verification"),
        (["--prefer", "speed"], "got prefer speed, which only precision auto takes"),
    ],
)
def test_the_command_refuses_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: Sequence[str], refusal: str
) -> None:
    plan = str(plan_file(tmp_path / "plan.json"))
    given = [plan if argument == "PLAN" else argument for argument in arguments]
    size = [] if "--image-size" in given else ["--image-size", str(SIZE)]
    assert main(["export", *size, *given, "--out", str(tmp_path / "dist")]) != 0
    told = capsys.readouterr().err.replace("\n", " ")
    assert refusal in " ".join(told.split())
