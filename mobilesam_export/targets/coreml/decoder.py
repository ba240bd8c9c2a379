"""The prompt decoder for Core ML, and which of its parts a precision treats apart."""

from mobilesam_export.rewrites.channels_first.decoder import PromptDecoderChannelsFirst
from mobilesam_export.targets.coreml.executor.structure import Form
from reference.mobile_sam import MobileSam


class PromptDecoderCoreML(PromptDecoderChannelsFirst):
    """See ``PromptDecoderChannelsFirst``."""

    # Parts that a precision treats apart (see ``parts``; a star stands for every index).
    EXACT = ("point_embedding", "image_pe")  # coordinates and what compares positions; float16 knows half pixels only
    PERCEPTRONS = ("layers.*.mlp", "output_hypernetworks_mlps", "iou_prediction_head")
    form: Form

    def __init__(self, sam: MobileSam) -> None:
        super().__init__(sam)
        self.form = Form(transposes=2, layer_norms=12)  # with a fixed number of slots
