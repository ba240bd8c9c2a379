"""The official checkpoint comes once, resumes, and is trusted by its sha256 only; served here from 127.0.0.1."""

import hashlib
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from reference import CheckpointError, MobileSam, download, load_mobile_sam, save_checkpoint
from reference.checkpoint import weights_sha256
from reference.download import official_checkpoint

PAYLOAD = np.random.default_rng(0).bytes(3_000_000)


@dataclass
class Site:
    """A server with one file, and how it misbehaves.

    Attributes:
        ranges: whether it honours a Range header.
        cut_after: bytes of an answer after which it hangs up.
        requested: the Range header of every request, None without one.
    """

    url: str = ""
    content: bytes = PAYLOAD
    status: int = 200
    ranges: bool = True
    announce_length: bool = True
    cut_after: int | None = None
    requested: list[str | None] = field(default_factory=list)


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            site.requested.append(wanted)
            body = site.content
            if wanted and site.ranges:
                body = body[int(wanted.removeprefix("bytes=").removesuffix("-")) :]
            self.send_response(206 if wanted and site.ranges else site.status)
            if site.announce_length:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: site.cut_after])

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site.url = f"http://127.0.0.1:{server.server_address[1]}/mobile_sam.pt"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield site
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the file goes; the payload is the official one, and no proxy stands before the server."""
    path = tmp_path / "cache" / "mobile_sam.pt"
    monkeypatch.setattr(download, "cached_official_checkpoint", lambda: path)
    monkeypatch.setattr(download, "OFFICIAL_SIZE_BYTES", len(PAYLOAD))
    monkeypatch.setattr(download, "OFFICIAL_SHA256", hashlib.sha256(PAYLOAD).hexdigest())
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return path


def part_of(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def test_it_is_downloaded_once(site: Site, cached: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert official_checkpoint(site.url) == cached
    assert official_checkpoint(site.url) == cached
    assert cached.read_bytes() == PAYLOAD
    assert site.requested == [None]
    assert not part_of(cached).exists()
    assert capsys.readouterr().out == ""  # progress goes to stderr, stdout belongs to the results


def test_a_cut_connection_is_resumed_where_it_broke(site: Site, cached: Path) -> None:
    site.cut_after = 1_000_000
    with pytest.raises(CheckpointError, match=r"ended after 1,000,000 of 3,000,000 bytes.*it resumes"):
        official_checkpoint(site.url)
    assert part_of(cached).stat().st_size == 1_000_000
    with pytest.raises(CheckpointError, match=r"ended after 2,000,000 of 3,000,000 bytes"):
        official_checkpoint(site.url)
    site.cut_after = None
    assert official_checkpoint(site.url).read_bytes() == PAYLOAD
    assert site.requested == [None, "bytes=1000000-", "bytes=2000000-"]


def test_a_server_without_ranges_sends_all_of_it_again(site: Site, cached: Path) -> None:
    cached.parent.mkdir()
    part_of(cached).write_bytes(b"x" * 1000)
    site.ranges = False
    assert official_checkpoint(site.url).read_bytes() == PAYLOAD
    assert site.requested == ["bytes=1000-"]


def test_a_server_that_announces_no_length_is_read_to_the_end(site: Site, cached: Path) -> None:
    site.announce_length = False
    assert official_checkpoint(site.url).read_bytes() == PAYLOAD


def test_a_file_with_another_sha256_is_removed(site: Site, cached: Path) -> None:
    site.content = b"?" + PAYLOAD[1:]
    with pytest.raises(CheckpointError, match=r"has sha256 \w{12}, expected \w{12}; it was removed, try again"):
        official_checkpoint(site.url)
    assert not cached.exists()
    assert not part_of(cached).exists()


def test_a_broken_part_is_not_resumed_for_ever(site: Site, cached: Path) -> None:
    cached.parent.mkdir()
    part_of(cached).write_bytes(b"x" * 1000)
    with pytest.raises(CheckpointError, match="it was removed, try again"):
        official_checkpoint(site.url)
    assert official_checkpoint(site.url).read_bytes() == PAYLOAD


@pytest.mark.parametrize("size", [len(PAYLOAD) + 1, len(PAYLOAD)])
def test_a_part_of_the_full_size_or_more_is_not_asked_to_grow(site: Site, cached: Path, size: int) -> None:
    cached.parent.mkdir()
    part_of(cached).write_bytes((PAYLOAD + b"x")[:size])
    assert official_checkpoint(site.url).read_bytes() == PAYLOAD
    assert site.requested == ([None] if size > len(PAYLOAD) else [])


def test_a_login_page_in_its_place_is_not_kept(site: Site, cached: Path) -> None:
    site.content = b"<html>Welcome to the hotel</html>"
    with pytest.raises(CheckpointError, match="the server offers 33 bytes, expected 3,000,000"):
        official_checkpoint(site.url)
    assert not part_of(cached).exists()


def test_a_server_error_tells_the_ways_out(site: Site, cached: Path) -> None:
    site.status = 404
    expected = rf'404.*; connect and try again .*, place mobile_sam\.pt at {re.escape(str(cached))}, .* with "demo"'
    with pytest.raises(CheckpointError, match=expected) as caught:
        official_checkpoint(site.url)
    assert "\n" not in str(caught.value)


def test_offline_tells_the_ways_out(site: Site, cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(CheckpointError, match=r'could not be downloaded .* use the bundled weights with "demo"'):
        official_checkpoint("http://127.0.0.1:1/mobile_sam.pt")  # nothing listens there


def test_a_cached_file_that_was_damaged_is_fetched_again(site: Site, cached: Path) -> None:
    cached.parent.mkdir()
    cached.write_bytes(b"?" + PAYLOAD[1:])
    assert official_checkpoint(site.url).read_bytes() == PAYLOAD
    assert site.requested == [None]


def test_official_loads_from_the_cache_without_network(
    small_sam: MobileSam, cached: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached.parent.mkdir()
    save_checkpoint(small_sam, cached)
    monkeypatch.setattr(download, "OFFICIAL_SIZE_BYTES", cached.stat().st_size)
    monkeypatch.setattr(download, "OFFICIAL_SHA256", hashlib.sha256(cached.read_bytes()).hexdigest())
    sam = load_mobile_sam("official", 224)
    assert sam.weights_source == "official"
    assert weights_sha256(sam) == weights_sha256(small_sam)


def test_the_known_file_is_the_published_one() -> None:
    assert download.OFFICIAL_SIZE_BYTES == 40_728_226
    assert download.OFFICIAL_SHA256 == "6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f"
    assert "f706ad9c4eb7f219c00d9050e46328518ffb65d2" in download.OFFICIAL_URL
