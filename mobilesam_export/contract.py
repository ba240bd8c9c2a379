"""What goes into an artifact and what comes out: the one source for every target, runtime, manifest and document.

The pad rule. A photo is resized so that its longest side is S and lies in the top-left corner of the
square model frame. The host fills the rest with the pad colour *before* the graph normalises, so that
the padding is zero after it, as in SAM. A float input takes the exact mean and is exact; an 8-bit input
takes the rounded mean, which leaves at most 0.0082 of a standard deviation in the padding (the
8-bit encoders of Core ML and TFLite remove that too, by taking pixels of exactly this colour for the mean).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from reference import values
from reference.values import MASK_THRESHOLD as MASK_THRESHOLD
from reference.values import PIXEL_MEAN as PIXEL_MEAN
from reference.values import PIXEL_STD as PIXEL_STD

CONTRACT_VERSION = "1"

PAD_COLOUR = PIXEL_MEAN  # for float inputs
PAD_COLOUR_8BIT = (124, 116, 104)  # for 8-bit inputs
EMBEDDING_CHANNELS = 256
MASK_COUNT = 4  # row 0: the single-mask answer; rows 1 to 3: the multimask answers
ENCODER_SUMMARY = "MobileSAM's image encoder: run it once a photo, then the prompt decoder once a prompt."
DECODER_SUMMARY = "MobileSAM's prompt decoder: points, a box or an earlier mask to masks and their predicted IoU."
DEFAULT_IMAGE_SIZE = 1024
DEFAULT_MAX_POINTS = 8


class PointLabel(IntEnum):
    """What a slot of ``point_labels`` says about its point."""

    ABSENT = -2  # an unused slot: masked out of every attention, as if it were not there
    PADDING = values.PADDING_LABEL  # SAM's padding point: one, at (0, 0), whenever points come without a box
    BACKGROUND = values.BACKGROUND_LABEL
    FOREGROUND = values.FOREGROUND_LABEL
    BOX_TOP_LEFT = values.BOX_TOP_LEFT
    BOX_BOTTOM_RIGHT = values.BOX_BOTTOM_RIGHT


@dataclass(frozen=True)
class Port:
    """One input or output of a graph.

    Attributes:
        shape: with names for the dimensions that may vary; (height, width) of a Core ML image.
        dtype: as NumPy calls it; ``rgb_image`` for a Core ML image.
        meaning: unit, range and frame, in a sentence.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str
    meaning: str


@dataclass(frozen=True)
class Written:
    """What a pair of written files says of itself, read from the files.

    Attributes:
        max_points: the most slots for points and box corners that the decoder takes; None for any number.
        metadata: both files' own named strings, such as ``precision``; what they do not agree on is left out.
    """

    encoder_inputs: tuple[Port, ...]
    encoder_outputs: tuple[Port, ...]
    decoder_inputs: tuple[Port, ...]
    decoder_outputs: tuple[Port, ...]
    max_points: int | None
    metadata: Mapping[str, str]


def common(encoder: Mapping[str, str], decoder: Mapping[str, str]) -> dict[str, str]:
    """The named strings that two files agree on."""
    return {name: value for name, value in encoder.items() if decoder.get(name) == value}


@dataclass(frozen=True)
class Contract:
    """Both graphs' ports for one model-frame size, in the canonical NCHW form.

    Attributes:
        image_size: side S of the model frame in pixels.
        max_points: slots for points and box corners of a fixed-N decoder; None for any number.
        single_mask: the decoder chooses one mask by itself.
    """

    image_size: int = DEFAULT_IMAGE_SIZE
    max_points: int | None = None
    single_mask: bool = False

    @property
    def grid_size(self) -> int:
        """Side of the embedding."""
        return self.image_size // 16

    @property
    def low_res_size(self) -> int:
        """Side of mask logits in and out."""
        return self.image_size // 4

    @property
    def encoder_inputs(self) -> tuple[Port, ...]:
        """Inputs of the image encoder."""
        side = self.image_size
        return (
            Port(
                "image",
                (1, 3, side, side),
                "float32",
                f"RGB, 0 to 255: the photo resized (antialiased) so that its longest side is {side}, in the top-left "
                f"corner; the rest filled with the pad colour {PAD_COLOUR} ({PAD_COLOUR_8BIT} for 8-bit inputs)",
            ),
        )

    @property
    def encoder_outputs(self) -> tuple[Port, ...]:
        """Outputs of the image encoder."""
        shape = (1, EMBEDDING_CHANNELS, self.grid_size, self.grid_size)
        return (
            Port("image_embeddings", shape, "float32", "the photo's embedding; pass it to the prompt decoder as it is"),
        )

    @property
    def decoder_inputs(self) -> tuple[Port, ...]:
        """Inputs of the prompt decoder."""
        batch: int | str = "prompts" if self.max_points is None else 1
        points: int | str = "points" if self.max_points is None else self.max_points
        low = self.low_res_size
        return (
            *self.encoder_outputs,
            Port(
                "point_coords",
                (batch, points, 2),
                "float32",
                "x, y in model-frame pixels (the photo's pixels times the resize)",
            ),
            Port(
                "point_labels",
                (batch, points),
                "float32",
                "1 foreground, 0 background, 2 and 3 a box's top-left and bottom-right corner, -1 padding point "
                "(append one at (0, 0) whenever there is no box), -2 absent slot (ignored)",
            ),
            Port(
                "mask_input",
                (batch, 1, low, low),
                "float32",
                "logits of an earlier low_res_masks row; zeros if there is none",
            ),
            Port("has_mask_input", (1,), "float32", "1 if mask_input is given; 0 or less: none"),
        )

    @property
    def decoder_outputs(self) -> tuple[Port, ...]:
        """Outputs of the prompt decoder."""
        batch: int | str = "prompts" if self.max_points is None else 1
        low = self.low_res_size
        count = 1 if self.single_mask else MASK_COUNT
        rows = (
            "the one mask that the decoder chose: the best of three for a click or a box, else the single-mask answer"
            if self.single_mask
            else "row 0 is the single-mask answer, rows 1 to 3 the alternatives for one ambiguous click"
        )
        return (
            Port(
                "low_res_masks",
                (batch, count, low, low),
                "float32",
                f"mask logits; {rows}. "
                f"Resize bilinearly to {self.image_size}, crop the padding, resize to the photo, then compare with 0",
            ),
            Port("iou_predictions", (batch, count), "float32", "predicted IoU of each mask"),
        )
