"""Tar files: what Python's `tarfile` finds in a whole one, and one class of error for everything else."""

import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reference.training.distillation.tar_index import BLOCK, LONGEST_NAME, Member, TarError, tar_members

NAMES = (
    "sa_1.jpg",
    "./sa_1.json",
    "d" * 90 + "/" + "e" * 80 + ".jpg",
    "straße/" + "ü" * 120 + ".jpg",
    "pipe:touch X #",
)
# A file of some kilobytes is written each time: 200 take two seconds.
fuzzed = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def make_tar(path: Path, kind: int, files: dict[str, bytes]) -> bytes:
    with tarfile.open(path, "w", format=kind) as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path.read_bytes()


def with_size(header: bytes, field: bytes) -> bytes:
    """A header block with another size field, and the checksum that fits."""
    block = header[:124] + field + header[136:148] + b" " * 8 + header[156:BLOCK]
    return block[:148] + f"{sum(block):06o}\0 ".encode() + block[156:]


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_kind_of_tar_gives_what_tarfile_finds(tmp_path: Path, kind: int) -> None:
    names = NAMES[:3] if kind == tarfile.USTAR_FORMAT else NAMES  # ustar holds no name of 240 bytes
    whole = make_tar(tmp_path / "t.tar", kind, {name: name.encode() * 50 for name in names})
    with tarfile.open(tmp_path / "t.tar") as archive:
        expected = [Member(entry.name, entry.offset_data, entry.size) for entry in archive]
    assert list(tar_members(tmp_path / "t.tar")) == expected
    assert [whole[m.offset : m.offset + m.size] for m in expected] == [name.encode() * 50 for name in names]


def test_links_folders_and_devices_are_no_files(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "t.tar", "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            entry = tarfile.TarInfo(f"link-{kind.decode()}.jpg")
            entry.type, entry.linkname = kind, "/etc/passwd"
            archive.addfile(entry)
        archive.addfile(tarfile.TarInfo("file.jpg"))
    assert [member.name for member in tar_members(tmp_path / "t.tar")] == ["file.jpg"]


def test_a_cut_or_damaged_tar_gives_what_came_before_and_then_says_where(tmp_path: Path) -> None:
    whole = make_tar(tmp_path / "t.tar", tarfile.GNU_FORMAT, {f"{n}.jpg": b"x" * 600 for n in range(3)})
    each = BLOCK + 2 * BLOCK
    negative = with_size(whole[each : each + BLOCK], b"\xff" * 12)  # -1 in GNU's large numbers
    six_gigabytes = with_size(whole[each : each + BLOCK], b"\x80" + (6 * 2**30).to_bytes(11, "big"))
    cases = {
        "cut: the file at byte 1536 has 600 bytes, 488 are there": whole[: 2 * each - 536],
        "cut within the header at byte 1536": whole[: each + 100],
        "cut: it ends at byte 4608 without the empty blocks": whole[: 3 * each],
        "no tar header at byte 1536": whole[: each + 10] + b"?" + whole[each + 11 :],  # tarfile ends here, silently
        "an empty header at byte 1536, 2007168 bytes before the end": whole[:each].ljust(each + 2007168, b"\0"),
        "no tar header at byte 1536; expected an uncompressed": whole[:each] + negative + whole[each + BLOCK :],
        "has 6442450944 bytes": whole[:each] + six_gigabytes + whole[each + BLOCK :],
    }
    for message, data in cases.items():
        (tmp_path / "t.tar").write_bytes(data)
        found = []
        with pytest.raises(TarError, match=message):
            for member in tar_members(tmp_path / "t.tar"):
                found.append(member.name)
        assert found[0] == "0.jpg" and len(found) == (3 if "4608" in message else 1), message


def test_a_name_of_gigabytes_and_a_chain_of_long_names_are_refused(tmp_path: Path) -> None:
    whole = make_tar(tmp_path / "t.tar", tarfile.GNU_FORMAT, {"a" * 200 + ".jpg": b"x"})
    assert whole[156:157] == b"L"
    with (tmp_path / "t.tar").open("wb") as file:  # sparse: 6 GB that take no disk
        file.write(with_size(whole[:BLOCK], b"%011o\0" % (6 * 2**30)))
        file.truncate(7 * 2**30)
    with pytest.raises(TarError, match=f"an extended header of 6442450944 bytes at byte 0, at most {LONGEST_NAME}"):
        list(tar_members(tmp_path / "t.tar"))
    # tarfile calls itself for each of these, until Python's stack ends.
    (tmp_path / "t.tar").write_bytes(whole[: 2 * BLOCK] * 5000 + whole[2 * BLOCK :])
    assert [member.name for member in tar_members(tmp_path / "t.tar")] == ["a" * 200 + ".jpg"]


def test_a_compressed_tar_and_an_empty_file_are_none(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "t.tar", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("a.jpg"))
    (tmp_path / "long.tar").write_bytes((tmp_path / "t.tar").read_bytes() * 20)
    (tmp_path / "empty.tar").touch()
    for name, message in (
        ("t", "cut within the header at byte 0"),
        ("long", "expected an uncompressed tar"),
        ("empty", "ends at byte 0"),
    ):
        with pytest.raises(TarError, match=message):
            list(tar_members(tmp_path / f"{name}.tar"))


@fuzzed
@given(
    changes=st.lists(st.tuples(st.integers(0, 12 * BLOCK), st.binary(min_size=1, max_size=12)), max_size=4),
    cut=st.integers(0, 14 * BLOCK),
    kind=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_whatever_is_changed_only_bytes_of_the_file_are_given_or_a_tar_error(
    tmp_path: Path, changes: list[tuple[int, bytes]], cut: int, kind: int
) -> None:
    path = tmp_path / "t.tar"
    data = bytearray(make_tar(path, kind, {"a" * 120 + ".jpg": b"1" * 700, "ü.json": b"2"}))
    for at, new in changes:
        data[at : at + len(new)] = new
    for at in range(0, 12 * BLOCK, BLOCK):  # half of the examples get checksums that fit
        if cut % 2:
            data[at : at + BLOCK] = with_size(bytes(data[at : at + BLOCK]), bytes(data[at + 124 : at + 136]))
    path.write_bytes(data[:cut] if cut > BLOCK else data)
    try:
        for member in tar_members(path):
            assert member.offset >= 0 and member.size >= 0 and member.offset + member.size <= path.stat().st_size
    except TarError as error:
        assert "\n" not in str(error)
