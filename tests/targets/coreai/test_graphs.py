"""The graphs compute what the reference computes, and float16 keeps what must be exact. Apple's packages not needed."""

import pytest
import torch
from torch import Tensor

from mobilesam_export.contract import Contract
from mobilesam_export.targets.coreai.graphs import ImageEncoderCoreAI, InFloat16, PromptDecoderCoreAI
from reference.mobile_sam import MobileSam
from tests.targets.coreai.conftest import IMAGE_SIZE
from tests.targets.prompts import Prompt, every_kind

SLOTS = 10


def decoded(graph: torch.nn.Module, embeddings: Tensor, prompt: Prompt) -> tuple[Tensor, Tensor]:
    """A graph's answer to a prompt in ``SLOTS`` slots."""
    coords, labels = prompt.slots()
    absent = SLOTS - labels.shape[1]
    coords, labels = (
        torch.nn.functional.pad(coords, (0, 0, 0, absent)),
        torch.nn.functional.pad(labels, (0, absent), value=-2),
    )
    mask = torch.zeros(1, 1, IMAGE_SIZE // 4, IMAGE_SIZE // 4) if prompt.mask is None else prompt.mask
    with torch.no_grad():
        found: tuple[Tensor, Tensor] = graph(embeddings, coords, labels, mask, torch.tensor([float(mask.any())]))
    return found


def test_the_encoder_equals_the_reference(sam: MobileSam, image: Tensor, embeddings: Tensor) -> None:
    with torch.no_grad():
        found = ImageEncoderCoreAI(sam)(image)
    torch.testing.assert_close(found, embeddings, rtol=0, atol=1e-4 * float(embeddings.std()))  # sums in another order


@pytest.mark.parametrize("kind", ["point", "points", "box", "box and points", "mask", "refinement"])
def test_the_decoder_equals_the_reference(kind: str, sam: MobileSam, embeddings: Tensor) -> None:
    prompt = every_kind(IMAGE_SIZE)[kind]
    with torch.no_grad():
        expected = sam.predict_masks(embeddings, prompt.points, prompt.box, prompt.mask)
    for found, wanted in zip(decoded(PromptDecoderCoreAI(sam), embeddings, prompt), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4 * float(wanted.std()))


def test_float16_rounds_no_pixel_coordinate_or_label(sam: MobileSam, embeddings: Tensor) -> None:
    contract = Contract(IMAGE_SIZE, SLOTS)
    graph = InFloat16(PromptDecoderCoreAI(sam), [port.name for port in contract.decoder_inputs])
    exact = {name for name, weight in graph.state_dict().items() if weight.dtype == torch.float32}
    assert {name.split(".")[1] for name in exact} == {"point_embedding", "image_pe"}
    point = Prompt((torch.tensor([[[100.0, 60.0]]]), torch.ones(1, 1)))
    moved = Prompt((torch.tensor([[[100.03, 60.0]]]), torch.ones(1, 1)))  # float16 has 100 and 100.0625 there
    assert not torch.equal(decoded(graph, embeddings, point)[0], decoded(graph, embeddings, moved)[0])

    encoder = InFloat16(ImageEncoderCoreAI(sam), ["image"])
    assert [name for name, weight in encoder.state_dict().items() if weight.dtype == torch.float32] == [
        "halved.stem.mean_subtraction.part.mean"
    ]


def test_making_a_graph_leaves_the_reference_alone(sam: MobileSam) -> None:
    before = {name: value.clone() for name, value in sam.state_dict().items()}
    InFloat16(ImageEncoderCoreAI(sam), ["image"])
    InFloat16(PromptDecoderCoreAI(sam), [port.name for port in Contract(IMAGE_SIZE, SLOTS).decoder_inputs])
    assert all(torch.equal(value, before[name]) for name, value in sam.state_dict().items())
