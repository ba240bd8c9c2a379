"""Every kind of prompt, as the reference takes it and as the contract spells it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mobilesam_export.contract import PointLabel


@dataclass(frozen=True)
class Prompt:
    """Points (1, N, 2) with labels (1, N), box (1, 4) XYXY, mask logits (1, 1, S/4, S/4); model-frame pixels."""

    points: tuple[Tensor, Tensor] | None = None
    box: Tensor | None = None
    mask: Tensor | None = None

    def slots(self) -> tuple[Tensor, Tensor]:
        """The contract's (1, N, 2) coordinates and (1, N) labels, padding point and corners included."""
        coords, labels = [torch.zeros(1, 0, 2)], [torch.zeros(1, 0)]
        if self.points is not None:
            coords.append(self.points[0])
            labels.append(self.points[1])
            if self.box is None:
                coords.append(torch.zeros(1, 1, 2))
                labels.append(torch.tensor([[float(PointLabel.PADDING)]]))
        if self.box is not None:
            coords.append(self.box.reshape(1, 2, 2))
            labels.append(torch.tensor([[float(PointLabel.BOX_TOP_LEFT), float(PointLabel.BOX_BOTTOM_RIGHT)]]))
        return torch.cat(coords, 1), torch.cat(labels, 1)


def every_kind(image_size: int) -> dict[str, Prompt]:
    """One prompt of each kind by name."""
    generator = torch.Generator().manual_seed(2)

    def points(count: int) -> tuple[Tensor, Tensor]:
        coords = torch.rand(1, count, 2, generator=generator) * image_size
        return coords, torch.randint(0, 2, (1, count), generator=generator).float()

    box = torch.tensor([[0.1, 0.2, 0.7, 0.9]]) * image_size
    mask = torch.randn(1, 1, image_size // 4, image_size // 4, generator=generator) * 5
    return {
        "point": Prompt(points(1)),
        "points": Prompt(points(7)),
        "box": Prompt(box=box),
        "box and points": Prompt(points(3), box),
        "mask": Prompt(mask=mask),
        "refinement": Prompt(points(2), box, mask),
    }
