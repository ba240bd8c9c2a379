"""LayerNorm over the channel axis of (B, C, H, W) as one operator that survives tracing.

Apple's formats have a fused ``layer_norm`` over any axis, PyTorch only over the last ones. Spelled out in PyTorch it
reaches them as five operations, one of which squares: in float16 that overflows once a value lies 256
from the mean. As an operator of its own, each target maps it to the fused one. Eager PyTorch runs the definition
below.
"""

import torch
from torch import Tensor, nn

OPERATOR_NAME = "mobilesam_export::channel_layer_norm"


def normalise_channels(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """Normalise (B, C, H, W) over C; weight and bias have C elements, or there are none."""
    centred = x - x.mean(1, keepdim=True)
    normal = centred * torch.rsqrt(centred.square().mean(1, keepdim=True) + eps)
    if weight is not None:
        normal = normal * weight[:, None, None]
    if bias is not None:
        normal = normal + bias[:, None, None]
    return normal


channel_layer_norm = torch.library.custom_op(OPERATOR_NAME, normalise_channels, mutates_args=())


@channel_layer_norm.register_fake
def _(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    return torch.empty_like(x)


class ChannelLayerNorm(nn.Module):
    """A LayerNorm's weights over axis 1.

    Args:
        weight: (C,), or None for no affine.
        bias: (C,), or None.
    """

    def __init__(self, weight: Tensor | None, bias: Tensor | None, eps: float) -> None:
        super().__init__()
        self.register_buffer("weight", None if weight is None else weight.detach().clone())
        self.register_buffer("bias", None if bias is None else bias.detach().clone())
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        normal: Tensor = channel_layer_norm(x, self.weight, self.bias, self.eps)
        return normal
