"""Serve the demo page of ``apps/web`` over a bundle, with the headers that WebAssembly threads need."""

import shutil
import subprocess
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mobilesam_export import targets
from mobilesam_export.bundle.manifest import Manifest
from mobilesam_export.errors import ExportError
from mobilesam_export.photos import PHOTO_DIR

APP = Path(__file__).parent.parent / "apps" / "web"
# Only a page that is isolated from other origins may share memory among threads.
HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
_TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm", ".json": "application/json"}


def is_built(app: Path = APP) -> bool:
    """Whether the page is there already."""
    return (app / "dist" / "index.html").is_file()


def built_page(app: Path = APP) -> Path:
    """The folder of the built page; it is built first if it is not there.

    Raises:
        ExportError: without the page's sources or Node.js, or if the build fails.
    """
    page = app / "dist"
    if is_built(app):
        return page
    if not (app / "package.json").is_file():
        raise ExportError(
            f"the page's sources are not at {app}; clone the repository and install it with pip install -e"
        )
    npm = shutil.which("npm")
    if npm is None:
        raise ExportError(f"the page in {app} is not built yet and npm is not installed; install Node.js 20 or later")
    for arguments in (["ci", "--ignore-scripts", "--no-audit", "--no-fund"], ["run", "build"]):
        done = subprocess.run([npm, *arguments], cwd=app, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            last = (done.stderr or done.stdout).strip().splitlines()[-1:]
            raise ExportError(f"npm {' '.join(arguments)} failed in {app} ({''.join(last)}); run it there to see why")
    return page


def open_server(bundle: Path, host: str = "127.0.0.1", port: int = 8000) -> ThreadingHTTPServer:
    """A server of the page at ``/``, the bundle at ``/bundle/``, photos at ``/photos/``, vectors at ``/vectors/``.

    Of the bundle it gives what its manifest names, and the ``vectors`` folder in it if there is one.

    Args:
        port: 0 for any free one.

    Raises:
        ExportError: no bundle, no files for the browser in it, no page, or a port that is taken.
    """
    manifest = Manifest.read(bundle)
    files = {file.path for entry in manifest.targets.values() for file in entry.files if file.kind == "file"}
    playable = [target.name for target in targets.ALL if "web" in target.hosts]
    if manifest.targets.keys().isdisjoint(playable):
        raise ExportError(
            f"{bundle} holds {', '.join(manifest.targets)}; the browser takes {' or '.join(playable)}, export one"
        )
    served = {f"/bundle/{path}": bundle / path for path in {"manifest.json", *files}}
    folders = {"/photos/": PHOTO_DIR, "/vectors/": bundle / "vectors", "/": built_page()}
    try:
        return ThreadingHTTPServer((host, port), partial(_Handler, served, folders))
    except OSError as error:
        raise ExportError(
            f"{host}:{port} cannot be served ({error.strerror or error}); choose another --port"
        ) from error


class _Handler(SimpleHTTPRequestHandler):
    """Files of an allow-list and of a few folders, without listings."""

    extensions_map = {**SimpleHTTPRequestHandler.extensions_map, **_TYPES}  # noqa: RUF012  (as in its base class)

    def __init__(self, files: dict[str, Path], folders: dict[str, Path], *arguments: object) -> None:
        self._files, self._folders = files, folders
        super().__init__(*arguments)  # type: ignore[arg-type]

    def translate_path(self, path: str) -> str:
        """Where the file of a URL lies; a path that does not exist for whatever is not served."""
        path = unquote(urlsplit(path).path)
        path = "/index.html" if path == "/" else path
        try:
            file = self._files.get(path) or self._in_folder(path)
            found = file is not None and file.is_file()
        except (OSError, ValueError):  # a name that no file can have
            found = False
        return str(file) if found else "/dev/null/missing"

    def _in_folder(self, path: str) -> Path | None:
        prefix, folder = next((p, f) for p, f in self._folders.items() if path.startswith(p) or p == "/")
        inside = (folder / path.removeprefix(prefix)).resolve()
        return inside if inside.is_relative_to(folder.resolve()) else None

    def end_headers(self) -> None:
        """Every answer carries the headers, errors too."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Silent: the page tells what is wrong."""
