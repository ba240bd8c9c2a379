"""Rewrite: cross-attention between few tokens and many image positions, without projecting the image.

With T tokens, HW positions and inner width c < C, SAM projects the image three times per attention
(HW * C * c each). Both directions can do without, exactly:

Token to image. A score is (Wq t + bq) . (Wk x + bk). Per head that is (Wk^T q) . x plus q . bk; the latter is
the same for all positions and cancels in the softmax. The attended value is sum_x p(x) (Wv x + bv) =
Wv (sum_x p(x) x) + bv, because p sums to one. So the query is carried into image space (T rows), the image
is summed there, and Wv, Wo act on T rows; bv moves into the output bias.

Image to token. A score is (Wq x + bq) . k = x . (Wq^T k) + bq . k, and the output is sum_t p(t) Wo v(t) + bo.
So Wq goes into the keys and Wo into the values, T rows each.

What: the matrices for both, in float64. Why: 268 MFLOP of projections become 117 at T = 7 (64x64 grid).
Refuses: widths that do not divide into the heads.
"""

from dataclasses import dataclass

from torch import Tensor

from reference.two_way_transformer import Attention


@dataclass(frozen=True)
class TokenToImage:
    """Weights of an absorbed token-to-image attention, float64; h heads of width d, h * d = c.

    Attributes:
        query_weight: (c, C), scaled.
        query_bias: (c,), scaled.
        key_weight: (h, d, C), carries a head's query into image space.
        value_weight: (h, C, d), brings a head's sum over the image back.
        out_weight: (C, c).
        out_bias: (C,), with the value bias in it.
    """

    query_weight: Tensor
    query_bias: Tensor
    key_weight: Tensor
    value_weight: Tensor
    out_weight: Tensor
    out_bias: Tensor

    @property
    def heads(self) -> int:
        """h."""
        return self.key_weight.shape[0]


@dataclass(frozen=True)
class ImageToToken:
    """Weights of an absorbed image-to-token attention, float64.

    Attributes:
        key_weight: (c, C), scaled; keys are ``key_weight @ t + key_bias``.
        key_bias: (c,), scaled.
        query_weight: (h, d, C), carries a head's key into image space.
        query_bias: (h, d), its product with a head's key is added to that column of scores.
        value_weight: (c, C).
        value_bias: (c,).
        out_weight: (h, d, C), carries a head's value into image space.
        out_bias: (C,).
    """

    key_weight: Tensor
    key_bias: Tensor
    query_weight: Tensor
    query_bias: Tensor
    value_weight: Tensor
    value_bias: Tensor
    out_weight: Tensor
    out_bias: Tensor

    @property
    def heads(self) -> int:
        """h."""
        return self.query_weight.shape[0]


def _head_dim(attention: Attention) -> int:
    inner = attention.q_proj.out_features
    if inner % attention.heads:
        raise ValueError(f"got an inner width of {inner} for {attention.heads} heads, expected one that divides")
    return inner // attention.heads


def absorb_token_to_image(attention: Attention) -> TokenToImage:
    """Rearrange the weights of one token-to-image attention.

    Raises:
        ValueError: if the inner width does not divide into the heads.
    """
    scale = _head_dim(attention) ** -0.5
    heads = attention.heads
    out_weight = attention.out_proj.weight.detach().double()
    return TokenToImage(
        query_weight=attention.q_proj.weight.detach().double() * scale,
        query_bias=attention.q_proj.bias.detach().double() * scale,
        key_weight=attention.k_proj.weight.detach().double().unflatten(0, (heads, -1)),
        value_weight=attention.v_proj.weight.detach().double().unflatten(0, (heads, -1)).transpose(1, 2),
        out_weight=out_weight,
        out_bias=attention.out_proj.bias.detach().double() + out_weight @ attention.v_proj.bias.detach().double(),
    )


def absorb_image_to_token(attention: Attention) -> ImageToToken:
    """Rearrange the weights of one image-to-token attention.

    Raises:
        ValueError: if the inner width does not divide into the heads.
    """
    scale = _head_dim(attention) ** -0.5
    heads = attention.heads
    return ImageToToken(
        key_weight=attention.k_proj.weight.detach().double() * scale,
        key_bias=attention.k_proj.bias.detach().double() * scale,
        query_weight=attention.q_proj.weight.detach().double().unflatten(0, (heads, -1)),
        query_bias=attention.q_proj.bias.detach().double().unflatten(0, (heads, -1)),
        value_weight=attention.v_proj.weight.detach().double(),
        value_bias=attention.v_proj.bias.detach().double(),
        out_weight=attention.out_proj.weight.detach().double().T.unflatten(0, (heads, -1)),
        out_bias=attention.out_proj.bias.detach().double(),
    )
