"""``mobilesam-export everything``."""

import argparse
import json
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from mobilesam_export.cli.command import Command
from mobilesam_export.cli.shared import attempt, refuse_failed
from mobilesam_export.errors import ExportError
from mobilesam_export.progress import Progress
from mobilesam_export.targets import names
from reference.everything_options import EverythingOptions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mobilesam_export.bundle.predictor import BundlePredictor
    from reference.found_mask import FoundMask

OPTIONS = {  # of everything mode, by SAM's names
    "points_per_side": "points of the grid, a side",
    "points_per_batch": "prompts decoded at a time, at most",
    "pred_iou_thresh": "keep masks with a predicted IoU above; 0 keeps all",
    "stability_score_thresh": "keep masks at least this stable; 0 keeps all",
    "stability_score_offset": "of the logits, for the stability",
    "box_nms_thresh": "of two masks whose boxes have a larger IoU the better one stays",
    "crop_n_layers": "repeat it on 4, 16, ... crops, for small objects",
    "crop_nms_thresh": "the same among crops",
    "crop_overlap_ratio": "overlap of the crops, as a part of the photo",
    "crop_n_points_downscale_factor": "crops have a grid so many times coarser, layer by layer",
    "min_mask_region_area": "holes and islands of fewer pixels go",
    "hierarchical": "ask a coarse grid first, then only where nothing sure was found; faster, and misses some",
    "sure_logit": "hierarchical: logits above are sure",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("photos", type=Path, nargs="+", metavar="IMAGE", help="a photo, or a folder of them")
    parser.add_argument("--bundle", type=Path, default=Path("dist"), metavar="DIR", help="default: dist")
    parser.add_argument("--target", choices=names(), help="may be left out if the bundle holds one only")
    parser.add_argument(
        "-o", "--out", type=Path, default=Path("masks.json"), metavar="JSON", help="default: masks.json"
    )
    parser.add_argument("--segmentation", choices=("rle", "polygons"), default="rle", help="in it (default: rle)")
    parser.add_argument("--png", type=Path, metavar="DIR", help="each mask as a picture too: DIR/PHOTO/000.png ...")
    parser.add_argument("--overlay", type=Path, metavar="PNG", help="the photo with all masks; of several a folder")
    parser.add_argument("--prompts", type=Path, metavar="JSON", help="points and boxes to ask instead of a grid")
    parser.add_argument("--overwrite", action="store_true", help="replace what exists")
    group = parser.add_argument_group("what is asked and kept, by SAM's names")
    for option in fields(EverythingOptions):
        flag, told = "--" + option.name.replace("_", "-"), OPTIONS[option.name]
        if isinstance(option.default, bool):
            group.add_argument(flag, action="store_true", help=told)
        else:
            kind = type(option.default)
            group.add_argument(
                flag, type=kind, default=option.default, metavar="N", help=f"{told} [{option.default:.3g}]"
            )


def run(arguments: argparse.Namespace, console: Console, progress: Progress) -> int:
    """Find all masks and print what was written."""
    options = EverythingOptions(
        **{option.name: getattr(arguments, option.name) for option in fields(EverythingOptions)}
    )

    from mobilesam_export.everything.prompts_file import PromptsFile
    from mobilesam_export.segment import photos_in

    given = None if arguments.prompts is None else PromptsFile(arguments.prompts)
    photos = photos_in(arguments.photos)
    several = len(photos) > 1 or any(path.is_dir() for path in arguments.photos)
    overlays = _overlays(arguments, photos, several)
    _refuse_to_replace(arguments, [path for path in (arguments.out, *overlays.values()) if path.exists()])

    from mobilesam_export.bundle.predictor import load_bundle
    from mobilesam_export.everything.annotations import annotation_of, document_of
    from mobilesam_export.everything.picture import draw_everything
    from mobilesam_export.everything.stack import write_stack
    from mobilesam_export.targets.target import TwoStepRuntime
    from reference.everything import segment_everything
    from reference.images import read_image, save_picture

    def find(photo: Path, predictor: "BundlePredictor") -> "tuple[NDArray[np.uint8], list[FoundMask]]":
        pixels = read_image(photo)
        prompts = None if given is None else given.of(photo)
        with progress.step(photo.name) as step:

            def tell(count: int, total: int) -> None:
                step.update(f"{count:,} of {total:,} prompts")

            found = segment_everything(predictor, pixels, options, prompts, tell)
            step.result = f"{len(found)} masks"
        return pixels, found

    done: list[tuple[Path, tuple[int, int], list[dict[str, Any]]]] = []
    failed = 0
    with load_bundle(arguments.bundle, arguments.target) as predictor:
        if isinstance(predictor.runtime, TwoStepRuntime):
            predictor.runtime.gives_memory_back = True
        for photo in photos:
            answer = attempt(photo, several, partial(find, photo, predictor))
            if answer is None:
                failed += 1
                continue
            pixels, found = answer
            done.append((photo, pixels.shape[:2], [annotation_of(mask, arguments.segmentation) for mask in found]))
            if arguments.png is not None:
                write_stack(found, arguments.png / photo.stem)
            if photo in overlays:
                save_picture(draw_everything(pixels, found), overlays[photo])
    _write(arguments.out, document_of(done))
    print(arguments.out, *(path for photo, path in overlays.items() if path.exists()), sep="\n")
    refuse_failed(failed, len(photos))
    return 0


def _overlays(arguments: argparse.Namespace, photos: list[Path], several: bool) -> dict[Path, Path]:
    """Where the picture of each photo goes."""
    if arguments.overlay is None:
        return {}
    if not several:
        return {photos[0]: arguments.overlay}
    if len({photo.stem for photo in photos}) < len(photos):
        raise ExportError("two photos have one name, and their pictures would too; give them to separate commands")
    return {photo: arguments.overlay / f"{photo.stem}.png" for photo in photos}


def _refuse_to_replace(arguments: argparse.Namespace, present: list[Path]) -> None:
    if arguments.png is not None and arguments.png.exists() and any(arguments.png.iterdir()):
        present.append(arguments.png)
    if present and not arguments.overwrite:
        raise ExportError(f"{present[0]} exists; choose another place, or replace it with --overwrite")


def _write(path: Path, document: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(document) + "\n", encoding="utf-8")
    part.replace(path)


EVERYTHING = Command(
    "everything",
    "find all masks of photos with a bundle",
    "mobilesam-export everything photo.jpg --bundle dist -o masks.json --overlay masks.png",
    add_arguments,
    run,
)
