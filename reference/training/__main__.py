"""The command line of the training module: python -m reference.training COMMAND --help.

    distillation/
        plan             disk and GPU hours for 1 %, 10 % and 100 % of SA-1B
        embed            a teacher's embeddings, once
        distill          a student encoder on those embeddings (the paper's method)
        finetune         optional: the mask decoder on annotated images
        evaluate         a student against its teacher on the same prompts
        reproduce        the paper's tables 2 and 4 at demonstration scale
    scenes/
        scenes           generated scenes: a contact sheet, a training cache, SA-1B's or COCO's format
        evaluate-scenes  a checkpoint on held-out generated scenes with exact masks
        show             overlays of answers, on photos or held-out scenes
    demo_weights/
        demonstrate      train the bundled demonstration weights on generated scenes

The miniature of every stage, a few CPU minutes in all:

    python -m reference.training scenes --tar mini/sa_000000.tar --count 24 --image-size 224
    python -m reference.training embed --teacher demo --data mini --out mini/embeddings --image-size 224
    python -m reference.training distill --teacher demo --embeddings mini/embeddings --out mini/student --epochs 4
    python -m reference.training finetune --student mini/student/student.safetensors --data mini --out mini/tuned \\
        --image-size 224 --steps 10
    python -m reference.training evaluate --teacher demo --student mini/tuned/finetuned.safetensors --data mini \\
        --image-size 224
    python -m reference.training reproduce --out mini/reproduced --smoke
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import types
import typing
from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any


def _at_least(least: int) -> Callable[[str], int]:
    """A whole number for argparse."""

    def whole_number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"got {value}, expected at least {least}")
        return value

    return whole_number


def add_options(parser: argparse.ArgumentParser, config: type[Any]) -> None:
    """An option for each field of a config dataclass; the help is the field's line in the docstring."""
    kinds = typing.get_type_hints(config)
    for field in fields(config):
        found = re.search(rf"^\s+{field.name}: ((?:.|\n)*?)(?=\n\s+\w+: |\n\s*\Z|\Z)", config.__doc__ or "", re.M)
        text = " ".join(found[1].split()).replace("%", "%%") if found else ""
        kind = kinds[field.name]
        if isinstance(kind, types.UnionType):
            kind = next(k for k in typing.get_args(kind) if k is not type(None))
        if kind is int:
            kind = _at_least(0 if field.default == 0 else 1)  # seeds and workers start at 0, counts at 1
        option = "--" + field.name.replace("_", "-")
        if kind is bool:
            parser.add_argument(option, action="store_true", help=text)
        elif field.default is MISSING:
            parser.add_argument(option, type=kind, required=True, help=text)
        else:
            parser.add_argument(option, type=kind, default=field.default, help=f"{text} [{field.default}]")


def config_of(config: type[Any], arguments: argparse.Namespace) -> Any:
    """The dataclass that `add_options` asked for."""
    return config(**{field.name: getattr(arguments, field.name) for field in fields(config)})


def _configured(subparsers: Any, name: str, module: str, config_name: str, show: Callable[[Any], str]) -> None:
    from importlib import import_module

    imported = import_module(f"reference.training.distillation.{module}")
    config = getattr(imported, config_name)
    parser = subparsers.add_parser(
        name,
        help=(imported.__doc__ or "").splitlines()[0],
        description=imported.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(parser, config)
    parser.set_defaults(run=lambda arguments: show(getattr(imported, module)(config_of(config, arguments))))


def _plan(arguments: argparse.Namespace) -> str:
    from reference.training.distillation.plan import table

    return table(arguments.teacher, arguments.epochs, arguments.teraflops)


def _scenes(arguments: argparse.Namespace) -> str:
    from PIL import Image

    from reference.images import save_picture
    from reference.training.scenes.contact_sheet import contact_sheet
    from reference.training.scenes.cutout_scenes import CutoutSceneGenerator
    from reference.training.scenes.cutouts import prepared_cutouts
    from reference.training.scenes.scene_cache import write_cache
    from reference.training.scenes.scenes import SceneGenerator
    from reference.training.scenes.scenes_to_coco import write_coco
    from reference.training.scenes.scenes_to_sa1b import write_tar

    cutouts = prepared_cutouts(arguments.objects) if arguments.objects else None
    if arguments.cache:
        cache = write_cache(
            arguments.cache,
            arguments.count,
            arguments.image_size,
            arguments.split,
            arguments.first,
            arguments.workers,
            cutouts,
        )
        return f"{len(cache)} scenes in {arguments.cache}"
    if arguments.tar:
        write_tar(arguments.tar, arguments.count, arguments.image_size, arguments.split, arguments.first, cutouts)
        return f"{arguments.count} scenes in {arguments.tar}"
    if arguments.coco:
        count = write_coco(
            arguments.coco, arguments.count, arguments.image_size, arguments.split, arguments.first, cutouts
        )
        return f"{arguments.count} scenes with {count} objects in {arguments.coco}"
    generator = CutoutSceneGenerator(cutouts, arguments.split) if cutouts else SceneGenerator(arguments.split)
    save_picture(Image.fromarray(contact_sheet(generator)), arguments.sheet)
    return f"wrote {arguments.sheet}: each column of three is a scene, its parts, its objects"


def _evaluate_scenes(arguments: argparse.Namespace) -> str:
    from reference.checkpoint import load_mobile_sam
    from reference.training.scenes.cutouts import prepared_cutouts
    from reference.training.scenes.evaluate_scenes import circumstances, evaluate_scenes

    sam = load_mobile_sam(arguments.checkpoint, arguments.image_size)
    prepared = prepared_cutouts(arguments.objects) if arguments.objects else None
    found: dict[str, Any] = dict(evaluate_scenes(sam, arguments.scenes, arguments.first, cutouts=prepared))
    found |= {"image_size": arguments.image_size, "first_scene": arguments.first, **circumstances(sam)}
    text = json.dumps(found, indent=2)
    if arguments.out:
        arguments.out.write_text(text + "\n")
    return text


def _show(arguments: argparse.Namespace) -> str:
    from PIL import Image

    from reference.checkpoint import load_mobile_sam
    from reference.images import read_image, save_picture
    from reference.training.scenes.show import grid, photo_tiles, scene_tiles

    sam, tiles = load_mobile_sam(arguments.checkpoint), []
    for path in arguments.photos:
        image = read_image(path)
        h, w = image.shape[:2]
        clicks: list[tuple[float, ...]] = [(w * x, h * y) for x, y in ((0.5, 0.5), (0.25, 0.5), (0.75, 0.5))]
        tiles += photo_tiles(sam, image, [*clicks, (0.25 * w, 0.25 * h, 0.75 * w, 0.75 * h)])
    if not arguments.photos:
        for number in range(arguments.scenes):
            tiles += scene_tiles(sam, number)
    save_picture(Image.fromarray(grid(tiles, 4)), arguments.out)
    return f"wrote {arguments.out}"


def _demonstrate(arguments: argparse.Namespace) -> str:
    from reference.training.demo_weights.demonstrate import demonstrate

    return str(demonstrate(arguments.work, arguments.objects, arguments.device, arguments.name))


class _PrintPlan(argparse.Action):
    """`--plan`: what `plan` prints with its defaults."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from reference.training.distillation.plan import table

        print(table())
        parser.exit()


def build_parser() -> argparse.ArgumentParser:
    """All commands."""
    parser = argparse.ArgumentParser(
        "python -m reference.training", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--plan", action=_PrintPlan, nargs=0, help="short for the command plan with its defaults")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    plan = commands.add_parser("plan", help="disk and GPU hours for 1 %%, 10 %% and 100 %% of SA-1B")
    plan.add_argument("--teacher", default="vit_h", choices=("vit_h", "vit_l", "vit_b"))
    plan.add_argument("--epochs", type=_at_least(1), default=8)
    plan.add_argument("--teraflops", type=float, default=150.0, help="sustained rate of one GPU; measure yours [150]")
    plan.set_defaults(run=_plan)
    _configured(commands, "embed", "embed", "EmbedConfig", str)
    _configured(commands, "distill", "distill", "DistillConfig", str)
    _configured(commands, "finetune", "finetune", "FinetuneConfig", str)
    _configured(commands, "evaluate", "evaluate", "EvaluateConfig", lambda found: json.dumps(found, indent=2))
    _configured(commands, "reproduce", "reproduce", "ReproduceConfig", str)
    on_scenes = commands.add_parser(
        "evaluate-scenes", help="a checkpoint on held-out generated scenes with exact masks"
    )
    on_scenes.add_argument("--checkpoint", default="demo")
    on_scenes.add_argument("--scenes", type=_at_least(1), default=200)
    on_scenes.add_argument("--first", type=_at_least(0), default=0)
    on_scenes.add_argument("--image-size", type=_at_least(1), default=1024)
    on_scenes.add_argument(
        "--objects", type=Path, help="scenes of held-out cut-outs from this folder instead of shapes"
    )
    on_scenes.add_argument("--out", type=Path, help="write the figures to this JSON file too")
    on_scenes.set_defaults(run=_evaluate_scenes)
    scenes = commands.add_parser(
        "scenes", help="generated scenes: a contact sheet, a training cache, SA-1B's or COCO's format"
    )
    scenes.add_argument("--sheet", type=Path, default=Path("scenes.png"))
    scenes.add_argument("--cache", type=Path, help="write a training cache to this folder instead")
    scenes.add_argument("--tar", type=Path, help="write JPEG and JSON in SA-1B's format to this tar file instead")
    scenes.add_argument(
        "--coco", type=Path, help="write pictures and instances.json in COCO's format to this folder instead"
    )
    scenes.add_argument("--count", type=_at_least(1), default=1000)
    scenes.add_argument("--first", type=_at_least(0), default=0, help="number of the first scene [0]")
    scenes.add_argument("--image-size", type=_at_least(1), default=224)
    scenes.add_argument("--split", choices=("train", "held-out"), default="train")
    scenes.add_argument("--objects", type=Path, help="paint cut-outs from this folder of RGBA pictures")
    scenes.add_argument("--workers", type=_at_least(1), default=1)
    scenes.set_defaults(run=_scenes)
    show = commands.add_parser("show", help="overlays of a checkpoint's answers on photos or held-out scenes")
    show.add_argument("photos", type=Path, nargs="*")
    show.add_argument("--checkpoint", default="demo")
    show.add_argument("--out", type=Path, default=Path("shown.png"))
    show.add_argument(
        "--scenes", type=_at_least(1), default=8, help="how many held-out scenes, where no photos are given [8]"
    )
    show.set_defaults(run=_show)
    demonstrate = commands.add_parser("demonstrate", help="train the bundled demonstration weights on generated scenes")
    demonstrate.add_argument("--work", type=Path, required=True, help="folder for scene caches and checkpoints, 12 GB")
    demonstrate.add_argument(
        "--objects", type=Path, required=True, help="folder of RGBA cut-outs, such as the unpacked npm package's assets"
    )
    demonstrate.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="cuda takes eight minutes on an H200"
    )
    demonstrate.add_argument("--name", default="demonstration")
    demonstrate.set_defaults(run=_demonstrate)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run a command; what a user can mend is one line on stderr."""
    arguments = build_parser().parse_args(argv)
    try:
        print(arguments.run(arguments))
    except (ValueError, OSError, FloatingPointError) as error:
        # An error of a loader's process comes with its traceback; what happened is in the last line.
        print(f"error: {str(error).strip().splitlines()[-1]}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
