"""The Swift that the documentation shows is the kit's own, and names what the packages are called."""

import re
from pathlib import Path

import pytest

from mobilesam_export.targets.coreml.write import DECODER_NAME, ENCODER_NAME

ROOT = Path(__file__).parents[3]
APP = ROOT / "apps" / "ios"
EXAMPLE = (APP / "Sample" / "Example.swift").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", [ROOT / "docs" / "ios.md", APP / "README.md"], ids=["docs", "apps"])
def test_pages_show_the_example_that_is_compiled(page: Path) -> None:
    assert re.findall(r"^```swift\n(.*?)^```", page.read_text(encoding="utf-8"), re.S | re.M) == [EXAMPLE]


def test_the_packages_names_make_the_classes_that_the_code_uses() -> None:
    classes = {Path(name).stem for name in (ENCODER_NAME, DECODER_NAME)}
    generated = (APP / "Stubs" / "Generated" / "mobile_sam.swift").read_text(encoding="utf-8")
    assert set(re.findall(r"^class (\w+)", generated, re.M)) == classes
    for name in ("Example.swift", "Session.swift"):
        source = (APP / "Sample" / name).read_text(encoding="utf-8")
        assert set(re.findall(r"try (mobile_sam_\w+)\(configuration:", source)) == classes, name
