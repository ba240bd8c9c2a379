"""A bundle's folder is the whole old bundle or the whole new one, whoever kills the export and whenever."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mobilesam_export.bundle import staging
from mobilesam_export.bundle.checksums import tree_sha256
from mobilesam_export.bundle.destination import look, real_directory
from mobilesam_export.bundle.exchange import exchange
from mobilesam_export.bundle.manifest import FILE_NAME
from mobilesam_export.bundle.staging import move_into_place, staging_directory
from mobilesam_export.errors import ExportError
from tests.small_bundle import OTHER_WEIGHTS, SIZE, WEIGHTS, write_bundle
from tests.staged import assert_the_users_files_are_there, encoder, prepare, replace

ROOT = Path(__file__).parents[2]


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture
def dist(tmp_path: Path) -> Path:
    """See ``prepare``."""
    return prepare(tmp_path)


@pytest.fixture(params=["in one step", "in two steps"])
def steps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With a system that exchanges folders, and with one that does not."""
    if request.param == "in two steps":
        monkeypatch.setattr(staging, "exchange", lambda a, b: False)
    return str(request.param)


@pytest.mark.usefixtures("steps")
def test_a_new_bundle_takes_the_old_ones_place_and_everything_of_the_users_stays(dist: Path) -> None:
    dist.chmod(0o2750)
    replace(dist)
    assert encoder(dist) == b"newencoder"
    assert_the_users_files_are_there(dist)
    assert names(dist.parent) == ["dist"]
    assert dist.stat().st_mode & 0o7777 == 0o2750
    replace(dist, b"another", OTHER_WEIGHTS)
    assert encoder(dist) == b"anotherencoder"
    assert_the_users_files_are_there(dist)


@pytest.mark.skipif(sys.platform != "linux", reason="macOS has another call, not tried; others have none")
def test_two_folders_are_exchanged_in_one_step_here(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    assert exchange(tmp_path / "a", tmp_path / "b")
    assert (names(tmp_path / "a"), names(tmp_path / "b")) == (["b"], ["a"])
    with pytest.raises(FileNotFoundError):
        exchange(tmp_path / "a", tmp_path / "nowhere")


def test_a_second_export_into_the_folder_is_refused_before_any_work(dist: Path) -> None:
    with staging_directory(dist):
        with pytest.raises(ExportError, match=rf"another export \(process {os.getpid()}\) is writing .*dist; wait"):
            replace(dist)
        assert encoder(dist) == b"oldencoder"
    replace(dist)
    assert encoder(dist) == b"newencoder"


def test_without_locks_a_folder_of_another_export_is_not_touched(dist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "fcntl", None)
    replace(dist)
    assert encoder(dist) == b"newencoder"
    (dist.parent / ".dist.partial" / "bundle").mkdir(parents=True)
    with pytest.raises(ExportError, match=r"\.dist\.partial is there: an export runs or was killed"):
        replace(dist)
    assert (dist.parent / ".dist.partial" / "bundle").is_dir()


@pytest.mark.parametrize("there", [False, True])
def test_what_appears_meanwhile_in_an_empty_place_is_not_deleted(tmp_path: Path, there: bool) -> None:
    out = tmp_path / "dist"
    if there:
        out.mkdir()
    with pytest.raises(ExportError, match="cannot be written"), staging_directory(out) as stage:
        found = look(out, ["onnx"], WEIGHTS, SIZE, overwrite=False)
        write_bundle(stage)
        out.mkdir(exist_ok=True)
        (out / "thesis.tex").write_text("years of work")
        move_into_place(stage, found)
    assert (out / "thesis.tex").read_text() == "years of work"
    assert names(tmp_path) == ["dist"]


@pytest.mark.usefixtures("steps")
def test_what_appears_at_the_last_moment_is_carried_over(dist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def link_and_save(source: Path, copy: Path) -> None:
        link(source, copy)
        if Path(source).name == "notes.txt":  # an editor that saves beside and moves
            (dist / "late.txt").write_text("late")
            (dist / "onnx" / "late").mkdir()
            (dist / "onnx" / "late" / "deep.txt").write_text("deep")
            (dist / "notes.tmp").write_text("mine, later")
            (dist / "notes.tmp").replace(dist / "notes.txt")

    monkeypatch.setattr(os, "link", link_and_save)
    replace(dist)
    assert encoder(dist) == b"newencoder"
    assert (dist / "late.txt").read_text() == "late"
    assert (dist / "onnx" / "late" / "deep.txt").read_text() == "deep"
    assert (dist / "notes.txt").read_text() == "mine, later"
    assert names(dist.parent) == ["dist"]


def test_a_file_that_is_not_the_bundles_own_is_not_overwritten_by_an_artifact(dist: Path) -> None:
    with pytest.raises(ExportError, match=r"mine\.txt is in the way"), staging_directory(dist) as stage:
        found = look(dist, ["onnx"], WEIGHTS, SIZE, overwrite=True)
        write_bundle(stage, content=b"new")
        (stage / "onnx" / "mine.txt").write_text("an artifact")
        move_into_place(stage, found)
    assert encoder(dist) == b"oldencoder"
    assert_the_users_files_are_there(dist)


# Runs in a fresh Python without PyTorch and its threads: forks a child for every call that changes the file system,
# and lets it die there, before the call; the exchange is one that Python has no event for.
KILLS = """
import os, signal, sys
from pathlib import Path
from mobilesam_export.bundle import staging
from tests.staged import replace, check_after_kill, prepare

CHANGES = {f"os.{name}" for name in ("rename", "remove", "rmdir", "mkdir", "link", "symlink", "chmod")}
base, two_steps = Path(sys.argv[1]), sys.argv[2] == "in two steps"
if two_steps:
    staging.exchange = lambda a, b: False
point = 0
while True:
    point += 1
    dist = prepare(base / str(point))
    child = os.fork()
    if child == 0:
        left = [point]
        def step():
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        exchange = staging.exchange
        def exchange_or_die(a, b):
            step()
            return exchange(a, b)
        staging.exchange = exchange_or_die
        def hook(event, arguments):
            if event in CHANGES or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
                step()
        sys.addaudithook(hook)
        replace(dist)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    check_after_kill(dist, two_steps)
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0, status
        break
    assert os.WTERMSIG(status) == signal.SIGKILL, status
print(point)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("how", ["in one step", "in two steps"])
def test_a_kill_at_any_point_leaves_a_whole_bundle_and_the_next_export_puts_the_rest_right(
    tmp_path: Path, how: str
) -> None:
    run = subprocess.run(
        [sys.executable, "-c", KILLS, str(tmp_path), how], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) > 30  # there are some forty; fewer would mean that the calls are not seen


def test_an_interruption_after_the_exchange_leaves_the_new_bundle_and_nothing_else(
    dist: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exchange_and_interrupt(a: Path, b: Path) -> bool:
        assert exchange(a, b)
        raise KeyboardInterrupt

    monkeypatch.setattr(staging, "exchange", exchange_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        replace(dist)
    assert encoder(dist) == b"newencoder"
    assert_the_users_files_are_there(dist)
    assert names(dist.parent) == ["dist"]


def test_an_interruption_between_two_steps_brings_the_old_bundle_back(
    dist: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree_sha256(dist)
    monkeypatch.setattr(staging, "exchange", lambda a, b: False)
    rename = Path.rename

    def rename_once(path: Path, target: Path) -> Path:
        if path.name == "bundle":
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", rename_once)
    with pytest.raises(KeyboardInterrupt):
        replace(dist)
    assert tree_sha256(dist) == before
    assert names(dist.parent) == ["dist"]


def test_a_link_stays_and_what_it_leads_to_is_written(dist: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("bundles/dist")
    assert real_directory(link) == dist.resolve()
    replace(real_directory(link))
    assert link.is_symlink()
    assert encoder(link) == encoder(dist) == b"newencoder"


@pytest.mark.parametrize("target", ["nowhere", "loop"])
def test_a_link_to_nothing_is_refused(tmp_path: Path, target: str) -> None:
    (tmp_path / "loop").symlink_to(target)
    with pytest.raises(ExportError, match=r"loop is a link to .*, which is not there; make that folder"):
        real_directory(tmp_path / "loop")
    assert names(tmp_path) == ["loop"]


def test_a_linked_folder_of_artifacts_is_refused_rather_than_replaced(dist: Path, tmp_path: Path) -> None:
    shutil.move(dist / "onnx", tmp_path / "big-disk")
    (dist / "onnx").symlink_to(tmp_path / "big-disk")
    with pytest.raises(ExportError, match="onnx is a link, which a new bundle would replace"):
        look(dist, ["onnx"], WEIGHTS, SIZE, overwrite=True)
    kept = look(dist, ["coreml"], WEIGHTS, SIZE, overwrite=False)
    with staging_directory(dist) as stage:
        write_bundle(stage, "coreml", content=b"new")
        move_into_place(stage, kept)
    assert (dist / "onnx").is_symlink()
    assert (dist / "onnx" / "mobile_sam_encoder.onnx").read_bytes() == b"oldencoder"


def test_the_current_folder_is_refused(dist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(dist)
    with pytest.raises(ExportError, match="is the folder you are in"):
        real_directory(".")
    with pytest.raises(ExportError, match=rf"is a folder around the one you are in, {dist}, .*; give {dist}"):
        real_directory(dist.parent)


def test_the_root_of_the_file_system_is_refused_as_what_it_is() -> None:
    for root in ("/", "//", "/tmp/.."):
        with pytest.raises(ExportError, match=r"is the root of the file system and cannot be replaced; give /+dist$"):
            real_directory(root)


@pytest.mark.parametrize("below", ["x", "x/y/z", "../afile/x"])
def test_a_place_in_a_file_is_refused_before_any_work(tmp_path: Path, below: str) -> None:
    (tmp_path / "afile").write_text("a file")
    with pytest.raises(ExportError, match=r"would be in .*/afile, which is no folder; choose another --out"):
        real_directory(tmp_path / "afile" / below)


@pytest.mark.parametrize(("name", "reason"), [("n" * 300, "File name too long"), ("a\0b", "null byte")])
def test_a_name_that_no_folder_can_have_is_told(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(ExportError, match=rf"can be no folder's name \(.*{reason}.*\); choose another --out"):
        real_directory(tmp_path / name)


def test_a_folder_that_cannot_be_made_is_told_without_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(ExportError, match=r"dist cannot be written \(Permission denied\); choose another"):
        replace(tmp_path / "dist")


def test_a_pipe_in_the_folder_is_refused(dist: Path) -> None:
    os.mkfifo(dist / "pipe")
    with pytest.raises(ExportError, match="pipe is no file, folder or link"):
        look(dist, ["onnx"], WEIGHTS, SIZE, overwrite=True)


def test_a_file_in_the_bundles_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "dist").write_text("a file")
    with pytest.raises(ExportError, match="exists and is no folder"):
        look(tmp_path / "dist", ["onnx"], WEIGHTS, SIZE, overwrite=True)


def _can_mount() -> bool:
    command = shutil.which("unshare")
    return command is not None and subprocess.run([command, "-rm", "true"], capture_output=True).returncode == 0


@pytest.mark.skipif(not _can_mount(), reason="needs the right to mount in a namespace of its own")
def test_a_mount_point_is_refused_before_the_work_and_a_folder_in_it_is_not(tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    (tmp_path / "out").mkdir()
    script = f"""
        mount --bind {tmp_path}/volume {tmp_path}/out
        {sys.executable} -c '
import pathlib
from tests.staged import replace
from mobilesam_export.errors import ExportError
out = pathlib.Path("{tmp_path}/out")
try:
    replace(out)
except ExportError as error:
    print(error)
replace(out / "dist")
'"""
    run = subprocess.run(["unshare", "-rm", "sh", "-ec", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "out cannot be replaced in one step (Device or resource busy), as a mount point cannot" in run.stdout
    assert f"--out {tmp_path}/out/dist" in run.stdout
    assert encoder(tmp_path / "volume" / "dist") == b"newencoder"
    assert names(tmp_path) == ["out", "volume"]


def test_a_dead_exports_folder_is_removed_by_the_next_one(dist: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from mobilesam_export.bundle.staging import staging_directory\n"
        "with staging_directory(Path(sys.argv[1])) as stage:\n"
        "    (stage / 'half').write_bytes(b'half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    run = subprocess.run([sys.executable, "-c", code, str(dist)], cwd=ROOT, check=False)
    assert run.returncode == -signal.SIGKILL
    assert names(dist.parent) == [".dist.partial", "dist"]
    replace(dist)
    assert names(dist.parent) == ["dist"]
    assert (dist / FILE_NAME).is_file()
