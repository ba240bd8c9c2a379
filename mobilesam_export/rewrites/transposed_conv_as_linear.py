"""Rewrite: a 2x2 transposed convolution of stride 2 becomes a linear layer on tokens.

What: its windows do not overlap, so every input pixel makes its own 2x2 output pixels: one (4 * out, in)
matrix with rows ordered (dy, dx, channel), the bias repeated four times.
Why: one Gemm; transposed convolutions are slow or poorly supported on phones. The pixels are put in order
once, at the very end, when only four mask channels are left.
Refuses: any other kernel, stride, padding, dilation or grouping.
"""

from torch import Tensor, nn


def transposed_conv_as_linear(conv: nn.ConvTranspose2d) -> tuple[Tensor, Tensor]:
    """Compute the float32 (4 * out, in) weight and (4 * out,) bias; rows ordered (dy, dx, channel).

    Raises:
        ValueError: if its windows overlap or leave gaps.
    """
    geometry = (conv.kernel_size, conv.stride, conv.padding, conv.output_padding, conv.dilation, conv.groups)
    if geometry != ((2, 2), (2, 2), (0, 0), (0, 0), (1, 1), 1) or conv.bias is None:
        raise ValueError(
            f"got a transposed convolution with kernel, stride, padding, output padding, dilation, groups {geometry}, "
            "expected a 2x2 kernel of stride 2 without padding, with bias"
        )
    weight = conv.weight.detach().float()  # (in, out, dy, dx)
    return weight.permute(2, 3, 1, 0).reshape(-1, conv.in_channels), conv.bias.detach().float().repeat(4)
