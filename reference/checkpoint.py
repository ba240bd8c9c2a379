"""Weights in and out, in the layout of the official MobileSAM checkpoint (439 entries, Apache-2.0).

Inside, the encoder's body carries timm's names; a file carries the official ones. The classifier that
the official file still contains (``head``, ``norm_head``) takes no part in the forward pass: it is
dropped on load and written as zeros and ones on save, so that the official code loads the file strictly.
"""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

import timm
import torch
from torch import Tensor

from reference.checkpoint_file import read_state, write_state
from reference.download import official_checkpoint
from reference.errors import CheckpointError
from reference.image_encoder import DEFAULT_BACKBONE
from reference.mobile_sam import MobileSam
from reference.stand_in import stand_in_tensor

DEMO_WEIGHTS = Path(__file__).parent / "weights" / "mobile_sam_demo.safetensors"
STAND_IN = "stand-in (random weights, segments nothing)"

UNUSED_SHAPES: dict[str, tuple[int, ...]] = {
    "image_encoder.norm_head.weight": (320,),
    "image_encoder.norm_head.bias": (320,),
    "image_encoder.head.weight": (1000, 320),
    "image_encoder.head.bias": (1000,),
}

_TO_OFFICIAL = (  # applied in order to the names of a TinyViT body
    (r"^image_encoder\.body\.", "image_encoder."),
    (r"^(image_encoder\.patch_embed)\.conv1\.", r"\1.seq.0."),
    (r"^(image_encoder\.patch_embed)\.conv2\.", r"\1.seq.2."),
    (r"^(image_encoder\..+)\.conv\.(weight)$", r"\1.c.\2"),
)


def official_name(name: str) -> str:
    """Translate a name of ``MobileSam.state_dict()`` to the official checkpoint's."""
    for pattern, replacement in _TO_OFFICIAL:
        name = re.sub(pattern, replacement, name)
    # The official code counts a downsampling to the stage before it, timm to the stage after.
    name = re.sub(
        r"^image_encoder\.stages\.(\d+)\.downsample",
        lambda match: f"image_encoder.layers.{int(match[1]) - 1}.downsample",
        name,
    )
    return name.replace("image_encoder.stages.", "image_encoder.layers.")


def official_state_dict(sam: MobileSam) -> dict[str, Tensor]:
    """All 439 entries under their official names, the unused classifier neutral (scale 1, the rest 0).

    Raises:
        CheckpointError: if the encoder is another student than TinyViT-5M, which the official layout cannot hold.
    """
    if sam.image_encoder.backbone != DEFAULT_BACKBONE:
        raise CheckpointError(
            f"the official layout holds {DEFAULT_BACKBONE} only, got {sam.image_encoder.backbone}; save as .safetensors"
        )
    state = {official_name(name): tensor.detach() for name, tensor in sam.state_dict().items()}
    for name, shape in UNUSED_SHAPES.items():
        state[name] = torch.ones(shape) if name.endswith("norm_head.weight") else torch.zeros(shape)
    return state


def load_state(sam: MobileSam, state: Mapping[str, Tensor], source: str = "the state dict") -> None:
    """Load weights under official names (or, for another student, under the model's own) strictly.

    Values of any float dtype become the model's float32. Nothing is loaded unless all of it fits.

    Raises:
        CheckpointError: naming missing, unexpected or misshapen entries.
    """
    foreign = [name for name, tensor in state.items() if not isinstance(tensor, Tensor)]
    if foreign:
        kind = type(state[foreign[0]]).__name__
        raise CheckpointError(f"{source} holds a {kind} under {foreign[0]!r}, expected tensors only")
    official = sam.image_encoder.backbone == DEFAULT_BACKBONE
    own = sam.state_dict()
    names = {official_name(name) if official else name: name for name in own}
    unused = [name for name in UNUSED_SHAPES if official and name in state]
    missing = sorted(names.keys() - state.keys())
    unexpected = sorted(state.keys() - names.keys() - set(unused))
    misshapen = sorted(
        f"{name} {tuple(state[name].shape)} instead of {tuple(own[own_name].shape)}"
        for name, own_name in names.items()
        if name in state and state[name].shape != own[own_name].shape
    )
    problems = [
        f"{len(entries)} {kind} (first: {', '.join(entries[:3])})"
        for kind, entries in (("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen))
        if entries
    ]
    if problems:
        raise CheckpointError(
            f"{source} is no MobileSAM checkpoint for {sam.image_encoder.backbone}: entries {'; '.join(problems)}; "
            "expected the layout of the official mobile_sam.pt"
        )
    bad = [name for name in names if not torch.isfinite(state[name]).all()]
    if bad:
        raise CheckpointError(f"{source} holds NaN or infinite weights in {len(bad)} entries (first: {bad[0]})")
    sam.load_state_dict({own_name: state[name] for name, own_name in names.items()})


def load_mobile_sam(checkpoint: str | Path | Mapping[str, Tensor], image_size: int = 1024) -> MobileSam:
    """Build MobileSAM in eval mode on the CPU.

    Args:
        checkpoint: path of a ``.pt``, ``.pth`` or ``.safetensors`` file; a state dict with official names;
            ``"official"`` (downloaded once to the user's cache); or ``"demo"`` (bundled). The names go
            before files of the same name.
        image_size: side S of the model frame, a multiple of 32; the official weights are for 1024.

    Returns:
        The model; ``weights_source`` says what it was loaded from.

    Raises:
        CheckpointError: if it cannot be read or does not fit.
    """
    metadata: dict[str, str] = {}
    state: Mapping[str, Tensor]
    if isinstance(checkpoint, Mapping):
        state, source = checkpoint, "a state dict"
    elif checkpoint == "demo" and not DEMO_WEIGHTS.is_file():
        return stand_in_mobile_sam(image_size)
    else:
        path = (
            official_checkpoint()
            if checkpoint == "official"
            else DEMO_WEIGHTS
            if checkpoint == "demo"
            else Path(checkpoint)
        )
        state, metadata = read_state(path)
        source = str(checkpoint) if checkpoint in ("official", "demo") else path.name
    backbone = metadata.get("backbone", DEFAULT_BACKBONE)
    if not timm.is_model(backbone):  # this also keeps timm from fetching a model that a file names by address
        raise CheckpointError(f"{source} needs the backbone {backbone!r}, which timm {timm.__version__} does not have")
    sam = MobileSam(backbone, image_size)
    load_state(sam, state, source)
    sam.weights_source = source
    return sam.eval()


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
        path: ``.pt`` for a file that the official code loads; ``.safetensors`` for one without pickle, which
            also holds other students (their names as in the model, the backbone in the metadata).
        dtype: of the float entries; ``torch.float16`` halves the file.

    Raises:
        CheckpointError: another student in a ``.pt`` file, or weights beyond the range of ``dtype``.
    """
    path = Path(path)
    safe = path.suffix == ".safetensors"
    state = sam.state_dict() if safe and sam.image_encoder.backbone != DEFAULT_BACKBONE else official_state_dict(sam)
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
