"""``mobilesam-export web``: what it serves, with which headers, and what it refuses, without Node.js and browser."""

import http.client
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mobilesam_export import web
from mobilesam_export.errors import ExportError
from tests.small_bundle import SIZE, write_bundle


def bundle_at(directory: Path, target: str = "tflite") -> Path:
    """A bundle with a file in it that its manifest does not name."""
    write_bundle(directory, target)
    (directory / "private.txt").write_text("private")
    return directory


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A page that counts as built."""
    app = tmp_path / "app"
    (app / "dist" / "engines").mkdir(parents=True)
    (app / "dist" / "index.html").write_text("<title>page</title>")
    (app / "dist" / "engines" / "engine.wasm").write_bytes(b"\0asm")
    (app / "package.json").write_text("{}")
    monkeypatch.setattr(web, "APP", app)
    monkeypatch.setattr(web.built_page, "__defaults__", (app,))
    return app


@pytest.fixture
def port(tmp_path: Path, app: Path) -> Iterator[int]:
    with web.open_server(bundle_at(tmp_path / "bundle"), port=0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def get(port: int, path: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, body


def test_the_page_and_the_models_come_with_the_headers_for_threads(port: int) -> None:
    for path, kind in (
        ("/", "text/html"),
        ("/engines/engine.wasm", "application/wasm"),
        ("/bundle/manifest.json", "application/json"),
        ("/bundle/tflite/mobile_sam_encoder.tflite", "application/octet-stream"),
        ("/photos/coffee.png", "image/png"),
    ):
        status, headers, body = get(port, path)
        assert (status, headers["content-type"]) == (200, kind), path
        assert headers["cross-origin-opener-policy"] == "same-origin"
        assert headers["cross-origin-embedder-policy"] == "require-corp"
        assert int(headers["content-length"]) == len(body) > 0
    assert json.loads(get(port, "/bundle/manifest.json")[2])["image_size"] == SIZE


@pytest.mark.parametrize(
    "path",
    [
        "/nothing", "/engines/", "/bundle/", "/bundle/private.txt", "/bundle/tflite/../private.txt",
        "/bundle/%2e%2e/app/package.json", "/../package.json", "/photos/../contract.py", "/photos/%2e%2e%2fcontract.py",
        "//etc/passwd", "/vectors/vectors.json", "/%00", "/" + "a" * 300,
    ],
)  # fmt: skip
def test_nothing_else_is_served(port: int, path: str) -> None:
    assert get(port, path)[0] == 404


def test_vectors_in_the_bundle_are_served(tmp_path: Path, app: Path) -> None:
    bundle = bundle_at(tmp_path / "with")
    (bundle / "vectors").mkdir()
    (bundle / "vectors" / "vectors.json").write_text("{}")
    with web.open_server(bundle, port=0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        assert get(server.server_port, "/vectors/vectors.json")[0] == 200
        server.shutdown()
        thread.join()


def test_a_bundle_without_files_for_the_browser_is_refused(tmp_path: Path, app: Path) -> None:
    with pytest.raises(ExportError, match="holds coreml; the browser takes onnx or tflite"):
        web.open_server(bundle_at(tmp_path / "coreml", "coreml"), port=0)


def test_a_port_that_is_taken_is_told(tmp_path: Path, app: Path, port: int) -> None:
    with pytest.raises(ExportError, match=f"127.0.0.1:{port} cannot be served .*choose another --port"):
        web.open_server(tmp_path / "bundle", port=port)


def test_without_a_built_page_and_npm_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ExportError, match="clone the repository"):
        web.built_page(tmp_path)
    (tmp_path / "package.json").write_text("{}")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ExportError, match=r"install Node\.js 20"):
        web.built_page(tmp_path)


def test_a_build_that_fails_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "package.json").write_text("{}")
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho first >&2\necho 'no such package' >&2\nexit 1\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(ExportError, match=r"npm ci --ignore-scripts .* failed in .* \(no such package\)"):
        web.built_page(tmp_path)
