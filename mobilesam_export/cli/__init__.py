"""The command line of everything but training. Artifacts' paths go to stdout, everything else to stderr."""

import argparse
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from rich.console import Console

from mobilesam_export.chatter import own_log, own_stderr
from mobilesam_export.cli.accuracy import ACCURACY
from mobilesam_export.cli.convert_checkpoint import CONVERT_CHECKPOINT
from mobilesam_export.cli.everything import EVERYTHING
from mobilesam_export.cli.export import EXPORT
from mobilesam_export.cli.inspect import INSPECT
from mobilesam_export.cli.receipts import RECEIPTS
from mobilesam_export.cli.segment import SEGMENT
from mobilesam_export.cli.vectors import VECTORS
from mobilesam_export.cli.verify import VERIFY_BUNDLE
from mobilesam_export.cli.web import WEB
from mobilesam_export.errors import ExportError
from mobilesam_export.memory import out_of_memory, require_room_to_load
from mobilesam_export.progress import ConsoleProgress, Progress
from mobilesam_export.version import __version__

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130
COMMANDS = {
    command.name: command
    for command in (
        EXPORT,
        VERIFY_BUNDLE,
        INSPECT,
        SEGMENT,
        EVERYTHING,
        ACCURACY,
        VECTORS,
        CONVERT_CHECKPOINT,
        RECEIPTS,
        WEB,
    )
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mobilesam-export",
        description="Export MobileSAM for phones, verified against the reference.",
        epilog="example: mobilesam-export export --target onnx --out dist",
    )
    parser.add_argument("--version", action="version", version=f"mobilesam-export {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    for command in COMMANDS.values():
        added = commands.add_parser(
            command.name,
            help=command.summary,
            description=command.summary[0].upper() + command.summary[1:] + ".",
            epilog=f"example: {command.example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.add_argument("--debug", action="store_true", help="show the whole trace of an error")
        added.add_argument("-q", "--quiet", action="store_true", help="no progress on stderr")
        command.add_arguments(added)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0; 1 for an error, told in one line; 2 for wrong usage; 130 after Ctrl-C.
    """
    arguments = _parser().parse_args(argv)
    with own_stderr() as terminal, own_log(terminal):
        return _run_and_tell(arguments, Console(file=terminal, soft_wrap=True))


def _run_and_tell(arguments: argparse.Namespace, console: Console) -> int:
    progress = Progress() if arguments.quiet else ConsoleProgress(console)

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        progress.interrupt()

    # SIGTERM too, so that staging directories go with us.
    previous = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        command = COMMANDS[arguments.command]
        if command.loads_pytorch:
            require_room_to_load()
        return command.run(arguments, console, progress)
    except KeyboardInterrupt:
        print(f"error: interrupted; {progress.outcome}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except Exception as error:
        told = out_of_memory(error)
        # The reference's own errors (checkpoint, image, prompt) are ValueErrors with a whole explanation.
        if arguments.debug or (told is None and not isinstance(error, ExportError | ValueError | OSError)):
            raise
        print(f"error: {told or error or type(error).__name__}", file=sys.stderr)
        return EXIT_FAILED
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
