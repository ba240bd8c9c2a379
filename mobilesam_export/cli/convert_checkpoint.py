"""``mobilesam-export convert-checkpoint``."""

import argparse
from pathlib import Path

from rich.console import Console

from mobilesam_export.cli.command import Command
from mobilesam_export.cli.shared import add_parts_of_checkpoint
from mobilesam_export.contract import DEFAULT_IMAGE_SIZE
from mobilesam_export.errors import ExportError
from mobilesam_export.options import IMAGE_SIZE
from mobilesam_export.progress import Progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("checkpoint", metavar="IN", help="a path, official or demo")
    parser.add_argument("out", type=Path, metavar="OUT", help="to write: .pt, .pth or .safetensors")
    add_parts_of_checkpoint(parser)
    parser.add_argument(
        IMAGE_SIZE.flag, type=int, default=DEFAULT_IMAGE_SIZE, metavar="S",
        help=f"that a NanoSAM was trained at (default: {DEFAULT_IMAGE_SIZE}); the others' files do not depend on it",
    )  # fmt: skip
    parser.add_argument("--float16", action="store_true", help="half the size, rounded weights")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT")


def run(arguments: argparse.Namespace, console: Console, progress: Progress) -> int:
    """Write the checkpoint."""
    import torch

    from reference import load_mobile_sam, save_checkpoint

    if arguments.out.suffix not in (".pt", ".pth", ".safetensors"):
        raise ExportError(f"got OUT {arguments.out}, expected a name that ends in .pt, .pth or .safetensors")
    if arguments.out.exists() and not arguments.overwrite:
        raise ExportError(f"{arguments.out} exists; give another OUT or --overwrite")
    IMAGE_SIZE.check(arguments.image_size)
    with progress.step("convert checkpoint") as step:
        sam = load_mobile_sam(
            arguments.checkpoint,
            arguments.image_size,
            decoder=arguments.decoder_checkpoint,
            key=arguments.checkpoint_key,
        )
        save_checkpoint(sam, arguments.out, torch.float16 if arguments.float16 else torch.float32)
        step.result = sam.weights_source
    print(arguments.out)
    return 0


CONVERT_CHECKPOINT = Command(
    "convert-checkpoint",
    "write a checkpoint in the official layout",
    "mobilesam-export convert-checkpoint run.ckpt mobile_sam.pt",
    add_arguments,
    run,
)
