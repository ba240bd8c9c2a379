"""Linear layers from given weights."""

from torch import Tensor, nn


def linear_with(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A frozen float32 linear layer with copies of an (out, in) weight and an (out,) bias."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    linear.weight.data = weight.detach().float().clone()
    if bias is not None:
        linear.bias.data = bias.detach().float().clone()
    return linear.requires_grad_(False)
