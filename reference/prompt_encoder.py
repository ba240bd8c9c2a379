"""SAM's prompt encoder (arXiv 2304.02643, section 3; Apache-2.0): points, boxes and masks to embeddings."""

import math

import torch
from torch import Tensor, nn

from reference.layer_norm_2d import LayerNorm2d
from reference.values import BACKGROUND_LABEL, BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, FOREGROUND_LABEL, PADDING_LABEL


class RandomFourierEncoding(nn.Module):
    """Positional encoding with a fixed Gaussian matrix, always in float32."""

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, features))

    def forward(self, unit_coords: Tensor) -> Tensor:
        """Encode (..., 2) x, y coordinates in [0, 1] as (..., 2 * features)."""
        # float16 or bfloat16 here would move a point by half a pixel or more.
        with torch.autocast(unit_coords.device.type, enabled=False):
            gaussian = self.positional_encoding_gaussian_matrix.float()
            angles = (2 * unit_coords.float() - 1) @ gaussian * (2 * math.pi)
            return torch.cat([angles.sin(), angles.cos()], dim=-1)


class PromptEncoder(nn.Module):
    """Embed prompts given in the model frame.

    Args:
        embed_dim: channels of every embedding, 256 in SAM.
        image_size: side S of the model frame in pixels.
    """

    def __init__(self, embed_dim: int = 256, image_size: int = 1024) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        self.image_size = image_size
        self.grid_size = image_size // 16
        self.pe_layer = RandomFourierEncoding(embed_dim // 2)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, embed_dim) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, embed_dim)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, 4, 2, stride=2),
            LayerNorm2d(4),
            nn.GELU(),
            nn.Conv2d(4, 16, 2, stride=2),
            LayerNorm2d(16),
            nn.GELU(),
            nn.Conv2d(16, embed_dim, 1),
        )
        self.no_mask_embed = nn.Embedding(1, embed_dim)

    def _point_embedding(self, label: int) -> Tensor:
        embedding = self.point_embeddings[label]
        assert isinstance(embedding, nn.Embedding)
        return embedding.weight

    def image_pe(self) -> Tensor:
        """The (1, 256, S/16, S/16) positional encoding of the embedding grid's cell centres."""
        centres = (torch.arange(self.grid_size, device=self.no_mask_embed.weight.device) + 0.5) / self.grid_size
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        encoded: Tensor = self.pe_layer(torch.stack([x, y], dim=-1))
        return encoded.permute(2, 0, 1)[None]

    def embed_points(self, coords: Tensor, labels: Tensor, pad: bool) -> Tensor:
        """Embed labelled points.

        Args:
            coords: (B, N, 2) x, y in model-frame pixels.
            labels: (B, N) of -1 padding, 0 background, 1 foreground. As in the official encoder any other
                label gets no learned embedding; box corners go through ``embed_boxes``.
            pad: append one padding point, as SAM does whenever there is no box.

        Returns:
            (B, N or N + 1, 256).
        """
        coords = coords + 0.5  # pixel centres
        if pad:
            coords = torch.cat([coords, coords.new_zeros(coords.shape[0], 1, 2)], dim=1)
            labels = torch.cat([labels, labels.new_full((labels.shape[0], 1), PADDING_LABEL)], dim=1)
        embedding: Tensor = self.pe_layer(coords / self.image_size)
        kind = labels[..., None]
        embedding = torch.where(kind == PADDING_LABEL, self.not_a_point_embed.weight, embedding)
        for label in (BACKGROUND_LABEL, FOREGROUND_LABEL):
            embedding = torch.where(kind == label, embedding + self._point_embedding(label), embedding)
        return embedding

    def embed_boxes(self, boxes: Tensor) -> Tensor:
        """Embed (B, 4) XYXY boxes in model-frame pixels as (B, 2, 256): top-left, bottom-right."""
        corners = (boxes.reshape(-1, 2, 2) + 0.5) / self.image_size
        learned = torch.cat([self._point_embedding(corner) for corner in (BOX_TOP_LEFT, BOX_BOTTOM_RIGHT)])
        embedding: Tensor = self.pe_layer(corners)
        return embedding + learned

    def forward(
        self,
        points: tuple[Tensor, Tensor] | None = None,
        boxes: Tensor | None = None,
        masks: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Embed a batch of B prompts.

        Args:
            points: (B, N, 2) coordinates and (B, N) labels.
            boxes: (B, 4) XYXY.
            masks: (B, 1, S/4, S/4) logits of an earlier prediction.

        Returns:
            sparse (B, tokens, 256), tokens possibly 0, and dense (B, 256, S/16, S/16) embeddings.
        """
        batch = (
            points[0].shape[0]
            if points
            else len(boxes)
            if boxes is not None
            else len(masks)
            if masks is not None
            else 1
        )
        sparse = self.no_mask_embed.weight.new_empty(batch, 0, self.embed_dim)
        if points is not None:
            sparse = torch.cat([sparse, self.embed_points(*points, pad=boxes is None)], dim=1)
        if boxes is not None:
            sparse = torch.cat([sparse, self.embed_boxes(boxes)], dim=1)
        if masks is not None:
            dense: Tensor = self.mask_downscaling(masks)
        else:
            dense = self.no_mask_embed.weight.reshape(1, -1, 1, 1).expand(batch, -1, self.grid_size, self.grid_size)
        return sparse, dense
