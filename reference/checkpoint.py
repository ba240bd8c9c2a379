"""Weights in and out, in the layouts of the publishers' files: MobileSAM's (439 entries, Apache-2.0) and its family's.

Inside, the encoder's body carries timm's names; a file carries the official ones or the model's own. The
classifier that MobileSAM's file still contains (``head``, ``norm_head``) takes no part in the forward pass: it is
dropped on load and written as zeros and ones on save, so that the official code loads the file strictly.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reference.checkpoint_file import Opened, open_checkpoint, write_state
from reference.checkpoint_names import DECODER_PARTS, PARTS, flatten, layout_of
from reference.checkpoint_source import Source
from reference.checkpoint_values import unusable
from reference.download import file_sha256, official_checkpoint
from reference.errors import CheckpointError
from reference.families import FAMILIES, KNOWN, family_of, recognised
from reference.image_encoder import DEFAULT_BACKBONE
from reference.mobile_sam import MobileSam
from reference.nano_sam import NANO_SAM, image_size_of
from reference.stand_in import stand_in_tensor

DEMO_WEIGHTS = Path(__file__).parent / "weights" / "mobile_sam_demo.safetensors"
DEMO_SHA256 = "7f49ce408e4ed188aa5671ef12177c31feaeb7b42a8c502138a2b403e684f5f9"  # of that file; `sha256sum` prints it
STAND_IN = "stand-in (random weights, segments nothing)"
JOINED = " with the decoder of "  # between the two sources of a joined model
UNUSED_SHAPES = FAMILIES[0].unused  # MobileSAM's

NAMED = ("official", "demo")  # weights that are called by a name instead of a path

Checkpoint = str | Path | Mapping[str, Any]


def official_state_dict(sam: MobileSam) -> dict[str, Tensor]:
    """All entries under their publisher's names, MobileSAM's unused classifier neutral (scale 1, the rest 0).

    Raises:
        CheckpointError: if the encoder is another student than those of published files.
    """
    family = family_of(sam.image_encoder.backbone)
    if family is None:
        raise CheckpointError(
            f"no published layout holds {sam.image_encoder.backbone} (there are those of {KNOWN}); save as .safetensors"
        )
    state = {family.file_name(name): tensor.detach() for name, tensor in sam.state_dict().items()}
    for name, shape in family.unused.items():
        state[name] = torch.ones(shape) if name.endswith("norm_head.weight") else torch.zeros(shape)
    return state


def load_state(sam: MobileSam, state: Mapping[str, Any], source: str = "the state dict") -> None:
    """Load a whole checkpoint's weights, under its publisher's names or the model's own.

    Values of any float dtype become the model's float32. Nothing is loaded unless all of it fits.

    Raises:
        CheckpointError: naming missing, unexpected or misshapen entries, or weights that cannot be right.
    """
    found = Source(Opened(state), source, layout_of(sam.image_encoder.backbone, sam.image_size))
    found.choose(PARTS)
    sam.load_state_dict(found.weights(PARTS))


def load_mobile_sam(
    checkpoint: Checkpoint,
    image_size: int = 1024,
    *,
    decoder: Checkpoint | None = None,
    key: str | None = None,
) -> MobileSam:
    """Build MobileSAM, or what else of its family the checkpoint holds, in eval mode on the CPU.

    Which image encoder it is, its names and shapes tell: MobileSAM's or TinySAM's TinyViT, a RepViT-SAM, a NanoSAM.
    Dicts around the weights and prefixes of their names (``model``, ``state_dict``, ``module.``, ...) are found and
    taken off, and what is no weight is left out; a line on the log ``reference.checkpoint_source`` says what.

    Args:
        checkpoint: path of a ``.pt``, ``.pth`` or ``.safetensors`` file; a state dict; ``"official"`` (downloaded once
            to the user's cache); or ``"demo"`` (bundled). The names go before files of the same name.
        image_size: side S of the model frame, a multiple of 32; the official weights are for 1024. A NanoSAM answers
            at the size alone that it was trained for.
        decoder: where to take prompt encoder and mask decoder from instead, if ``checkpoint`` has an image encoder
            alone: as ``checkpoint``, or an original SAM file, whose decoder is the same.
        key: which weights to take where ``checkpoint`` has several, such as ``"ema"``.

    Returns:
        The model; ``family`` says what it is, ``weights_source`` what it was loaded from.

    Raises:
        CheckpointError: if it cannot be read or does not fit.
    """
    if decoder is None and _is_missing_demo(checkpoint):
        return stand_in_mobile_sam(image_size)
    opened, source = _open(checkpoint)
    backbone = opened.metadata.get("backbone") or _backbone_in(opened)
    try:
        layout = layout_of(backbone, image_size)
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from error
    if backbone.startswith(NANO_SAM):
        _require_its_size(opened, source, image_size)
    base = Source(opened, source, layout)
    if decoder is None:
        base.choose(PARTS, key)
        weights, label = base.weights(PARTS), base.label
    else:
        other = Source(*_open(decoder), layout)
        theirs = other.choose(DECODER_PARTS, all_of_them=False)
        ours = [part for part in PARTS if part not in theirs]
        base.choose(ours, key)
        weights = {**base.weights(ours), **other.weights(theirs)}
        label = f"{base.label}{JOINED}{other.label}"
    sam = MobileSam(backbone, image_size)
    sam.load_state_dict(weights)
    sam.weights_source = label
    return sam.eval()


def _backbone_in(opened: Opened) -> str:
    """What the names and shapes of a file say that its image encoder is."""
    family = recognised(_shapes_in(opened))
    return DEFAULT_BACKBONE if family is None else family.backbone


def _shapes_in(opened: Opened) -> dict[str, tuple[int, ...]]:
    return {name: tuple(entry.shape) for name, entry in flatten(opened.tree).items() if not unusable(entry)}


def _require_its_size(opened: Opened, source: str, image_size: int) -> None:
    """Refuse to load a NanoSAM for another image size than its learned places are for."""
    trained = image_size_of(_shapes_in(opened))
    if trained is not None and trained != image_size:
        raise CheckpointError(
            f"{source} is a NanoSAM that was trained at {trained}: it has a learned value for each place of that "
            f"frame, and none for {image_size}; choose --image-size {trained} (image_size={trained})"
        )


def _is_missing_demo(checkpoint: Checkpoint) -> bool:
    return isinstance(checkpoint, str) and checkpoint == "demo" and not DEMO_WEIGHTS.is_file()


def _open(checkpoint: Checkpoint) -> tuple[Opened, str]:
    """What a checkpoint holds, and what to call it."""
    if isinstance(checkpoint, Mapping):
        return Opened(checkpoint), "a state dict"
    if checkpoint == "official":
        return open_checkpoint(official_checkpoint()), "official"
    if checkpoint == "demo":
        opened = open_checkpoint(DEMO_WEIGHTS)
        if (got := file_sha256(DEMO_WEIGHTS)) != DEMO_SHA256:
            raise CheckpointError(
                f"the bundled weights at {DEMO_WEIGHTS} have sha256 {got[:12]}, expected {DEMO_SHA256[:12]}; they are "
                "damaged or were replaced: install again, or give the file by its path"
            )
        return opened, "demo"
    if isinstance(checkpoint, nn.Module):
        raise CheckpointError(
            f"got a model ({type(checkpoint).__name__}), expected its weights; give model.state_dict(), or a path"
        )
    if not isinstance(checkpoint, str | Path):
        raise CheckpointError(
            f'got an object of type {type(checkpoint).__name__}, expected the path of a file, a state dict, "official" '
            'or "demo"'
        )
    name = Path(checkpoint).name
    return open_checkpoint(checkpoint), f"./{name}" if name in NAMED else name  # a file that is called so is not it


def stand_in_mobile_sam(image_size: int = 1024, seed: int = 0) -> MobileSam:
    """MobileSAM with deterministic random weights, for tests and where no trained ones are at hand."""
    sam = MobileSam(image_size=image_size)
    state = {
        name: stand_in_tensor(name, tuple(tensor.shape), seed) for name, tensor in official_state_dict(sam).items()
    }
    load_state(sam, state)
    sam.weights_source = STAND_IN
    return sam.eval()


def save_checkpoint(sam: MobileSam, path: str | Path, dtype: torch.dtype = torch.float32) -> None:
    """Write the weights, whole or not at all.

    Args:
        sam: the model.
        path: ``.pt`` for a file that the publisher's code loads (NanoSAM's, which has no decoder, takes the entries
            behind ``image_encoder.``); ``.safetensors`` for one without pickle, which also holds other students (their
            names as in the model, the backbone in the metadata).
        dtype: of the float entries; ``torch.float16`` halves the file.

    Raises:
        CheckpointError: another student in a ``.pt`` file, or weights beyond the range of ``dtype``.
    """
    path = Path(path)
    safe = path.suffix == ".safetensors"
    published = family_of(sam.image_encoder.backbone) is not None
    state = official_state_dict(sam) if published or not safe else sam.state_dict()
    kept = {name: _cast(tensor, dtype) for name, tensor in state.items() if not (safe and name in UNUSED_SHAPES)}
    lost = [name for name, tensor in kept.items() if not torch.isfinite(tensor).all()]
    if lost:
        raise CheckpointError(
            f"{len(lost)} entries (first: {lost[0]}) are not finite as {dtype}; train longer or save as torch.float32"
        )
    write_state(kept, path, {"backbone": sam.image_encoder.backbone, "format": "pt"})


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """On the CPU, contiguous, floats as ``dtype``; counters stay integers."""
    return tensor.detach().cpu().to(dtype if tensor.is_floating_point() else tensor.dtype).contiguous()


def weights_sha256(sam: MobileSam) -> str:
    """sha256 over the names and float32 bytes of all weights, the same for every file format they came in."""
    digest = hashlib.sha256()
    for name, tensor in sorted(sam.state_dict().items()):
        if tensor.is_floating_point():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()
