"""``mobilesam-export receipts``."""

import argparse
from pathlib import Path

from rich.console import Console

from mobilesam_export.cli.command import Command
from mobilesam_export.progress import Progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("receipts", type=Path, nargs="+", metavar="FILE", help="from an app's measure screen")


def run(arguments: argparse.Namespace, console: Console, progress: Progress) -> int:
    """Print a table."""
    from mobilesam_export.receipts import read_receipt, receipt_table

    print(receipt_table([read_receipt(path) for path in arguments.receipts]))
    return 0


RECEIPTS = Command(
    "receipts",
    "check what devices measured and print a table",
    "mobilesam-export receipts pixel.json iphone.json",
    add_arguments,
    run,
    loads_pytorch=False,
)
