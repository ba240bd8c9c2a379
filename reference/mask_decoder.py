"""SAM's mask decoder (arXiv 2304.02643, appendix A; Apache-2.0): embeddings to four masks and predicted IoU."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from reference.layer_norm_2d import LayerNorm2d
from reference.two_way_transformer import TwoWayTransformer

MASK_TOKENS = 4  # token 0 is the single-mask output, 1 to 3 the multimask outputs


class MLP(nn.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, inputs: int, hidden: int, outputs: int, depth: int) -> None:
        super().__init__()
        widths = [inputs, *[hidden] * (depth - 1), outputs]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., inputs) to (..., outputs)."""
        for layer in self.layers[:-1]:
            x = torch.relu(layer(x))
        output: Tensor = self.layers[-1](x)
        return output


class MaskDecoder(nn.Module):
    """Predict masks from an image embedding and prompt embeddings.

    Args:
        dim: transformer width, 256.
    """

    def __init__(self, dim: int = 256) -> None:
        super().__init__()
        self.transformer = TwoWayTransformer(embed_dim=dim)
        self.iou_token = nn.Embedding(1, dim)
        self.mask_tokens = nn.Embedding(MASK_TOKENS, dim)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(dim, dim // 4, 2, stride=2),
            LayerNorm2d(dim // 4),
            nn.GELU(),
            nn.ConvTranspose2d(dim // 4, dim // 8, 2, stride=2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(MLP(dim, dim, dim // 8, 3) for _ in range(MASK_TOKENS))
        self.iou_prediction_head = MLP(dim, 256, MASK_TOKENS, 3)

    def forward(
        self, image_embeddings: Tensor, image_pe: Tensor, sparse: Tensor, dense: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Decode B prompts on one image, or B prompts on B images.

        Args:
            image_embeddings: (1 or B, 256, H, W).
            image_pe: (1, 256, H, W).
            sparse: (B, N, 256), N possibly 0.
            dense: (B, 256, H, W).

        Returns:
            (B, 4, 4H, 4W) low-resolution mask logits and (B, 4) IoU predictions, all four tokens.
        """
        learned = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens = torch.cat([learned.expand(sparse.shape[0], -1, -1), sparse], dim=1)
        tokens, image = self.transformer(image_embeddings + dense, image_pe, tokens)
        height, width = dense.shape[-2:]
        upscaled = self.output_upscaling(image.transpose(1, 2).unflatten(2, (height, width)))
        mask_tokens = tokens[:, 1 : 1 + MASK_TOKENS]
        kernels = torch.stack([mlp(mask_tokens[:, i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)], dim=1)
        masks = (kernels @ upscaled.flatten(2)).unflatten(2, upscaled.shape[-2:])
        return masks, self.iou_prediction_head(tokens[:, 0])
