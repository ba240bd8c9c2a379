"""Layers on tokens, (..., C), from given weights."""

from torch import Tensor, nn

from reference.layer_norm_2d import LayerNorm2d


def linear_with(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    """A frozen float32 linear layer with copies of an (out, in) weight and an (out,) bias."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    linear.weight.data = weight.detach().float().clone()
    if bias is not None:
        linear.bias.data = bias.detach().float().clone()
    return linear.requires_grad_(False)


def token_norm(norm: LayerNorm2d) -> nn.LayerNorm:
    """The same normalisation over the last dimension instead of the second."""
    layer = nn.LayerNorm(norm.weight.shape[0], eps=norm.eps)
    layer.load_state_dict(norm.state_dict())
    return layer.requires_grad_(False)
