"""Rewrite: a 3x3 transposed convolution of stride 2 becomes a 2x2 convolution that makes four pixels of each.

What: of two neighbouring pixels of the result, in a row or a column, the first reads one pixel of the source, by the
kernel's middle, and the second two, by its ends. So each of the four pixels of a 2x2 square reads from a 2x2 square of
the source, and its weights are the kernel's, moved; nothing is computed. Behind it the four are put in their places.
Why: every target runs a convolution well; a transposed one with an output padding is converted in ways of their own.
Refuses: any other kernel, stride, padding, dilation or grouping.
"""

import torch
from torch import nn

_TAP_OF_KERNEL = ((1, None), (2, 0))  # by phase and by the tap of the 2x2 kernel


def transposed_conv_by_phases(conv: nn.ConvTranspose2d, channels_last: bool) -> nn.Conv2d:
    """Make the convolution, without padding: the source gets a row and a column of zeros at the bottom and right.

    Args:
        conv: stays as it is.
        channels_last: output channels ordered (row, column, channel), as for a map whose channels lie last; else
            (channel, row, column), as ``pixel_shuffle`` reads them.

    Raises:
        ValueError: of another geometry.
    """
    geometry = (conv.kernel_size, conv.stride, conv.padding, conv.output_padding, conv.dilation, conv.groups)
    if geometry != ((3, 3), (2, 2), (1, 1), (1, 1), (1, 1), 1) or conv.bias is None:
        raise ValueError(
            f"got a transposed convolution with kernel, stride, padding, output padding, dilation, groups {geometry}, "
            "expected a 3x3 kernel of stride 2, both paddings 1, with bias"
        )
    kernel = conv.weight.detach().float().transpose(0, 1)  # (out, in, 3, 3)
    weight = torch.zeros(2, 2, conv.out_channels, conv.in_channels, 2, 2)  # (row, column, out, in, tap, tap)
    for row, row_taps in enumerate(_TAP_OF_KERNEL):
        for column, column_taps in enumerate(_TAP_OF_KERNEL):
            for y, from_y in enumerate(row_taps):
                for x, from_x in enumerate(column_taps):
                    if from_y is not None and from_x is not None:
                        weight[row, column, :, :, y, x] = kernel[:, :, from_y, from_x]
    bias = conv.bias.detach().float().expand(2, 2, -1)
    if not channels_last:
        weight, bias = weight.permute(2, 0, 1, 3, 4, 5), bias.permute(2, 0, 1)
    phases = nn.Conv2d(conv.in_channels, 4 * conv.out_channels, 2)
    phases.weight.data, bias_data = weight.reshape(phases.weight.shape).contiguous(), bias.reshape(-1).contiguous()
    assert phases.bias is not None
    phases.bias.data = bias_data
    return phases.requires_grad_(False)
