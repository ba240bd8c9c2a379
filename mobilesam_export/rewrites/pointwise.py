"""A linear layer as a 1x1 convolution, for targets that prefer one."""

from torch import Tensor, nn


def pointwise(weight: Tensor, bias: Tensor | None = None) -> nn.Conv2d:
    """A frozen float32 1x1 convolution with copies of a linear layer's (out, in) weight and (out,) bias."""
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], 1, bias=bias is not None)
    conv.weight.data = weight.detach().float()[:, :, None, None].clone()
    if bias is not None:
        assert conv.bias is not None
        conv.bias.data = bias.detach().float().clone()
    return conv.requires_grad_(False)
