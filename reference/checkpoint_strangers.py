"""Files that are not MobileSAM's weights, recognised by what only they have, so that the error can say what they are.

The names are facts of public code: facebookresearch/segment-anything and sam2, yformer/EfficientSAM, THU-MIG/RepViT,
NVIDIA-AI-IOT/nanosam, SysCV/sam-hq, mit-han-lab/efficientvit, huggingface/transformers and peft.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from reference.families import REPVIT_SIZES, recognised, repvit_widths
from reference.nano_sam import HGNETS_V2, RESNETS, is_nano_sam

HEAD_BYTES = 512  # as many as `stranger_in_bytes` has to see
ITS_DECODER = (
    "its decoder has MobileSAM's form: beside an image encoder that was distilled from this model give it as "
    "--decoder-checkpoint (decoder=...)"
)
NOT_OURS = "expected MobileSAM's weights, such as mobile_sam.pt"

_SAM_WIDTHS = {768: "B", 1024: "L", 1280: "H"}
_ONNX = re.compile(rb"\x08[\x01-\x20][\x12\x1a\x22\x2a\x32\x3a\x42]")  # ModelProto: ir_version, then another field
_STARTS = (
    (b"version https://git-lfs.github.com", "a Git LFS pointer instead of the file; run git lfs pull, or download it"),
    (b"\x1f\x8b", "a gzip archive; unpack it and give the file inside"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it and give the file inside"),
    (b"Rar!", "a RAR archive; unpack it and give the file inside"),
    (b"\x89HDF", "an HDF5 (Keras) file; expected PyTorch weights"),
    (b"GGUF", "a GGUF file; expected PyTorch weights"),
)
_NAMES = (  # the first that matches any name; prefixes may stand before it
    (r"(^|\.)mask_decoder\.(hf_token|hf_mlp|compress_vit_feat|embedding_maskfeature)\b",
     "an HQ-SAM checkpoint, whose mask decoder has a further token; " + NOT_OURS),
    (r"(^|\.)(sam_mask_decoder|sam_prompt_encoder|memory_attention|maskmem_tpos_enc|image_encoder\.trunk)\b",
     "a SAM 2 checkpoint; " + NOT_OURS),
    (r"(^|\.)prompt_encoder\.(bbox_top_left_embeddings|invalid_points)\b",
     "an EfficientSAM checkpoint; " + NOT_OURS),
    (r"(^|\.)features\.\d+\.token_mixer\.0\.(weight|bias)$",
     "a RepViT whose branches were merged already; expected its weights from before fuse(), which is done here"),
    (r"(^|\.)image_encoder\.backbone\.stages\.\d+\.op_list\b",
     "an EfficientViT-SAM checkpoint; " + ITS_DECODER),
    (r"(^|\.)(vision_encoder\.|shared_image_embedding\.positional_embedding)",
     "a SAM checkpoint in the layout of transformers; " + NOT_OURS),
    (r"\.lora_(A|B)\b|\.base_layer\.", "a checkpoint with LoRA adapters; merge them into the weights and save again"),
    (r"(^|\.)model\.\d+\.(conv\.weight|cv\d\.|m\.\d|dfl\.)", "a YOLO detector; " + NOT_OURS),
)  # fmt: skip
_TINY_VIT = re.compile(r"(^|\.)(layers|stages)\.\d+\.blocks\.\d+\.local_conv\.")


def stranger_in_bytes(head: bytes) -> str | None:
    """What a file is by its first ``HEAD_BYTES``, with the next step, or None."""
    for start, remark in _STARTS:
        if head.startswith(start):
            return remark
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml")):
        return "a web page instead of the file; download the file itself (its raw link)"
    if head[4:8] == b"TFL3":
        return "a TFLite model; " + NOT_OURS
    if _ONNX.match(head):
        return "an ONNX model; " + NOT_OURS
    return None


def stranger_in_zip(entries: Iterable[str]) -> str | None:
    """What a zip archive is by the names of its entries, or None for what ``torch.save`` writes."""
    inside = [name.partition("/")[2] or name for name in entries]
    if any(name.startswith("code/") for name in inside) and "constants.pkl" in inside:
        return "a TorchScript program; expected weights: save model.state_dict() from the model that it was made of"
    if "archive_format" in inside or any(name.startswith("models/") for name in inside):
        return "an exported PyTorch program (.pt2); expected weights: save model.state_dict()"
    if "data.pkl" not in inside:
        return "a zip archive without weights; unpack it and give the file inside"
    return None


def stranger_in_code(classes: Iterable[str]) -> str | None:
    """What a pickle is by the classes it names, or None."""
    classes = list(classes)
    if any(name.startswith(("ultralytics.", "models.yolo.", "yolov5.", "yolov6.", "yolov7.")) for name in classes):
        return "a YOLO detector; " + NOT_OURS
    if any(name.startswith("torch.nn.modules.") for name in classes):
        own = next((name for name in classes if not name.startswith(("torch.", "builtins."))), "a torch module")
        return (
            f"a whole pickled model ({own}), which only its own code can open; there, "
            'torch.save(model.state_dict(), "weights.pt") writes what is expected'
        )
    return None


def stranger_in_tree(tree: Mapping[Any, Any], with_tensors: bool) -> str | None:
    """What a checkpoint is by its outermost keys, or None; one with tensors may have its optimizer beside them."""
    inner = () if with_tensors else [value for value in tree.values() if isinstance(value, Mapping)]
    if any("param_groups" in level for level in (tree, *inner)):
        return "an optimizer's state without weights; save model.state_dict()"
    return None


def stranger_in_names(tensors: Mapping[str, Tensor]) -> str | None:
    """What a checkpoint is by its tensors' names (and one width), with the next step, or None."""
    for name in tensors:
        if re.search(r"(^|\.)(image_encoder\.)?blocks\.\d+\.attn\.rel_pos_[hw]$", name):
            width = next(
                (entry.shape[-1] for other, entry in tensors.items() if other.endswith("pos_embed") and entry.ndim), 0
            )
            return f"a SAM ViT-{_SAM_WIDTHS.get(width, '?')} checkpoint, not MobileSAM's; {ITS_DECODER}"
    for pattern, remark in _NAMES:
        if any(re.search(pattern, name) for name in tensors):
            return remark
    has_neck = any("neck." in name for name in tensors)
    if any(_TINY_VIT.search(name) for name in tensors) and not has_neck:
        return "a TinyViT image classifier, without MobileSAM's neck; " + NOT_OURS
    shapes = {name: tuple(entry.shape) for name, entry in tensors.items()}
    if is_nano_sam(shapes) and recognised(shapes) is None:
        return (
            f"a NanoSAM checkpoint with a backbone that is not known here, expected one of {', '.join(RESNETS)}, "
            f"{', '.join(HGNETS_V2)}; for another save it as .safetensors with the backbone in the metadata, such as "
            '{"backbone": "nanosam_efficientvit_b0"}'
        )
    if widths := repvit_widths(shapes).values():
        if not has_neck:
            return "a RepViT image classifier, without RepViT-SAM's neck; expected such as repvit_sam.pt"
        if recognised(shapes) is None:
            sizes = ", ".join(size.replace("_", ".") for size in REPVIT_SIZES)
            return (
                f"a checkpoint with a RepViT encoder of {len(widths)} blocks on {min(widths)} to {max(widths)} "
                f"channels, expected one of the sizes {sizes}; {ITS_DECODER}"
            )
    return None
