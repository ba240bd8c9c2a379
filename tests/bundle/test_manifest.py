"""The manifest survives its file, refuses what it does not understand, and hashes trees as documented."""

import hashlib
import io
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from rich.console import Console

from mobilesam_export.bundle.checksums import tree_sha256
from mobilesam_export.bundle.described_contract import describe_contract
from mobilesam_export.bundle.manifest import FILE_NAME, FileEntry, Manifest, versions_for
from mobilesam_export.bundle.tables import print_manifest
from mobilesam_export.contract import Contract
from mobilesam_export.errors import ExportError
from tests.small_bundle import write_bundle, written


def manifest_of(directory: Path) -> Manifest:
    return write_bundle(directory, content=b"abc")


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path)
    manifest.write(tmp_path)
    assert Manifest.read(tmp_path) == manifest


def test_a_file_entry_has_size_role_and_the_hash_of_its_bytes(tmp_path: Path) -> None:
    entry = manifest_of(tmp_path).targets["onnx"].files[0]
    digest = hashlib.sha256(b"abcencoder").hexdigest()
    assert entry == FileEntry("onnx/mobile_sam_encoder.onnx", "encoder", "file", 10, digest)


def test_a_tree_is_hashed_by_paths_and_contents(tmp_path: Path) -> None:
    for name, content in {"b/z.bin": b"1", "a.txt": b"2", "b/a b.bin": b"3"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    shell = "find * -type f | LC_ALL=C sort | tr '\\n' '\\0' | xargs -0 sha256sum | sha256sum"
    expected = subprocess.run(shell, shell=True, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    before = tree_sha256(tmp_path)
    assert before == expected.split()[0]
    (tmp_path / "a.txt").rename(tmp_path / "c.txt")
    assert tree_sha256(tmp_path) != before


def test_the_contract_names_every_port_and_label() -> None:
    described = describe_contract(1024, written(Contract(1024, 8)))
    assert [port["name"] for port in described["decoder"]["inputs"]] == [
        "image_embeddings",
        "point_coords",
        "point_labels",
        "mask_input",
        "has_mask_input",
    ]
    assert described["decoder"]["inputs"][1]["shape"] == [1, 8, 2]
    assert described["point_labels"] == {
        "absent": -2,
        "padding": -1,
        "background": 0,
        "foreground": 1,
        "box_top_left": 2,
        "box_bottom_right": 3,
    }


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "is no bundle's manifest"),
        ("[]", "manifest.json is [], expected an object"),
        ("{}", "is no bundle's manifest"),
        ('{"format": "mobilesam-export-bundle", "format_version": "99"}', '(format_version is "99")'),
        ("\xff", "is no bundle's manifest"),
        ("[" * 100_000, "brackets more than 32 deep"),
        ('{"a":' * 40 + "1" + "}" * 40, "brackets more than 32 deep"),
        ('{"a": Infinity}', "Infinity is no finite number"),
        ('{"a": 1e999}', "1e999 is no finite number"),
        ('{"a": 1, "a": 2}', 'a key is there twice among ["a", "a"]'),
        ('{"a": ' + "9" * 5000 + "}", "is no bundle's manifest"),
        (" " * 4_000_001, "has 4 MB, expected a bundle's manifest of at most 4 MB"),
    ],
    ids=range(12),
)
def test_what_is_no_manifest_is_refused_in_one_line(tmp_path: Path, content: str, told: str) -> None:
    (tmp_path / FILE_NAME).write_bytes(content.encode("latin-1"))
    assert told in refusal(tmp_path)


def refusal(directory: Path) -> str:
    with pytest.raises(ExportError) as raised:
        Manifest.read(directory)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_folder_without_manifest_is_no_bundle(tmp_path: Path) -> None:
    assert "there is no bundle at" in refusal(tmp_path / "nowhere")


@pytest.mark.parametrize("device", ["/dev/zero", "pipe"])
def test_a_manifest_that_never_ends_is_refused_at_once(tmp_path: Path, device: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / FILE_NAME).symlink_to(device)
    assert "expected a bundle's manifest in a regular file" in refusal(tmp_path)


Keys = tuple[str | int, ...]
FILE: Keys = ("targets", "onnx", "files", 0)
CONTRACT: Keys = ("targets", "onnx", "contract")
PARITY: Keys = ("targets", "onnx", "parity")


@pytest.mark.parametrize(
    ("keys", "value", "told"),
    [
        (("contract_version",), "2", 'contract_version is "2"'),
        (("image_size",), 65, "manifest.json.image_size is 65, expected a multiple of 32"),
        (("image_size",), True, "image_size is true"),
        (("targets",), {}, "manifest.json.targets is {}, expected at least one of onnx, coreml, tflite"),
        (("targets", "onnx", "files"), [], "targets.onnx.files is [], expected at least one file"),
        (("targets", "onnx", "target"), "tflite", 'targets.onnx.target is "tflite", expected "onnx"'),
        (("targets", "onnx", "precision"), "exact", 'targets.onnx.precision is "exact", expected float32'),
        (("targets", "onnx", "precision"), "w8a8", "expected float32, float16, int8"),
        (("targets", "onnx", "options"), {"single_mask": "no"}, "options.single_mask is"),
        (("targets", "onnx", "options"), {"loosely": 1}, "options.loosely is no option of onnx"),
        ((*FILE, "sha256"), None, "targets.onnx.files[0].sha256 is null, expected 64 hexadecimal digits"),
        ((*FILE, "sha256"), "G" * 64, "expected 64 hexadecimal digits"),
        ((*FILE, "role"), "backdoor", 'files[0].role is "backdoor", expected one of encoder'),
        ((*FILE, "role"), "decoder", "expected one encoder and one decoder, or one combined file"),
        ((*FILE, "role"), "combined", "expected one encoder and one decoder, or one combined file"),
        ((*FILE, "role"), "other", "expected one encoder and one decoder, or one combined file"),
        ((*FILE, "kind"), "link", 'files[0].kind is "link"'),
        ((*FILE, "size_bytes"), -1, "files[0].size_bytes is -1, expected a whole number"),
        ((*FILE, "size_bytes"), 1.5, "files[0].size_bytes is 1.5"),
        ((*FILE, "path"), "../outside.onnx", "points out of its directory"),
        ((*FILE, "path"), "/etc/passwd", "points out of its directory"),
        ((*FILE, "path"), "onnx\\..\\..\\x", "points out of its directory"),
        ((*FILE, "path"), "notes.txt", 'files[0].path is "notes.txt", expected a path in onnx/'),
        ((*FILE, "path"), "onnx/\x1b[2J", "expected at most 1000 characters that can be printed"),
        ((*FILE, "path"), "onnx/mobile_sam_decoder.onnx", "each once"),
        ((*FILE, "mode"), 511, "targets.onnx.files[0] has an unknown 'mode'"),
        (("weights", "source"), ["demo"], 'weights.source is ["demo"], expected a string'),
        ((*CONTRACT, "pixel_mean"), [0, 0, 0], "contract.pixel_mean is [0, 0, 0], expected [123.675"),
        ((*CONTRACT, "version"), "9", 'contract.version is "9"'),
        ((*CONTRACT, "encoder", "inputs"), [], "expected inputs with at least one port"),
        ((*CONTRACT, "encoder", "inputs", 0, "dtype"), "float8", 'inputs[0].dtype is "float8"'),
        ((*CONTRACT, "encoder", "inputs", 0, "shape", 1), 0, "inputs[0].shape[1] is 0"),
        ((*PARITY, "passed"), False, "parity.passed is false, expected true, as there are 0 failures"),
        ((*PARITY, "embeddings"), {}, "parity.embeddings is {}, expected at least one entry"),
        ((*PARITY, "prompts", "box", "mask_iou_min"), "1", 'box.mask_iou_min is "1", expected a number'),
        ((*PARITY, "prompts", "box", "masks"), 2, "informative_masks is 3, expected a whole number from 0 to 2"),
    ],
)
def test_a_wrong_value_is_named(tmp_path: Path, keys: Keys, value: object, told: str) -> None:
    manifest_of(tmp_path)
    content = json.loads((tmp_path / FILE_NAME).read_text())
    *leading, last = keys
    place = content
    for key in leading:
        place = place[key]
    place[last] = value
    (tmp_path / FILE_NAME).write_text(json.dumps(content))
    assert told in refusal(tmp_path)


def places(value: object, keys: Keys = ()) -> Iterator[Keys]:
    """The keys of everything inside a JSON value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inside:
        yield (*keys, key)
        yield from places(item, (*keys, key))


with tempfile.TemporaryDirectory() as folder:
    GOOD = manifest_of(Path(folder)).as_dict()
PLACES = sorted(places(json.loads(json.dumps(GOOD))), key=str)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["[/red]", "[bold", "..", "coreml", "w8a8", "0" * 64, "\ud800", "\x1b[0m", "onnx/a"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.just("path"), inner, max_size=3)
    ),
    max_leaves=5,
)
MUTATIONS = st.lists(st.tuples(st.sampled_from(PLACES), st.sampled_from("rda"), VALUES), min_size=1, max_size=3)


def mutated(mutations: list[tuple[Keys, str, object]]) -> dict[str, object]:
    """The good manifest with values replaced, deleted, or added beside."""
    content: Any = json.loads(json.dumps(GOOD))
    for (*leading, last), what, value in mutations:
        place = content
        for key in leading:
            inside = isinstance(place, dict) and key in place
            if not inside and not (isinstance(place, list) and isinstance(key, int) and key < len(place)):
                break
            place = place[key]
        else:
            if isinstance(place, list) and isinstance(last, int) and last < len(place):
                if what == "d":
                    del place[last]
                elif what == "a":
                    place.insert(last, value)
                else:
                    place[last] = value
            elif isinstance(place, dict) and isinstance(last, str):
                if what == "d":
                    place.pop(last, None)
                else:
                    place[last if what == "r" else f"{last}x"] = value
    return cast(dict[str, object], content)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(MUTATIONS)
@example([(("weights", "family"), "d", None)])
def test_any_change_gives_a_manifest_that_can_be_shown_or_one_line(
    tmp_path: Path, mutations: list[tuple[Keys, str, object]]
) -> None:
    check_shown_or_refused(tmp_path, json.dumps(mutated(mutations)).encode())


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 1 << 20), st.binary(max_size=8), st.integers(0, 40))
def test_any_change_of_bytes_does_too(tmp_path: Path, at: int, inserted: bytes, removed: int) -> None:
    text = json.dumps(GOOD).encode()
    at %= len(text)
    check_shown_or_refused(tmp_path, text[:at] + inserted + text[at + removed :])


def check_shown_or_refused(directory: Path, content: bytes) -> None:
    (directory / FILE_NAME).write_bytes(content)
    try:
        manifest = Manifest.read(directory)
    except ExportError as error:
        assert len(str(error).splitlines()) == 1 and str(error).isprintable()
        return
    print_manifest(manifest, Console(file=io.StringIO()))
    told = json.loads(content)
    told["weights"].setdefault("family", None)  # which bundles from before there was more than one family do without
    assert json.loads(manifest.to_json()) == told
    assert manifest.targets
    for entry in manifest.targets.values():
        assert entry.files
        assert all((directory / file.path).resolve().is_relative_to(directory.resolve()) for file in entry.files)
        with suppress(ExportError):
            entry.check_files(directory)


def test_markup_in_a_manifest_is_shown_as_it_stands(tmp_path: Path) -> None:
    manifest_of(tmp_path)
    text = (tmp_path / FILE_NAME).read_text().replace('"demo"', '"[/red] [bold]x"').replace('"a notice"', '"[/b]"')
    (tmp_path / FILE_NAME).write_text(text)
    shown = io.StringIO()
    print_manifest(Manifest.read(tmp_path), Console(file=shown, width=200))
    assert "weights [/red] [bold]x, sha256" in shown.getvalue()
    assert "[/b]" in shown.getvalue()


def test_masks_judged_otherwise_than_by_iou_do_not_read_as_failures(tmp_path: Path) -> None:
    manifest_of(tmp_path)
    shown = io.StringIO()
    print_manifest(Manifest.read(tmp_path), Console(file=shown, width=200))
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown.getvalue().splitlines()]
    assert ["box", "4", "3", "0.99950", "0.99980", "1.0e-05", "1.0e-06"] in lines
    assert "every mask is judged: by IoU, or by the part of the photo where it differs" in shown.getvalue()


def test_a_folder_in_a_files_place_is_told(tmp_path: Path) -> None:
    entry = manifest_of(tmp_path).targets["onnx"]
    (tmp_path / "onnx" / "mobile_sam_encoder.onnx").unlink()
    (tmp_path / "onnx" / "mobile_sam_encoder.onnx").mkdir()
    with pytest.raises(ExportError, match=r"encoder\.onnx is not the file that it was"):
        entry.check_files(tmp_path)


def test_a_pipe_in_a_files_place_is_told_at_once(tmp_path: Path) -> None:
    entry = manifest_of(tmp_path).targets["onnx"]
    (tmp_path / "onnx" / "mobile_sam_encoder.onnx").unlink()
    os.mkfifo(tmp_path / "onnx" / "mobile_sam_encoder.onnx")
    with pytest.raises(ExportError, match=r"encoder\.onnx is not the file that it was"):
        entry.check_files(tmp_path)


def test_a_target_that_is_not_there_is_told(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path)
    assert manifest.target(None).target == "onnx"
    with pytest.raises(ExportError, match="holds onnx, got target 'coreml'"):
        manifest.target("coreml")
    with pytest.raises(ExportError, match="has no combined"):
        manifest.target("onnx").path_of("combined")


def test_versions_name_the_packages_of_the_target() -> None:
    assert {"python", "platform", "torch", "onnxruntime"} <= versions_for("onnx").keys()
    assert "coremltools" not in versions_for("onnx")
