"""Teachers: SAM ViT-H/L/B from transformers or from the original files, or any MobileSAM checkpoint.

A teacher is an image encoder, and a prompt encoder and mask decoder that a student takes over. Whatever it comes from,
its decoder is kept in this project's `MobileSam` modules, so that a student starts as "its own encoder, the teacher's
decoder".
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reference.checkpoint import load_mobile_sam
from reference.checkpoint_file import read_state
from reference.errors import CheckpointError
from reference.mobile_sam import MobileSam

ORIGINAL_FILES = {  # of the SAM repository: width, depth, heads, blocks with global attention
    "vit_h": (1280, 32, 16, (7, 15, 23, 31)),
    "vit_l": (1024, 24, 16, (5, 11, 17, 23)),
    "vit_b": (768, 12, 12, (2, 5, 8, 11)),
}
WHERE = (
    "get one from huggingface.co/facebook/sam-vit-huge (-large, -base) or github.com/facebookresearch/segment-anything"
)

_VISION_NAMES = (  # original to transformers
    (r"^image_encoder\.", "vision_encoder."),
    (r"\.patch_embed\.proj\.", ".patch_embed.projection."),
    (r"\.blocks\.", ".layers."),
    (r"\.norm([12])\.", r".layer_norm\1."),
    (r"\.neck\.0\.", ".neck.conv1."),
    (r"\.neck\.1\.", ".neck.layer_norm1."),
    (r"\.neck\.2\.", ".neck.conv2."),
    (r"\.neck\.3\.", ".neck.layer_norm2."),
)
_DECODER_NAMES = (  # transformers to original
    (
        r"^prompt_encoder\.shared_embedding\.positional_embedding$",
        "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
    ),
    (r"^prompt_encoder\.point_embed\.", "prompt_encoder.point_embeddings."),
    (r"\.mask_embed\.conv1\.", ".mask_downscaling.0."),
    (r"\.mask_embed\.layer_norm1\.", ".mask_downscaling.1."),
    (r"\.mask_embed\.conv2\.", ".mask_downscaling.3."),
    (r"\.mask_embed\.layer_norm2\.", ".mask_downscaling.4."),
    (r"\.mask_embed\.conv3\.", ".mask_downscaling.6."),
    (r"\.layer_norm_final_attn\.", ".norm_final_attn."),
    (r"\.layer_norm(\d)\.", r".norm\1."),
    (r"\.upscale_conv1\.", ".output_upscaling.0."),
    (r"\.upscale_layer_norm\.", ".output_upscaling.1."),
    (r"\.upscale_conv2\.", ".output_upscaling.3."),
    (r"(mlps\.\d|prediction_head)\.layers\.0\.", r"\1.layers.1."),
    (r"\.proj_in\.", ".layers.0."),
    (r"\.proj_out\.", ".layers.2."),
)


def _rename(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


class Teacher(nn.Module):
    """A frozen teacher.

    Args:
        encoder: Maps (B, 3, S, S) normalised images to (B, 256, S/16, S/16).
        decoder: State of `prompt_encoder.*` and `mask_decoder.*` under the original names.
        image_size: S.
        name: What it was loaded from, for people.
    """

    def __init__(self, encoder: nn.Module, decoder: dict[str, Tensor], image_size: int, name: str) -> None:
        super().__init__()
        self.encoder, self.image_size, self.name = encoder.eval().requires_grad_(False), image_size, name
        self.decoder = {key: value.detach().float().clone() for key, value in decoder.items()}
        self.id = self._digest()

    def _digest(self) -> str:
        digest = hashlib.sha256(str(self.image_size).encode())
        for name, value in [*sorted(self.encoder.state_dict().items()), *sorted(self.decoder.items())]:
            digest.update(name.encode())
            digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @torch.inference_mode()
    def embed(self, images: Tensor) -> Tensor:
        """Map (B, 3, S, S) normalised, padded images to (B, 256, S/16, S/16) embeddings."""
        found: Any = self.encoder(images)
        embeddings: Tensor = found if isinstance(found, Tensor) else found.last_hidden_state
        return embeddings

    def student(self, backbone: str, pretrained_backbone: bool = False) -> MobileSam:
        """A student with a fresh encoder and this teacher's prompt encoder and mask decoder."""
        sam = MobileSam(backbone, self.image_size, pretrained_backbone)
        give_decoder(sam, self.decoder, self.name)
        return sam


def give_decoder(sam: MobileSam, decoder: dict[str, Tensor], source: str) -> None:
    """Copy a teacher's prompt encoder and mask decoder into a model.

    Raises:
        CheckpointError: if an entry is missing.
    """
    wanted = {name for name in sam.state_dict() if not name.startswith("image_encoder.")}
    missing = sorted(wanted - decoder.keys())
    if missing:
        raise CheckpointError(f"{source} lacks {len(missing)} entries of SAM's decoder (first: {missing[0]}); {WHERE}")
    sam.load_state_dict({**sam.state_dict(), **{name: decoder[name] for name in wanted}})


def load_teacher(source: str, image_size: int = 1024) -> Teacher:
    """Load a teacher.

    Args:
        source: An original `sam_vit_{h,l,b}_*.pth`; a MobileSAM checkpoint ("demo", "official", or a path); a local
            folder or hub id in transformers' layout.
        image_size: Of a MobileSAM teacher; SAM's own have a fixed 1024.

    Raises:
        CheckpointError: if there is no such teacher, with where to get one.
    """
    path = Path(source)
    if source in ("demo", "official") or path.suffix == ".safetensors":
        return _from_mobile_sam(source, image_size)
    if path.suffix in (".pth", ".pt"):
        if not path.is_file():
            raise CheckpointError(f"there is no teacher at {path}; {WHERE}")
        state, _ = read_state(path)
        if any(name.startswith("image_encoder.blocks.") for name in state):
            return _from_original(state, path.name)
        return _from_mobile_sam(source, image_size)
    return _from_transformers(source)


def _from_mobile_sam(source: str, image_size: int) -> Teacher:
    sam = load_mobile_sam(source, image_size)
    decoder = {name: value for name, value in sam.state_dict().items() if not name.startswith("image_encoder.")}
    return Teacher(sam.image_encoder, decoder, image_size, sam.weights_source)


def _from_transformers(source: str) -> Teacher:
    try:
        from transformers import SamModel
    except ImportError as error:
        raise CheckpointError(
            "SAM teachers need the transformers package; pip install 'mobilesam-export[train]'"
        ) from error
    try:
        model = SamModel.from_pretrained(source)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(f"no SAM at {source!r} ({reason}); {WHERE}") from error
    return teacher_of(model, source)


def teacher_of(model: Any, name: str) -> Teacher:
    """Wrap a transformers `SamModel`."""
    state = model.state_dict()
    decoder = {
        _rename(key, _DECODER_NAMES): value
        for key, value in state.items()
        if key.startswith(("prompt_encoder.", "mask_decoder."))
    }
    return Teacher(model.vision_encoder, decoder, int(model.config.vision_config.image_size), name)


def _from_original(state: dict[str, Tensor], name: str) -> Teacher:
    from transformers import SamVisionConfig
    from transformers.models.sam.modeling_sam import SamVisionEncoder

    width = state["image_encoder.pos_embed"].shape[-1]
    for hidden, depth, heads, global_blocks in ORIGINAL_FILES.values():
        if hidden == width:
            config = SamVisionConfig(
                hidden_size=hidden,
                num_hidden_layers=depth,
                num_attention_heads=heads,
                global_attn_indexes=list(global_blocks),
                mlp_dim=4 * hidden,
            )
            break
    else:
        raise CheckpointError(f"{name} has a ViT of width {width}, expected 1280, 1024 or 768; {WHERE}")
    encoder = SamVisionEncoder(config)
    vision = {
        _rename(key, _VISION_NAMES).removeprefix("vision_encoder."): value
        for key, value in state.items()
        if key.startswith("image_encoder.")
    }
    try:
        encoder.load_state_dict(vision)
    except RuntimeError as error:
        raise CheckpointError(
            f"{name} is no original SAM checkpoint ({str(error).splitlines()[-1].strip()}); {WHERE}"
        ) from error
    decoder = {key: value for key, value in state.items() if key.startswith(("prompt_encoder.", "mask_decoder."))}
    return Teacher(encoder, decoder, 16 * state["image_encoder.pos_embed"].shape[1], name)
