"""The documentation: every command runs or says why not, every path and link exists.

Above a block of commands a comment may stand: ``<!-- slow -->`` (run with -m slow), ``<!-- not run: REASON -->`` (its
options are parsed all the same), or ``<!-- test command -->`` (``.ci/run`` runs it). All others run here, in the page's
order and in one folder a page, at a small image size.
"""

import contextlib
import importlib.util
import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mobilesam_export
from mobilesam_export import cli
from reference.images import read_image
from reference.training import __main__ as training

ROOT = Path(__file__).parent.parent
GUIDES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = [
    *GUIDES,
    ROOT / "CHANGELOG.md",
    *(
        path
        for folder in ("apps", "reference", "mobilesam_export", "benchmarks", "tests")
        for path in sorted((ROOT / folder).rglob("*.md"))
        if "node_modules" not in path.parts
    ),
]
FENCE = re.compile(r"^(?:<!-- (?P<mark>[^\n]*?) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)^```$", re.M | re.S)
FOLDERS = ("mobilesam_export", "reference", "apps", "benchmarks", "docs", "examples", "tests", ".github", ".ci")
SIZE = "128"  # of every export here


@dataclass(frozen=True)
class Block:
    """A fenced block and the comment above it."""

    mark: str
    language: str
    text: str

    @property
    def commands(self) -> list[list[str]]:
        """Each line's words, without what installs."""
        lines = [shlex.split(part, comments=True) for line in self.text.splitlines() for part in line.split("&&")]
        return [words for words in lines if words and words[0] not in ("pip", "apt-get")]


def blocks_of(page: Path) -> list[Block]:
    found = FENCE.finditer(page.read_text(encoding="utf-8"))
    return [Block(match["mark"] or "", match["language"], match["text"]) for match in found]


def prose_of(page: Path) -> str:
    """A page without its fenced blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def anchors_of(page: Path) -> set[str]:
    """Headings as GitHub links to them."""
    headings = re.findall(r"^#+ (.+)$", prose_of(page), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose_of(page)):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        if not linked.exists() or (anchor and anchor not in anchors_of(linked)):
            wrong.append(target)
    assert wrong == []


@pytest.mark.parametrize("page", ["docs/android.md", "apps/android/README.md"])
def test_the_kotlin_shown_is_a_file_that_is_compiled(page: str) -> None:
    source = ROOT / "apps/android/sample/src/main/kotlin/mobilesam/sample/Example.kt"
    shown = source.read_text(encoding="utf-8").removeprefix("package mobilesam.sample\n\n")
    assert [block.text for block in blocks_of(ROOT / page) if block.language == "kotlin"] == [shown]


@pytest.mark.parametrize("page", GUIDES, ids=name_of)
def test_every_path_that_is_named_exists(page: Path) -> None:
    spans = re.findall(r"`([^`\n]+)`", prose_of(page))
    named = [span for span in spans if span.split("/")[0] in FOLDERS and "/" in span and " " not in span]
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    linked = set(re.findall(r"\]\(([^)#\s]+)", prose_of(ROOT / "README.md")))
    assert {name_of(page) for page in GUIDES} - {"README.md"} <= linked


def test_the_readme_is_one_document() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 160


@pytest.mark.parametrize("page", GUIDES, ids=name_of)
def test_every_command_is_one_that_exists(page: Path) -> None:
    blocks = [block for block in blocks_of(page) if block.language == "bash"]
    for block in blocks:
        assert block.mark in ("", "slow", "test command") or re.fullmatch(r"not run: .{5,}", block.mark)
        for words in block.commands:
            understand(words)


def understand(words: list[str]) -> None:
    """Parse a command without running it; fail if something it names is not there."""
    while "=" in words[0]:  # variables of its environment
        words = words[1:]
    match words:
        case ["mobilesam-export", *arguments]:
            cli._parser().parse_args(arguments)
        case ["python", "export.py", *arguments]:
            cli._parser().parse_args(["export", *arguments])
        case ["python", "-m", "reference.training", *arguments]:
            training.build_parser().parse_args(arguments)
        case ["python", "-m", "pytest", *arguments] | ["pytest", *arguments]:
            understand_pytest(arguments)
        case ["python", "-m", module, *_]:
            assert importlib.util.find_spec(module), module
        case ["python" | "node", script, *_]:
            assert (ROOT / script).is_file(), script
        case [program, *_]:
            assert program in ("ruff", "mypy", "trtexec"), f"{program}: tell this test how to understand it"


def understand_pytest(arguments: list[str]) -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    markers = {line.split(":")[0] for line in settings["markers"]}
    for before, word in zip(["", *arguments], arguments, strict=False):
        if word in ("-m", "-n", "--dist") or before in ("-n", "--dist"):
            continue
        assert word in markers if before == "-m" else (ROOT / word).exists(), word


Bundles = dict[str, Path]  # exported once, by the words of the command


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bundles]:
    yield {}
    # Kept as long as pytest keeps its folders.


def run_page(page: Path, folder: Path, bundles: Bundles, slow: bool) -> dict[str, Any]:
    """Run a page's blocks in a folder that looks like the repository; return what its Python left.

    Args:
        slow: also the blocks that are marked so.
    """
    for name in FOLDERS:
        if not (folder / name).exists():
            (folder / name).symlink_to(ROOT / name)
    names: dict[str, Any] = {}
    with contextlib.chdir(folder):
        for block in blocks_of(page):
            if block.mark and not (slow and block.mark == "slow"):
                continue
            if block.language == "python":
                code = block.text.replace('load_mobile_sam("demo")', f'load_mobile_sam("demo", {SIZE})')
                exec(compile(code, name_of(page), "exec"), names)
            elif block.language == "bash":
                for words in block.commands:
                    assert run(words, bundles) == 0, words
    return names


def run(words: list[str], bundles: Bundles) -> int:
    match words:
        case ["python", "export.py", *arguments] | ["mobilesam-export", "export", *arguments]:
            return export(arguments, bundles)
        case ["mobilesam-export", *arguments]:
            return cli.main(arguments)
        case ["python", "-m", "reference.training", *arguments]:
            return training.main(arguments)
    understand(words)  # pytest, which is running
    return 0


def export(arguments: list[str], bundles: Bundles) -> int:
    """Export at a small size, once for all commands that ask for the same."""
    out = Path(arguments[arguments.index("--out") + 1])
    key = " ".join(word for word in arguments if word not in ("--out", str(out)))
    if key in bundles:
        shutil.copytree(bundles[key], out)
        return 0
    small = [] if "--image-size" in arguments else ["--image-size", SIZE]
    # Small frames have coarse masks: whether a precision holds its gate is the business of other tests.
    loose = [] if "--min-iou" in arguments else ["--min-iou", "0.5"]
    code = cli.main(["export", *arguments, *small, *loose, "-q"])
    bundles[key] = out.absolute()
    return code


def runs_something(page: Path, slow: bool) -> bool:
    blocks = [block for block in blocks_of(page) if block.language in ("bash", "python")]
    return any(block.mark == "slow" if slow else not block.mark for block in blocks)


@pytest.mark.parametrize("page", [page for page in GUIDES if runs_something(page, slow=False)], ids=name_of)
def test_every_page_does_what_it_says(page: Path, tmp_path: Path, bundles: Bundles) -> None:
    names = run_page(page, tmp_path, bundles, slow=False)
    if page.name == "onnx.md":  # a host in forty lines
        predictor = mobilesam_export.load_bundle(tmp_path / "dist", target="onnx")
        predictor.set_image(read_image(ROOT / "mobilesam_export/photos/coffee.png"))
        masks, scores, _ = predictor.predict(point_coords=[[300, 150]], point_labels=[1])
        assert names["best"] == 1 + scores.argmax()
        # Interpolated in float64 instead of float32: a pixel whose logit is next to zero may differ.
        assert (names["mask"] == masks[scores.argmax()]).mean() > 0.9999
        assert 0.001 < names["mask"].mean() < 0.999
        assert np.shape(names["mask"]) == masks.shape[1:]


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in GUIDES if runs_something(page, slow=True)], ids=name_of)
def test_every_page_does_what_it_says_where_that_takes_minutes(page: Path, tmp_path: Path, bundles: Bundles) -> None:
    run_page(page, tmp_path, bundles, slow=True)
