"""How a target's maps lie in memory, and what an image encoder of convolutions is written with there."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Layout(ABC):
    """How maps lie in memory, and what is written in another way for it.

    Attributes:
        channels_last: (1, H, W, C) instead of (1, C, H, W).
        most_joined: how many maps are joined at a time.
    """

    channels_last: bool
    most_joined: int

    @abstractmethod
    def layer(self, conv: nn.Conv2d) -> nn.Module:
        """A convolution."""

    @abstractmethod
    def pad(self, x: Tensor, before: int, after: int) -> Tensor:
        """Rows and columns of zeros around a map."""

    @abstractmethod
    def greatest(self, x: Tensor, side: int, stride: int = 1, before: int = 0, after: int = 0) -> Tensor:
        """The greatest value of every square of ``side``, of a map that is padded as by ``pad``."""

    @abstractmethod
    def join(self, maps: Sequence[Tensor]) -> Tensor:
        """The channels of several maps, one after the other."""

    @abstractmethod
    def interleave(self, x: Tensor) -> Tensor:
        """The pixels that ``transposed_conv_by_phases`` makes, in their places: (H, W, 4C) to (2H, 2W, C)."""


class ChannelsFirst(Layout):
    """(1, C, H, W)."""

    channels_last = False
    most_joined = 7  # an HGNetV2's most

    def layer(self, conv: nn.Conv2d) -> nn.Module:
        """See ``Layout``."""
        return conv

    def pad(self, x: Tensor, before: int, after: int) -> Tensor:
        """See ``Layout``."""
        return F.pad(x, (before, after, before, after))

    def greatest(self, x: Tensor, side: int, stride: int = 1, before: int = 0, after: int = 0) -> Tensor:
        """See ``Layout``."""
        return F.max_pool2d(self.pad(x, before, after), side, stride)

    def join(self, maps: Sequence[Tensor]) -> Tensor:
        """See ``Layout``."""
        return torch.cat(list(maps), 1)

    def interleave(self, x: Tensor) -> Tensor:
        """See ``Layout``."""
        return F.pixel_shuffle(x, 2)


class ChannelsLast(Layout):
    """(1, H, W, C).

    Args:
        layer: how a convolution is written.
        greatest: the greatest value of every square, of a map, its side and the stride.
    """

    channels_last = True
    most_joined = 4  # by LiteRT's XNNPACK; its converter makes one of joins of joins

    def __init__(self, layer: Callable[[nn.Conv2d], nn.Module], greatest: Callable[[Tensor, int, int], Tensor]) -> None:
        self._layer, self._greatest = layer, greatest

    def layer(self, conv: nn.Conv2d) -> nn.Module:
        """See ``Layout``."""
        return self._layer(conv)

    def pad(self, x: Tensor, before: int, after: int) -> Tensor:
        """See ``Layout``."""
        return F.pad(x, (0, 0, before, after, before, after))

    def greatest(self, x: Tensor, side: int, stride: int = 1, before: int = 0, after: int = 0) -> Tensor:
        """See ``Layout``."""
        return self._greatest(self.pad(x, before, after), side, stride)

    def join(self, maps: Sequence[Tensor]) -> Tensor:
        """See ``Layout``."""
        return torch.cat(list(maps), -1)

    def interleave(self, x: Tensor) -> Tensor:
        """See ``Layout``; in four axes."""
        _, height, width, channels = x.shape
        x = x.reshape(height, width, 2, channels // 2).transpose(1, 2)
        return x.reshape(1, 2 * height, 2 * width, channels // 4)
