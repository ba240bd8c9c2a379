"""Rewrite: the last addition of the image's LayerNorm goes into the layers that read the image.

What: SAM's two-way block ends with a LayerNorm of the whole image; the (C,) bias that it adds last is left out, and
what it would have done is worked into the weights behind it. Token to image: to a score it adds the same at every
position, which the softmax cancels; a weighted mean of the image it moves by itself, which the output bias takes.
Image to token: it adds b . k to a score, a bias of that column; the answer is added to the image, which thereby has
the bias back.
Why: one pass less over HW * C numbers, of which half of a decoder's time consists.
Refuses: nothing; both are exact for every bias.
"""

from dataclasses import replace

from torch import Tensor

from mobilesam_export.rewrites.absorb_projections import ImageToToken, TokenToImage


def token_to_image_without(folded: TokenToImage, omitted_bias: Tensor) -> TokenToImage:
    """The weights of a token-to-image attention on an image that comes without its (C,) ``omitted_bias``."""
    seen = (omitted_bias.double() @ folded.value_weight).flatten()
    return replace(folded, out_bias=folded.out_bias + folded.out_weight @ seen)


def image_to_token_without(folded: ImageToToken, omitted_bias: Tensor) -> ImageToToken:
    """The weights of an image-to-token attention that reads an image without its (C,) ``omitted_bias``, and adds it."""
    return replace(
        folded,
        query_bias=folded.query_bias + folded.query_weight @ omitted_bias.double(),
        out_bias=folded.out_bias + omitted_bias.double(),
    )
