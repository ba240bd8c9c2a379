"""The Swift that the documentation shows is the kit's own, and names what the packages are called."""

import re
from pathlib import Path

import pytest

from mobilesam_export.targets.coreml.write import DECODER_NAME, ENCODER_NAME

ROOT = Path(__file__).parents[3]
APP = ROOT / "apps" / "ios"
EXAMPLE = (APP / "Sample" / "Sample" / "Example.swift").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", [ROOT / "docs" / "ios.md", APP / "README.md"], ids=["docs", "apps"])
def test_pages_show_the_example_that_is_compiled(page: Path) -> None:
    example, *others = re.findall(r"^```swift\n(.*?)^```", page.read_text(encoding="utf-8"), re.S | re.M)
    assert example == EXAMPLE
    engine = (APP / "Sources" / "MobileSamCoreAI" / "CoreAIEngine.swift").read_text(encoding="utf-8")
    for call in re.findall(r"Segmenter\.(\w+)\((\w+):", "".join(others)):  # Core AI's, in one line
        assert f"static func {call[0]}({call[1]}: URL) async throws -> Segmenter" in engine


def test_the_packages_names_make_the_classes_that_the_code_uses() -> None:
    classes = {Path(name).stem for name in (ENCODER_NAME, DECODER_NAME)}
    generated = (APP / "Stubs" / "Generated" / "mobile_sam.swift").read_text(encoding="utf-8")
    assert set(re.findall(r"^class (\w+)", generated, re.M)) == classes
    for name in ("Example.swift", "Session.swift"):
        source = (APP / "Sample" / "Sample" / name).read_text(encoding="utf-8")
        assert set(re.findall(r"try (mobile_sam_\w+)\(configuration:", source)) == classes, name


def test_the_xcode_project_refers_to_what_it_defines() -> None:
    text = (APP / "Sample" / "Sample.xcodeproj" / "project.pbxproj").read_text(encoding="utf-8")
    objects = re.findall(r"^\t\t(\w{24})(?: /\*.*?\*/)? = \{", text, re.M)
    assert len(objects) == len(set(objects))
    assert set(re.findall(r"\b5A\w{22}\b", text)) == set(objects)
    package = (APP / "Package.swift").read_text(encoding="utf-8")
    assert re.findall(r"productName = (\w+);\n\t\t\};", text) == re.findall(r'\.library\(name: "(\w+)"', package)
