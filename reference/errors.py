"""What can be wrong with what a user gives the reference: one class each, a one-line message with the next step."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or that holds other weights than MobileSAM's."""


class ImageError(ValueError):
    """An image that is none, or of a kind that cannot be read as 8-bit RGB."""


class PromptError(ValueError):
    """A prompt without meaning: missing labels, wrong shapes, NaN coordinates, nothing at all."""
