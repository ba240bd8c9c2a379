"""``mobilesam-export web``."""

import argparse
import sys
from pathlib import Path

from rich.console import Console

from mobilesam_export.cli.command import Command
from mobilesam_export.progress import Progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("--bundle", type=Path, default=Path("dist"), metavar="DIR", help="default: dist")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    parser.add_argument("--port", type=int, default=8000, help="default: 8000; 0 takes any free one")


def run(arguments: argparse.Namespace, console: Console, progress: Progress) -> int:
    """Serve until it is interrupted."""
    from mobilesam_export.web import built_page, is_built, open_server

    if not is_built():
        print("building the page once, with npm", file=sys.stderr)
        built_page()
    with open_server(arguments.bundle, arguments.host, arguments.port) as server:
        print(f"http://{arguments.host}:{server.server_port}/", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return 0  # Ctrl-C is how it ends
    return 0


WEB = Command(
    "web",
    "serve the demo page over a bundle",
    "mobilesam-export web --bundle dist",
    add_arguments,
    run,
    loads_pytorch=False,
)
