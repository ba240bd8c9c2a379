"""``mobilesam-export vectors``."""

import argparse
from pathlib import Path

from rich.console import Console

from mobilesam_export.cli.command import Command
from mobilesam_export.cli.shared import add_parts_of_checkpoint, model_of
from mobilesam_export.progress import Progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("out", type=Path, metavar="OUT", help="a new folder")
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="add its S, its slots and its weights' masks")
    parser.add_argument("--checkpoint", help="what it was exported from (default: as the manifest says)")
    add_parts_of_checkpoint(parser)


def run(arguments: argparse.Namespace, console: Console, progress: Progress) -> int:
    """Write conformance vectors."""
    from mobilesam_export.vectors import write_vectors

    print(write_vectors(arguments.out, arguments.bundle, lambda m: model_of(m, arguments)))
    return 0


VECTORS = Command(
    "vectors",
    "write conformance vectors for host code",
    "mobilesam-export vectors vectors --bundle dist",
    add_arguments,
    run,
)
