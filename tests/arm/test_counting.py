"""Instructions fall into their classes; what is missing is said; nothing is measured twice."""

import argparse
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from benchmarks import arm
from benchmarks.emulator import arm64

# As GNU's assembler encodes them.
WORDS = {
    "fmla v0.4s, v1.4s, v2.4s": (0x4E22CC20, "float_multiply_add"),
    "fmla v0.4s, v1.4s, v2.s[3]": (0x4FA21820, "float_multiply_add"),
    "fmla z0.s, p0/m, z1.s, z2.s": (0x65A20020, "float_multiply_add"),
    "fmul v0.4s, v1.4s, v2.4s": (0x6E22DC20, "vector_other"),
    "sdot v0.4s, v1.16b, v2.4b[3]": (0x4FA2E820, "int8_dot"),
    "udot v0.4s, v1.16b, v2.16b": (0x6E829420, "int8_dot"),
    "smmla v0.4s, v1.16b, v2.16b": (0x4E82A420, "int8_matrix"),
    "fmopa za0.s, p0/m, p1/m, z0.s, z1.s": (0x80812000, "outer_product"),
    "ld1w {z0.s}, p0/z, [x0]": (0xA540A000, "vector_load"),
    "ldp q0, q1, [x0], #32": (0xACC10400, "vector_load"),
    "st1 {v0.4s}, [x0]": (0x4C007800, "vector_store"),
    "ldr x0, [x1, #8]": (0xF9400420, "load"),
    "stp x0, x1, [sp, #-16]!": (0xA9BF07E0, "store"),
    "madd x0, x1, x2, x3": (0x9B020C20, "other"),
}

# What the plugin calls of QEMU, and the test does not.
QEMU = """
void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id a, on_translation b) {}
void qemu_plugin_register_vcpu_syscall_cb(plugin_id a, on_syscall b) {}
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *a, int b, void *c, uint64_t d) {}
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *a) { return 0; }
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *a, size_t b) { return 0; }
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *a) { return 0; }
"""


@pytest.mark.arm
def test_an_instruction_belongs_to_its_class(tmp_path: Path) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed; apt-get install gcc")
    source = Path(arm64.__file__).with_name("count_instructions.c")
    program = tmp_path / "classes.c"
    program.write_text(
        f'#include "{source}"\n{QEMU}int main(int n, char **words) {{\n'
        "  for (int i = 1; i < n; i++) puts(class_of(strtoul(words[i], 0, 16)));\n}\n"
    )
    subprocess.run(["gcc", "-w", str(program), "-o", str(tmp_path / "classes")], check=True)
    words = [f"{word:x}" for word, _ in WORDS.values()]
    told = subprocess.run([tmp_path / "classes", *words], capture_output=True, text=True, check=True).stdout.split()
    assert dict(zip(WORDS, told, strict=True)) == {text: name for text, (_, name) in WORDS.items()}


def test_what_is_missing_is_said_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(arm64.sys, "platform", "linux")
    monkeypatch.setattr(arm64.shutil, "which", lambda name: None if name == "qemu-aarch64" else f"/usr/bin/{name}")
    assert arm.main(["--cache", str(tmp_path), "--set-up"]) == 1
    told = capsys.readouterr().err
    assert told == ("error: qemu-aarch64 not found; on Debian: apt-get install --no-install-recommends qemu-user\n")
    monkeypatch.setattr(arm64.sys, "platform", "darwin")
    assert arm.main(["--cache", str(tmp_path), "--set-up"]) == 1
    assert "runs on Linux, this is darwin" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def cell(contender: str, core: str, encoder: dict[str, int], files: list[str], **more: object) -> arm.Cell:
    iou = {"mask_iou_to_pytorch": 0.98, "mask_iou_here_to_pytorch": 0.99, "mask_iou_to_here": None}
    rest = {"gate": None, "passed": None, "decoder": {"other": 2_500_000}}
    return {
        "contender": contender,
        "core": core,
        "image_size": 224,
        "files": files,
        "encoder": encoder,
        **iou,
        **rest,
        **more,
    }


def test_only_what_is_not_there_with_the_same_files_is_measured(tmp_path: Path) -> None:
    files = {}
    for name in ("ours", "official style"):
        files[name] = [tmp_path / f"{name}-{graph}" for graph in ("encoder", "decoder")]
        for path in files[name]:
            path.write_text(name)
    sums = [arm.sha256_of(path) for path in files["ours"]]
    asked = argparse.Namespace(core=["cortex-a76", "i8mm"], contender=["ours", "official style"])
    cells = [cell("ours", "cortex-a76", {}, sums), cell("official style", "i8mm", {}, ["of", "older files"])]
    assert arm.missing(asked, cells, files, 224) == [
        ("official style", "cortex-a76"),
        ("ours", "i8mm"),
        ("official style", "i8mm"),
    ]
    assert len(arm.missing(asked, cells, files, 512)) == 4


def test_the_table_compares_with_the_official_style_on_the_same_processor() -> None:
    counts = {name: 0 for names in arm.CLASSES.values() for name in names}
    official = {**counts, "float_multiply_add": 400_000_000, "vector_load": 200_000_000}
    ours = {**counts, "int8_dot": 100_000_000, "store": 50_000_000, "other": 150_000_000}
    cells = [
        cell("official style", "cortex-a76", official, []),
        cell("ours, int8", "cortex-a76", ours, [], gate=0.9, passed=False),
        cell("ours, int8", "i8mm", ours, [], gate=0.9, passed=True),
    ]
    table = arm.markdown(json.loads(json.dumps({"cells": cells}))).splitlines()
    assert (
        table[2] == "| 224 | cortex-a76 | official style | 600 | 1.00x | 400 | 200 | 0 | 2.5 | 0.9800 | 0.9900 | - |  |"
    )
    assert table[3].startswith("| 224 | cortex-a76 | ours, int8 | 300 | 2.00x | 100 | 50 | 150 | 2.5 |")
    assert table[3].endswith("| 0.9 MISSED |")
    assert "| i8mm | ours, int8 | 300 |  | 100 |" in table[4]  # no official style to compare with
