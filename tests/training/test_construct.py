"""The constructed decoder does before any training what it was constructed to do."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from reference.mobile_sam import MobileSam
from reference.training.channels import KEY_ZERO, OUTSIDE, frequencies, prepare
from reference.training.construct import construct
from reference.training.decode import Prompts, decode_crop
from reference.training.earlier_masks import MARK, fit_earlier_masks
from reference.training.lookup import LookUp, position_channels
from reference.two_way_transformer import Attention

CELLS = 64


def constructed(seed: int) -> MobileSam:
    torch.manual_seed(seed)
    sam = MobileSam().eval()
    prepare(sam)
    construct(sam, torch.randn(512, 256))
    return sam


@pytest.fixture(scope="module")
def sam() -> Iterator[MobileSam]:
    yield constructed(0)


def embedding_of(sam: MobileSam, cells: int) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(1, 256, cells, cells) * (~position_channels(sam)).float()[None, :, None, None]


def record(module: torch.nn.Module, found: list[Tensor]) -> torch.utils.hooks.RemovableHandle:
    def attention_of(attention: Attention, inputs: tuple[Tensor, Tensor, Tensor], _: Tensor) -> None:
        q = attention._split_heads(attention.q_proj(inputs[0]))
        k = attention._split_heads(attention.k_proj(inputs[1]))
        found.append(torch.softmax(q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5, -1))

    return module.register_forward_hook(attention_of)


@torch.inference_mode()
def test_every_head_reads_the_clicked_place_and_no_other(sam: MobileSam) -> None:
    generator = torch.Generator().manual_seed(2)
    points = torch.rand(12, 1, 2, generator=generator) * 1023
    found: list[Tensor] = []
    handle = record(sam.mask_decoder.transformer.final_attn_token_to_image, found)
    sam.predict_masks(embedding_of(sam, CELLS), (points, torch.ones(12, 1)))
    handle.remove()
    centre = torch.arange(CELLS) * 16 + 7.5
    distance = torch.hypot(
        centre[None, None] - points[:, :, 0, None], centre[None, :, None] - points[:, :, 1, None]
    ).flatten(1)
    near = (found[0][:, :, 3] * (distance < 24)[:, None]).sum(
        -1
    )  # token 3: the second of the three; 24 pixels: the cell and its neighbours
    assert near.mean() > 0.85 and near.min() > 0.5, f"mean {near.mean():.2f}, worst {near.min():.2f}"


@torch.inference_mode()
def test_cells_outside_a_box_are_marked_and_those_inside_are_not(sam: MobileSam) -> None:
    found: list[Tensor] = []
    handle = sam.mask_decoder.transformer.layers[0].norm4.register_forward_hook(lambda m, i, out: found.append(out))
    sam.predict_masks(embedding_of(sam, CELLS), boxes=torch.tensor([[200.0, 300.0, 600.0, 450.0]]))
    sam.predict_masks(embedding_of(sam, CELLS), (torch.tensor([[[400.0, 400.0]]]), torch.ones(1, 1)))
    handle.remove()
    marks, without_box = ((keys[0, :, OUTSIDE] - keys[0, :, KEY_ZERO]).view(CELLS, CELLS) for keys in found)
    assert marks[20:27, 14:36].max() < 1.0  # a cell and more within the box
    outside = torch.ones(CELLS, CELLS, dtype=torch.bool)
    outside[17:30, 11:39] = False
    assert marks[outside].min() > 2.0
    assert without_box.abs().max() < 1e-3


@torch.inference_mode()
def test_a_crop_decodes_as_the_same_place_in_the_full_frame(sam: MobileSam) -> None:
    full = embedding_of(sam, CELLS)
    x, y = 18, 30
    points = torch.tensor([[[40.0, 90.0], [0.0, 0.0]]])
    labels = torch.tensor([[1, -1]])
    found: list[Tensor] = []
    handle = record(sam.mask_decoder.transformer.layers[0].cross_attn_token_to_image, found)
    decode_crop(sam, full[..., y : y + 14, x : x + 14], Prompts(points[None], labels[None]), (x, y))
    sam.predict_masks(full, (points[:, :1] + torch.tensor([x * 16.0, y * 16.0]), torch.ones(1, 1)))
    handle.remove()
    crop = found[0][0, :, 3].unflatten(-1, (14, 14))
    frame = found[1][0, :, 3].unflatten(-1, (CELLS, CELLS))[:, y : y + 14, x : x + 14]
    # The frame's attention is spread over more cells, so the crop's can only be larger, and hardly.
    torch.testing.assert_close(crop, frame, atol=0.15, rtol=0)
    assert torch.equal(crop.flatten(1).argmax(1), frame.flatten(1).argmax(1))


@torch.inference_mode()
def test_a_click_gives_the_masks_of_the_direct_look_up_and_far_cells_count_less(
    sam: MobileSam, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Smooth content, as an encoder gives it; what a head reads beside the clicked cell then matters little.
    embedding = torch.nn.functional.interpolate(embedding_of(sam, 4), (14, 14), mode="bicubic")
    points = torch.tensor([[[100.0, 60.0], [0.0, 0.0]]])
    prompts = Prompts(points[None], torch.tensor([[[1, -1]]]))
    monkeypatch.setattr("reference.training.construct.FAR_WEIGHT", 0.0)
    torch.manual_seed(0)
    blind = MobileSam().eval()  # to distance
    prepare(blind)
    construct(blind, torch.randn(512, 256))
    masks, _ = decode_crop(blind, embedding, prompts, (20, 20))
    direct = LookUp(blind).masks(embedding, (points[:, :1] + 0.5) / 112 - 1)[0, :, 0]
    agreement = torch.nn.functional.cosine_similarity(masks[0, 0, 1:].flatten(1), direct.flatten(1))
    assert agreement.min() > 0.8, agreement
    sighted, _ = decode_crop(sam, embedding, prompts, (20, 20))
    far = torch.zeros(56, 56, dtype=torch.bool)
    far[40:, :] = True
    assert (sighted[0, 0, 1:, far] - masks[0, 0, 1:, far]).mean() < -0.5


def test_the_frequencies_survive_float16() -> None:
    matrix = frequencies(torch.Generator().manual_seed(0))
    assert torch.equal(matrix.half().float(), matrix)


@torch.no_grad()
def test_an_earlier_mask_marks_the_cells_outside_it_and_nothing_else() -> None:
    sam = constructed(3)

    def blobs(seed: int) -> Tensor:
        noise = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
        return 12 * torch.nn.functional.interpolate(noise, (256, 256), mode="bicubic")

    right = fit_earlier_masks(sam, blobs(0))
    unseen = blobs(1)
    dense = sam.prompt_encoder.mask_downscaling(unseen)
    outside = torch.nn.functional.avg_pool2d(unseen, 4)[:, 0] < 0
    agrees = ((dense[:, OUTSIDE] > MARK / 2) == outside).float().mean()
    # Cells on an outline hold both signs; nine in ten are far from one in these blobs.
    assert right > 0.9 and agrees > 0.9
    dense[:, OUTSIDE] = 0
    assert not dense.any(), "another channel of the silenced branch speaks"


@torch.no_grad()
def test_without_a_point_or_box_traces_in_the_tokens_mark_nothing() -> None:
    """Training leaves traces; a LayerNorm of nothing but traces made them marks several times as strong as a box's."""
    sam = constructed(3)
    layer = sam.mask_decoder.transformer.layers[0]
    layer.self_attn.out_proj.bias += 0.02 * torch.randn(256)
    found: list[Tensor] = []
    handle = layer.norm4.register_forward_hook(lambda m, i, out: found.append(out))
    embedding = embedding_of(sam, CELLS)
    sam.predict_masks(embedding, mask_input=torch.zeros(1, 1, 256, 256))  # a silenced branch: no mark of its own
    handle.remove()
    marks = found[0][0, :, OUTSIDE] - found[0][0, :, KEY_ZERO]
    assert marks.abs().max() < 0.5, f"{marks.abs().max():.2f}; a box's mark is above 2"
