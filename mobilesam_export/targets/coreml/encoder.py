"""The image encoder for Core ML, and which of its parts a precision treats apart."""

from mobilesam_export.rewrites.channels_first.encoder import ImageEncoderChannelsFirst
from mobilesam_export.targets.coreml.executor.structure import Form
from reference.mobile_sam import MobileSam


class ImageEncoderCoreML(ImageEncoderChannelsFirst):
    """See ``ImageEncoderChannelsFirst``."""

    # Parts that a precision treats apart (see ``parts``; a star is any index); ``precision.compress`` says why.
    DEPTHWISE = (
        "mbconvs.*.conv2",
        "stages.*.downsample.conv2",
        "stages.0.blocks.*.local_conv",
        "stages.1.blocks.*.local_conv",
    )
    BATCH_NORM_FOLDED = ("stem", "mbconvs", "stages.*.downsample", "stages.*.blocks.*.local_conv")
    ATTENTION_BIASES = ("stages.*.blocks.*.attn.attention_bias",)
    # Whose inputs are rounded to 8 bits: three of the four convolutions of each transformer block, where most weights
    # are. Left out are stem, mergings, depthwise convolutions and neck, where one range for all channels is too coarse,
    # and the block's fourth, fc2: GELU's outputs hardly go below zero, so that half of a symmetric range is empty, and
    # have long tails. Alone these cost 56, 46, 60, 60 and 58 dB of the embedding, each of the three 65 dB or more; with
    # fc2 the lowest mask IoU was 0.947 instead of 0.963 (one thread; 0.952 and 0.974 with two, as the reference's own
    # rounding moves).
    EIGHT_BIT_INPUTS = tuple(f"stages.*.blocks.*.{part}" for part in ("attn.qkv", "attn.proj", "fc1"))
    form: Form

    def __init__(self, sam: MobileSam, eight_bit: bool = False) -> None:
        super().__init__(sam, eight_bit)
        # Two transposes for each attention; all norms fused.
        attentions = sum(name.endswith(".attn") for name, _ in self.named_modules())
        self.form = Form(transposes=2 * attentions, layer_norms=2 * attentions + 2)
