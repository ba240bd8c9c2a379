"""RepViT-SAM's image encoder for Core ML, and which of its parts a precision treats apart."""

from mobilesam_export.rewrites.channels_first.repvit import RepVitEncoderChannelsFirst
from mobilesam_export.targets.coreml.executor.structure import Form
from reference.mobile_sam import MobileSam


class RepVitEncoderCoreML(RepVitEncoderChannelsFirst):
    """See ``RepVitEncoderChannelsFirst``."""

    # Parts that a precision treats apart, as in ``ImageEncoderCoreML``.
    DEPTHWISE = ("stages.*.blocks.*.spatial",)
    BATCH_NORM_FOLDED = ("stem", "stages")
    ATTENTION_BIASES: tuple[str, ...] = ()
    EIGHT_BIT_INPUTS: tuple[str, ...] = ()
    form: Form

    def __init__(self, sam: MobileSam, eight_bit: bool = False) -> None:
        super().__init__(sam, eight_bit)
        scaled = sum(block.squeeze is not None for stage in self.folded.stages for block in stage)
        self.form = Form(transposes=0, layer_norms=2, means=2 * scaled)
