"""What was written: one asset with both functions, what it says of itself, and how it is refused when damaged."""

import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from mobilesam_export.contract import Contract
from mobilesam_export.errors import ExportError
from reference.mobile_sam import MobileSam
from tests.ports import assert_meanings_are_there, described
from tests.targets.coreai.conftest import IMAGE_SIZE, NEEDED

pytest.importorskip("coreai_torch", reason=NEEDED)

from coreai.authoring import AIModelAsset

from mobilesam_export.targets.coreai.asset import open_asset
from mobilesam_export.targets.coreai.metadata import FILE, annotate, read_entries
from mobilesam_export.targets.coreai.ports import read_written
from mobilesam_export.targets.coreai.runtime import CoreAIRuntime
from mobilesam_export.targets.coreai.write import notes, record_parity, write


def test_one_asset_has_both_functions_with_the_contracts_names_and_shapes(asset: Path) -> None:
    assert asset.name == "mobile_sam_combined.aimodel"
    assert sorted(AIModelAsset.load(asset).summary(include_statistics=False).function_names) == ["decode", "encode"]
    written, contract = read_written(asset, asset), Contract(IMAGE_SIZE, 8)
    assert written.encoder_inputs == contract.encoder_inputs
    assert written.encoder_outputs == contract.encoder_outputs
    assert written.decoder_inputs == contract.decoder_inputs
    assert written.decoder_outputs == contract.decoder_outputs
    assert written.max_points == 8
    assert written.metadata == {"precision": "float32", "contract_version": "1"}


def test_the_manifest_says_the_ports_of_the_asset(asset: Path) -> None:
    said = described("coreai", [asset, asset], IMAGE_SIZE)
    assert said["max_points"] == 8
    assert_meanings_are_there(said)


def test_apples_reader_is_shown_author_licence_and_what_the_functions_do(asset: Path) -> None:
    shown = AIModelAsset.load(asset).metadata
    assert shown.author == "MobileSAM Export"
    assert shown.license.startswith("Apache-2.0; model after MobileSAM")
    assert re.match(
        r"encode: MobileSAM's image encoder: .* decode: MobileSAM's prompt decoder: ", shown.model_description
    )
    assert read_entries(asset)["ports"]["decode"]["point_labels"].startswith("1 foreground, 0 background")


def test_the_neural_engine_takes_five_axes_at_most(asset: Path) -> None:
    shapes = re.findall(r"tensor<((?:\d+x)+)", str(open_asset(asset).program))
    assert max(shape.count("x") for shape in shapes) == 5
    assert notes([asset])["transposes"] < 60


def test_the_metadata_have_no_time_of_day_and_one_order(asset: Path) -> None:
    said = json.loads((asset / FILE).read_text())
    assert "creationDate" not in said
    assert list(said) == sorted(said)
    assert list(said["creatorDefinedMetadata"]) == sorted(said["creatorDefinedMetadata"])


def test_parity_goes_into_the_metadata_and_nowhere_else(asset: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(asset, tmp_path / asset.name))
    record_parity([copy], "lowest mask IoU 0.9999")
    assert read_entries(copy)["parity"].startswith("lowest mask IoU 0.9999 (executed by ")
    assert read_written(copy, copy).decoder_inputs == read_written(asset, asset).decoder_inputs
    assert (copy / "main.mlirb").read_bytes() == (asset / "main.mlirb").read_bytes()


def damaged(asset: Path, folder: Path, how: str) -> Path:
    """A copy that is damaged in one way."""
    copy = Path(shutil.copytree(asset, folder / asset.name))
    program = copy / "main.mlirb"
    if how == "truncated":
        program.write_bytes(program.read_bytes()[:-100])
    elif how == "no program":
        program.unlink()
    elif how == "rubbish with its own hash":
        program.write_bytes(b"rubbish")
        (copy / "main.hash").write_bytes(hashlib.sha256(b"rubbish").digest())
    elif how == "no JSON":
        (copy / FILE).write_text("{")
    elif how == "endless metadata":
        (copy / FILE).write_text(" " * (1 << 20) + "{}")
    elif how == "entries of another kind":
        (copy / FILE).write_text(json.dumps({"creatorDefinedMetadata": ["precision"]}))
    return copy


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("truncated", r"main.mlirb is truncated or changed \(another sha256\); copy it again or export again"),
        ("no program", r"expected an .aimodel folder with main.mlirb; copy the whole folder or export again"),
        ("rubbish with its own hash", r"has the functions none, expected encode and decode; export it with --target"),
        ("no JSON", r"metadata.json is damaged \(.*\); copy it again or export again"),
        ("endless metadata", r"metadata.json has 1,048,578 bytes, expected 1,048,576 at most"),
        ("entries of another kind", r"metadata.json is damaged \(creatorDefinedMetadata is no object\)"),
    ],
)
def test_a_damaged_asset_is_refused_in_a_line(how: str, told: str, asset: Path, tmp_path: Path) -> None:
    copy = damaged(asset, tmp_path, how)
    with pytest.raises(ExportError, match=told) as refused:
        read_written(copy, copy)
    assert "\n" not in str(refused.value)


def test_a_place_that_cannot_be_written_is_told_and_nothing_is_left(
    sam: MobileSam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mobilesam_export.targets.coreai import write as to_coreai

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(to_coreai, "convert", lambda *_: AIModelAsset)
    monkeypatch.setattr(AIModelAsset, "save_asset", full, raising=False)
    with pytest.raises(ExportError, match=r"cannot write .* \(No space left on device\); choose another place"):
        write(sam, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_entries_are_added_to_those_that_are_there(asset: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(asset, tmp_path / asset.name))
    annotate(copy, {"note": "new"})
    assert read_entries(copy) == {**read_entries(asset), "note": "new"}
    assert [file.name for file in copy.iterdir() if "unfinished" in file.name] == []


def test_8_bit_weights_are_a_third_and_still_draw_the_masks(asset: Path, sam: MobileSam, tmp_path: Path) -> None:
    (path,) = write(sam, tmp_path, precision="int8")
    program, whole = (folder / "main.mlirb" for folder in (path, asset))
    assert program.stat().st_size < 0.4 * whole.stat().st_size
    assert read_written(path, path).metadata == {"precision": "int8"}
    photo = np.random.default_rng(0).uniform(0, 255, (1, 3, IMAGE_SIZE, IMAGE_SIZE)).astype(np.float32)
    answers = []
    for opened in (CoreAIRuntime(path, path), CoreAIRuntime(asset, asset)):
        embeddings = opened.encode(photo)
        point = np.array([[[60, 60], [0, 0]]], np.float32), np.array([[1, -1]], np.float32)
        answers.append(opened.decode(embeddings, *point, None)[0])
        opened.close()
    error = np.sqrt(np.mean((answers[0] - answers[1]) ** 2)) / answers[1].std()
    assert 1e-4 < error < 0.7  # rounded, and within the gate that tells a lossy asset from a broken one


def test_an_image_of_another_size_and_an_unknown_precision_are_one_line(
    asset: Path, sam: MobileSam, tmp_path: Path
) -> None:
    runtime = CoreAIRuntime(asset, asset)
    with pytest.raises(ExportError, match=r"got an image of shape \(1, 3, 8, 8\), expected \(1, 3, "):
        runtime.encode(np.zeros((1, 3, 8, 8), np.float32))
    runtime.close()
    with pytest.raises(ExportError, match="got precision 'palette6', expected one of float32, float16, int8 for Core"):
        write(sam, tmp_path, precision="palette6")
