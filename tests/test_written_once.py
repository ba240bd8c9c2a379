"""What several places need is written in one of them."""

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("reference", "mobilesam_export", "benchmarks")


def test_sams_constants_and_the_words_for_who_ran_a_package_stand_once() -> None:
    places: defaultdict[object, set[str]] = defaultdict(set)
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant):
                    places[node.value].add(path.relative_to(ROOT).as_posix())
    for number in (123.675, 116.28, 103.53, 58.395, 57.12, 57.375):
        assert places[number] == {"reference/values.py"}
    executed = {path for text, paths in places.items() if str(text).startswith("executed by ") for path in paths}
    assert executed == {f"mobilesam_export/targets/{target}/runtime.py" for target in ("coreml", "coreai")}


def test_only_one_place_looks_for_photos_in_a_folder() -> None:
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            if path == ROOT / "reference" / "photo_folder.py":
                continue
            texts = {n.value for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Constant)}
            assert len(texts & {".jpg", ".jpeg", ".tiff", ".heic"}) < 2, f"{path} lists endings of its own"
