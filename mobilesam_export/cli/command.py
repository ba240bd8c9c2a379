"""What a command of the command line is."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console

from mobilesam_export.progress import Progress


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        summary: for the list of commands, without a full stop.
        example: a whole line.
        add_arguments: says what it takes.
        run: does it and returns the exit status. Artifacts' paths go to stdout, everything else to the console.
        loads_pytorch: whether it does, and needs the memory that this takes.
    """

    name: str
    summary: str
    example: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace, Console, Progress], int]
    loads_pytorch: bool = True
