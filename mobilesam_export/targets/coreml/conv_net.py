"""A ResNet's or HGNetV2's image encoder for Core ML, and which of its parts a precision treats apart."""

from torch import nn

from mobilesam_export.rewrites.channels_first.conv_net import ConvNetEncoderChannelsFirst
from mobilesam_export.targets.coreml.executor.structure import Form
from reference.mobile_sam import MobileSam
from reference.nano_sam import NanoSamNeck


class ConvNetEncoderCoreML(ConvNetEncoderChannelsFirst):
    """See ``ConvNetEncoderChannelsFirst``."""

    # Parts that a precision treats apart, as in ``ImageEncoderCoreML``.
    BATCH_NORM_FOLDED = ("stem", "stages")
    ATTENTION_BIASES: tuple[str, ...] = ()
    EIGHT_BIT_INPUTS: tuple[str, ...] = ()
    form: Form

    def __init__(self, sam: MobileSam, eight_bit: bool = False) -> None:
        super().__init__(sam, eight_bit)
        nano_sam = isinstance(self.folded.neck, NanoSamNeck)
        self.form = Form(transposes=0, layer_norms=0 if nano_sam else 2)
        depthwise = [name for name, layer in self.named_modules() if isinstance(layer, nn.Conv2d) and layer.groups > 1]
        # The learned places are no weights of a layer: one scale for all of them would be coarse.
        self.DEPTHWISE = (*depthwise, *(["neck.pos_embedding"] if nano_sam else []))
