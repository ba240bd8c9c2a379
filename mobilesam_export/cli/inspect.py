"""``mobilesam-export inspect``."""

import argparse
import sys
from pathlib import Path

from rich.console import Console

from mobilesam_export.bundle.manifest import Manifest
from mobilesam_export.cli.command import Command
from mobilesam_export.progress import Progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("bundle", type=Path, metavar="DIR")
    parser.add_argument("--json", action="store_true", help="print the manifest")


def run(arguments: argparse.Namespace, console: Console, progress: Progress) -> int:
    """Show a bundle."""
    from mobilesam_export.bundle.tables import print_manifest

    manifest = Manifest.read(arguments.bundle)
    if arguments.json:
        print(manifest.to_json())
    else:
        print_manifest(manifest, Console(file=sys.stdout))
    for entry in manifest.targets.values():
        entry.check_files(arguments.bundle)
    if not arguments.json:
        print("all files are as the manifest says")
    return 0


INSPECT = Command(
    "inspect",
    "show what a bundle holds",
    "mobilesam-export inspect dist",
    add_arguments,
    run,
    loads_pytorch=False,
)
