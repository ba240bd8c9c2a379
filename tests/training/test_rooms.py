"""The rooms of the training: distillation and demo_weights stand on scenes and on what lies beside the rooms."""

import ast
from collections.abc import Iterator
from pathlib import Path

import reference.training

TRAINING = Path(reference.training.__path__[0])
MAY_IMPORT = {"scenes": set[str](), "distillation": {"scenes"}, "demo_weights": {"scenes"}, "shared": set[str]()}


def room_of(module: str) -> str:
    """The room that a dotted name under `reference.training` lies in; "shared" for what stands beside them."""
    first = module.removeprefix("reference.training.").split(".")[0]
    return first if (TRAINING / first).is_dir() else "shared"


def wrong_imports(module: str, text: str) -> Iterator[str]:
    """Imports in a module's text that leave its room for one that it may not know."""
    here = room_of(module)
    for node in ast.walk(ast.parse(text)):
        before = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
        names = [before + alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        for name in names:
            there = room_of(name)
            if name.startswith("reference.training.") and there not in {here, "shared", *MAY_IMPORT[here]}:
                yield f"{module} imports {name}"


def test_no_room_imports_another_but_all_may_use_scenes() -> None:
    sources = {
        ".".join(path.relative_to(TRAINING.parents[1]).with_suffix("").parts): path.read_text(encoding="utf-8")
        for path in TRAINING.rglob("*.py")
    }
    del sources["reference.training.__main__"]  # the command line knows them all
    assert {room_of(module) for module in sources} == MAY_IMPORT.keys()
    assert [line for module, text in sources.items() for line in wrong_imports(module, text)] == []


def test_the_rule_notices_what_it_is_for() -> None:
    lines = "from reference.training.distillation.embed import embed\nimport reference.training.scenes.show\n"
    assert len(list(wrong_imports("reference.training.scenes.scenes", lines))) == 1
    assert len(list(wrong_imports("reference.training.losses", lines))) == 2
    assert len(list(wrong_imports("reference.training.demo_weights.trainer", lines))) == 1
    assert list(wrong_imports("reference.training.distillation.plan", lines)) == []
