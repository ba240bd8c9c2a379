"""The flow of one block of SAM's two-way transformer, for layouts on (B, T, C) tokens and a (B, HW, C) image.

What a part computes, and from which arrangement of its weights, is the layout's own.
"""

from torch import Tensor, nn


class TwoWayFlow(nn.Module):
    """Self-attention of tokens, tokens to image, MLP on tokens, image to tokens; a norm behind each.

    Args:
        first: self-attention has neither positional encoding nor residual.
        self_attn: of (tokens as queries and keys, tokens as values, absent).
        cross_attn_token_to_image: of (tokens with their encoding, image with its encoding, image).
        mlp: of tokens.
        cross_attn_image_to_token: of (image with its encoding, tokens with their encoding, tokens, absent).
        norms: in that order; the last of the image.
    """

    def __init__(
        self,
        first: bool,
        self_attn: nn.Module,
        cross_attn_token_to_image: nn.Module,
        mlp: nn.Module,
        cross_attn_image_to_token: nn.Module,
        norms: tuple[nn.Module, nn.Module, nn.Module, nn.Module],
    ) -> None:
        super().__init__()
        self.first = first
        self.self_attn, self.mlp = self_attn, mlp
        self.cross_attn_token_to_image = cross_attn_token_to_image
        self.cross_attn_image_to_token = cross_attn_image_to_token
        self.norm1, self.norm2, self.norm3, self.norm4 = norms

    def forward(
        self, tokens: Tensor, image: Tensor, token_pe: Tensor, image_pe: Tensor, absent: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Update (B, T, C) tokens and the (B, HW, C) image; ``absent`` hides absent tokens."""
        if self.first:
            tokens = self.self_attn(tokens, tokens, absent)
        else:
            tokens = tokens + self.self_attn(tokens + token_pe, tokens, absent)
        tokens = self.norm1(tokens)
        image_with_pe = image + image_pe
        tokens = self.norm2(tokens + self.cross_attn_token_to_image(tokens + token_pe, image_with_pe, image))
        tokens = self.norm3(tokens + self.mlp(tokens))
        image = self.norm4(image + self.cross_attn_image_to_token(image_with_pe, tokens + token_pe, tokens, absent))
        return tokens, image
