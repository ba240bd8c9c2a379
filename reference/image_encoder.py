"""MobileSAM's image encoder: TinyViT-5M from timm at stride 16, and SAM's neck.

MobileSAM (arXiv 2306.14289, Apache-2.0) takes TinyViT (arXiv 2207.10666) and sets the stride of the
last downsampling to 1, so that its 320 channels stay on the 1/16 grid that SAM's decoder expects.
RepViT-SAM (arXiv 2312.05760, Apache-2.0) does the same to a RepViT (arXiv 2307.09283).
Any other timm backbone with a 1/16 map can stand in as a student, or one with a 1/32 map behind NanoSAM's neck.
"""

from typing import Any

import timm
import torch
from timm.models._features import FeatureInfo
from timm.models.repvit import RepVit
from timm.models.tiny_vit import Attention as TimmAttention
from timm.models.tiny_vit import TinyVit
from torch import Tensor, nn

from reference.layer_norm_2d import LayerNorm2d
from reference.nano_sam import NANO_SAM, NANO_SAM_STRIDE, NanoSamNeck

DEFAULT_BACKBONE = "tiny_vit_5m_224"
REPVIT_SAM = "repvit_sam_"  # before the size: all four stages, the last at stride 1, of timm's repvit_SIZE
EMBEDDING_CHANNELS = 256
ENCODER_STRIDE = 16


class FreshBiasAttention(TimmAttention):
    """timm's TinyViT attention without its cache of gathered biases.

    timm (like the official code) keeps the gathered relative position bias of the first evaluation
    forward pass, so weights changed afterwards run with the old bias. Gathering costs microseconds.
    """

    attention_bias_idxs: Tensor

    def get_attention_biases(self, device: torch.device) -> Tensor:
        """Gather the (heads, window tokens, window tokens) bias from the weights as they are now."""
        return self.attention_biases[:, self.attention_bias_idxs]


class TimmFeatures(nn.Module):
    """The feature map of one stride, of any timm backbone that offers it."""

    def __init__(self, backbone: str, pretrained: bool, stride: int = ENCODER_STRIDE) -> None:
        super().__init__()
        reductions = _feature_info(_timm_model(backbone, False, features_only=True)).reduction()
        if stride not in reductions:
            raise ValueError(
                f"backbone {backbone!r} has feature maps at strides {reductions}, expected one at {stride}; "
                "choose another with timm.list_models()"
            )
        index = reductions.index(stride)
        self.model = _timm_model(backbone, pretrained, features_only=True, out_indices=(index,))
        self.channels: int = _feature_info(self.model).channels()[0]

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 3, H, W) to (B, channels, H / stride, W / stride)."""
        features: Tensor = self.model(x)[0]
        return features if features.shape[1] == self.channels else features.permute(0, 3, 1, 2)  # BHWC -> BCHW


def _timm_model(backbone: str, pretrained: bool, **options: Any) -> nn.Module:
    try:
        model: nn.Module = timm.create_model(backbone, pretrained=pretrained, **options)
    except RuntimeError as error:
        raise ValueError(
            f"timm cannot make backbone {backbone!r} ({error}); choose another with timm.list_models()"
        ) from error
    return model


def _feature_info(model: nn.Module) -> FeatureInfo:
    info = model.feature_info
    assert isinstance(info, FeatureInfo)
    return info


def tiny_vit_at_stride_16(backbone: str, pretrained: bool = False) -> TinyVit:
    """Build a timm TinyViT whose last stage stays on the 1/16 grid, without its classifier.

    Its stages accept any input size that is a multiple of 32; nothing in the weights depends on it.
    """
    body = _timm_model(backbone, pretrained, num_classes=0)
    assert isinstance(body, TinyVit)
    last_downsampling = body.get_submodule("stages.3.downsample.conv2.conv")
    assert isinstance(last_downsampling, nn.Conv2d)
    last_downsampling.stride = (1, 1)
    body.add_module("head", nn.Identity())
    for module in body.modules():
        if isinstance(module, TimmAttention):
            module.__class__ = FreshBiasAttention
    return body


def repvit_at_stride_16(backbone: str, pretrained: bool = False) -> RepVit:
    """Build a timm RepViT whose last stage stays on the 1/16 grid, without its classifier.

    Args:
        backbone: timm's name.
    """
    body = _timm_model(backbone, pretrained, num_classes=0)
    assert isinstance(body, RepVit)
    last_downsampling = body.get_submodule(f"stages.{len(body.stages) - 1}.downsample.spatial_downsample.c")
    assert isinstance(last_downsampling, nn.Conv2d)
    last_downsampling.stride = (1, 1)
    body.add_module("head", nn.Identity())
    return body


def timm_name(backbone: str) -> str:
    """What timm calls the model behind a backbone."""
    if backbone.startswith(REPVIT_SAM):
        return f"repvit_{backbone.removeprefix(REPVIT_SAM)}"
    return backbone.removeprefix(NANO_SAM)


class ImageEncoder(nn.Module):
    """Image to embedding.

    Args:
        backbone: a timm model name; TinyViT variants get MobileSAM's stride, others their 1/16 map. Or
            ``repvit_sam_m0_9``, ``m1_0``, ``m1_1``, ``m1_5``, ``m2_3``: RepViT-SAM's, with all four stages. Or
            ``nanosam_`` and a timm model name: NanoSAM's, with the 1/32 map and its own neck.
        pretrained: let timm fetch ImageNet weights (needs the network), for training a student.
        image_size: S, which NanoSAM's neck has weights for; the others take any.
    """

    def __init__(self, backbone: str = DEFAULT_BACKBONE, pretrained: bool = False, image_size: int = 1024) -> None:
        super().__init__()
        self.backbone = backbone
        self.body: TinyVit | RepVit | TimmFeatures
        self.neck: nn.Sequential | NanoSamNeck
        if backbone.startswith(NANO_SAM):
            self.body = TimmFeatures(timm_name(backbone), pretrained, NANO_SAM_STRIDE)
            self.neck = NanoSamNeck(self.body.channels, image_size // ENCODER_STRIDE)
            return
        if backbone.startswith("tiny_vit"):
            self.body = tiny_vit_at_stride_16(backbone, pretrained)
            channels: int = self.body.num_features
        elif backbone.startswith(REPVIT_SAM):
            self.body = repvit_at_stride_16(timm_name(backbone), pretrained)
            channels = self.body.num_features
        else:
            features = TimmFeatures(backbone, pretrained)
            self.body, channels = features, features.channels
        self.neck = nn.Sequential(
            nn.Conv2d(channels, EMBEDDING_CHANNELS, 1, bias=False),
            LayerNorm2d(EMBEDDING_CHANNELS),
            nn.Conv2d(EMBEDDING_CHANNELS, EMBEDDING_CHANNELS, 3, padding=1, bias=False),
            LayerNorm2d(EMBEDDING_CHANNELS),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Encode normalised images.

        Args:
            x: (B, 3, S, S), normalised with the ImageNet mean and std, zero where padded; S a multiple of 32.

        Returns:
            (B, 256, S/16, S/16) image embeddings.
        """
        if isinstance(self.body, TimmFeatures):
            features: Tensor = self.body(x)
        else:
            features = self.body.forward_features(x)  # type: ignore[no-untyped-call]  # timm's carries no type hints
        embeddings: Tensor = self.neck(features)
        return embeddings
