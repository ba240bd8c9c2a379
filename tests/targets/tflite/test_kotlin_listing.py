"""The Kotlin of docs/android.md makes each native buffer once, frees all, and names the ports that the files have."""

import re
from pathlib import Path

from mobilesam_export.contract import Contract

ROOT = Path(__file__).parents[3]


def listing() -> str:
    """The class, without its comments."""
    text = (ROOT / "docs" / "android.md").read_text(encoding="utf-8")
    (found,) = re.findall(r"^class MobileSam\(.*?^\}$", text, re.MULTILINE | re.DOTALL)
    return re.sub(r"//.*|/\*\*.*?\*/", "", found)


def blocks_of(head: str) -> list[str]:
    """What stands in the braces behind each function (or other head) of the class."""
    return re.findall(rf"^    {head}.*?\{{\n(.*?)^    \}}$", listing(), re.MULTILINE | re.DOTALL)


def test_no_buffer_is_made_for_a_photo_or_a_tap() -> None:
    functions = blocks_of("fun")
    assert len(functions) == 2  # setImage and segment
    assert not [body for body in functions if re.search(r"create\w*Buffer", body)]


def test_every_buffer_that_is_made_is_closed() -> None:
    makers = re.findall(r"private val (\w+) =[^=]*?create\w+Buffer\(", listing())
    (closed,) = re.findall(r"override fun close\(\) = (.*)\.forEach \{ it\.close\(\) \}", listing())
    assert len(makers) == len(re.findall(r"create\w+Buffer\(", listing())) == 4
    assert set(makers) == set(re.findall(r"\w+", closed)) - {"listOf", "values"}


def test_it_names_every_port() -> None:
    contract = Contract()
    ports = (*contract.encoder_inputs, *contract.encoder_outputs, *contract.decoder_inputs, *contract.decoder_outputs)
    named = set(re.findall(r'"(\w+)"', listing())) - {"encode", "decode"}
    assert named == {port.name for port in ports}
