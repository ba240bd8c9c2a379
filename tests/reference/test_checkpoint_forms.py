"""Checkpoints as people have them: wrapped, prefixed, with other things beside the weights, or half a model."""

import argparse
import datetime
import itertools
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from reference import CheckpointError, MobileSam, load_mobile_sam, save_checkpoint
from reference.checkpoint import official_state_dict
from reference.checkpoint_file import Opened
from reference.checkpoint_names import DECODER_PARTS, PARTS, layout_of
from reference.checkpoint_source import Source
from reference.image_encoder import DEFAULT_BACKBONE
from tests.randomised import randomised_sam

State = dict[str, Tensor]
SIZE = 64


@pytest.fixture(scope="module")
def official(small_sam: MobileSam) -> State:
    return official_state_dict(small_sam)


@pytest.fixture(scope="module")
def own(small_sam: MobileSam) -> State:
    return dict(small_sam.state_dict())


def weights_of(tree: Mapping[str, Any], key: str | None = None) -> State:
    """What a whole checkpoint gives to a model, without the seconds of building one."""
    source = Source(Opened(tree), "a.pt", layout_of(DEFAULT_BACKBONE))
    source.choose(PARTS, key)
    return source.weights(PARTS)


def same(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> bool:
    return found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)


def prefixed(state: Mapping[str, Tensor], prefix: str) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def one_line(caplog: pytest.LogCaptureFixture) -> str:
    """The only line that was said; it is forgotten afterwards."""
    (record,) = caplog.records
    caplog.clear()
    assert record.levelno == logging.WARNING
    assert "\n" not in record.getMessage()
    return record.getMessage()


def test_the_models_own_state_dict_loads(small_sam: MobileSam, own: State, tmp_path: Path) -> None:
    assert same(load_mobile_sam(own, SIZE).state_dict(), own)
    torch.save(small_sam.state_dict(), tmp_path / "own.pt")
    assert same(load_mobile_sam(tmp_path / "own.pt", SIZE).state_dict(), own)


WRAPPERS = st.lists(st.sampled_from(["model", "state_dict", "model_state_dict", "ema", "params", "net"]), max_size=3)
PREFIXES = st.lists(st.sampled_from(["module", "model", "sam", "net", "_orig_mod"]), max_size=5)


@settings(max_examples=25, deadline=None)
@given(WRAPPERS, PREFIXES, st.booleans(), st.booleans(), st.sampled_from(["", "module.", "_orig_mod.module."]))
def test_any_wrappers_and_prefixes_load_to_the_same_weights(
    official: State, own: State, wrappers: list[str], prefixes: list[str], with_own: bool, beside: bool, inside: str
) -> None:
    names = own if with_own else official
    tree: dict[str, Any] = {}
    for name, tensor in names.items():
        part, _, rest = name.partition(".")  # DDP and torch.compile may stand around the encoder alone
        whole = f"{part}.{inside}{rest}" if part == "image_encoder" else name
        tree["".join(f"{prefix}." for prefix in prefixes) + whole] = tensor
    if beside:
        tree |= {"loss.weight": torch.ones(3), "sam.pixel_mean": torch.ones(3, 1, 1), "step": torch.tensor(3)}
    for wrapper in wrappers:
        tree = {wrapper: tree}
        if beside:
            tree |= {"epoch": 3, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 1}]}}
    assert same(weights_of(tree), own)


def test_what_pytorch_itself_wraps_loads(small_sam: MobileSam, own: State) -> None:
    compiled: Any = torch.compile(small_sam)
    wrapped: list[torch.nn.Module] = [
        torch.nn.DataParallel(small_sam),
        compiled,
        torch.optim.swa_utils.AveragedModel(small_sam),
    ]
    for module in wrapped:
        assert same(weights_of(module.state_dict()), own), type(module).__name__


class AttributeDict(dict[str, Any]):
    """As Lightning keeps its settings; must not be built by a reader of weights."""

    def __setstate__(self, state: Any) -> None:
        raise AssertionError("was built")


class Settings:
    """A user's own class."""

    def __init__(self) -> None:
        self.rate = 1e-3

    def __setstate__(self, state: Any) -> None:
        raise AssertionError("was built")


def test_a_lightning_file_loads_and_says_once_what_was_left_out(
    official: State, own: State, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = AttributeDict(lr=np.float64(1e-3), out=Path("runs"), when=datetime.date(2024, 1, 1), own=Settings())
    settings.extra = 1  # type: ignore[attr-defined]
    content = {
        "epoch": 3,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": {
            **prefixed(official, "model.module."),
            "model.module.pixel_mean": torch.tensor([123.675, 116.28, 103.53]).reshape(3, 1, 1),
            "model.module.image_encoder.layers.1.blocks.0.attn.attention_bias_idxs": torch.zeros(49, 49),
            "model.module.image_encoder.layers.1.blocks.0.attn.ab": torch.zeros(4, 49, 49),
            "criterion.pos_weight": torch.ones(1),
        },
        "callbacks": {"ModelCheckpoint": {"best": torch.tensor(0.5), "dirpath": "runs"}},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 1e-3}]}],
        "hyper_parameters": settings,
        "args": argparse.Namespace(size=1024),
    }
    torch.save(content, tmp_path / "run.ckpt")
    assert same(load_mobile_sam(tmp_path / "run.ckpt", SIZE).state_dict(), own)
    said = one_line(caplog)
    assert said.startswith("run.ckpt: the weights stand under 'state_dict.model.module'; left out: ")
    for name in ("epoch", "pytorch-lightning_version", "state_dict.criterion", "state_dict.model.module.pixel_mean"):
        assert name in said
    assert "is not MobileSAM's" not in said


def test_a_plain_file_loads_without_a_word(
    small_sam: MobileSam, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_checkpoint(small_sam, tmp_path / "plain.pt")
    load_mobile_sam(tmp_path / "plain.pt", SIZE)
    assert caplog.records == []


def test_another_pixel_mean_is_said(official: State, caplog: pytest.LogCaptureFixture) -> None:
    weights_of({**official, "pixel_mean": torch.tensor([0.485, 0.456, 0.406])})
    assert "its pixel_mean is not MobileSAM's (123.675, 116.28, 103.53), which is used" in one_line(caplog)


@pytest.mark.parametrize("counter", [torch.tensor([7]), torch.tensor(7.0), None])
def test_batch_norms_counter_may_have_one_axis_or_be_absent(
    official: State, own: State, counter: Tensor | None
) -> None:
    changed = {name: counter if name.endswith("num_batches_tracked") else tensor for name, tensor in official.items()}
    found = weights_of({name: tensor for name, tensor in changed.items() if tensor is not None})
    for name, tensor in own.items():
        if name.endswith("num_batches_tracked"):
            assert found[name].shape == ()
            assert found[name].dtype == torch.int64
            assert int(found[name]) == (0 if counter is None else 7)
        else:
            assert torch.equal(found[name], tensor)


@pytest.mark.parametrize("order", list(itertools.permutations(["model", "ema"])))
def test_of_two_candidates_the_model_is_taken_and_the_option_for_the_other_named(
    official: State, own: State, order: tuple[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    averaged = {name: tensor + 1 for name, tensor in official.items()}
    both = {"model": official, "ema": prefixed(averaged, "module.")}
    tree = {name: both[name] for name in order}
    assert same(weights_of(tree), own)
    assert "others under 'ema.module' were not taken (--checkpoint-key ema.module, in Python key=" in one_line(caplog)
    for key in ("ema", "ema.module"):
        assert same(weights_of(tree, key), {name: tensor + 1 for name, tensor in own.items()})
    torch.save(tree, tmp_path / "run.pt")
    assert load_mobile_sam(tmp_path / "run.pt", SIZE, key="ema").weights_source == "run.pt (ema)"


def test_a_key_that_leads_nowhere_names_those_that_do(official: State) -> None:
    with pytest.raises(CheckpointError, match=r"a\.pt has no weights under 'em'; it has some under: 'model', 'ema'"):
        weights_of({"model": official, "ema": dict(official)}, "em")


def encoder_forms(official: State, own: State) -> dict[str, dict[str, Any]]:
    """The image encoder alone, as files name it."""

    def only(state: State) -> State:
        return {name: tensor for name, tensor in state.items() if name.startswith("image_encoder.")}

    def bare(state: State) -> State:
        return {name.partition(".")[2]: tensor for name, tensor in only(state).items()}

    return {
        "full": only(official),
        "stripped": bare(official),
        "own": only(own),
        "stripped own": bare(own),
        "wrapped": {"epoch": 2, "student": prefixed(bare(official), "module.")},
        "distill's last.pt": {"model": bare(own), "optimiser": {"param_groups": []}, "step": 3, "config": {"a": 1}},
    }


FORMS = ["full", "stripped", "own", "stripped own", "wrapped", "distill's last.pt"]


@pytest.mark.parametrize("form", FORMS)
def test_an_encoder_alone_is_found(official: State, own: State, form: str) -> None:
    source = Source(Opened(encoder_forms(official, own)[form]), "enc.pt", layout_of(DEFAULT_BACKBONE))
    assert source.choose(["image_encoder"]) == ["image_encoder"]
    assert same(source.weights(["image_encoder"]), encoder_forms(official, own)["own"])


def test_an_encoder_alone_is_joined_with_a_decoder(official: State, own: State, tmp_path: Path) -> None:
    other = randomised_sam(seed=5)
    torch.save(encoder_forms(official, own)["distill's last.pt"], tmp_path / "enc.pt")
    save_checkpoint(other, tmp_path / "dec.safetensors")
    sam = load_mobile_sam(tmp_path / "enc.pt", SIZE, decoder=tmp_path / "dec.safetensors")
    assert sam.weights_source == "enc.pt with the decoder of dec.safetensors"
    assert not sam.training
    theirs = other.state_dict()
    for name, tensor in sam.state_dict().items():
        assert torch.equal(tensor, own[name] if name.startswith("image_encoder.") else theirs[name]), name


@pytest.mark.parametrize("form", FORMS)
def test_an_encoder_alone_names_the_option_for_the_rest(official: State, own: State, form: str) -> None:
    with pytest.raises(CheckpointError, match=r"a state dict holds an image encoder alone; .*--decoder-checkpoint"):
        load_mobile_sam(encoder_forms(official, own)[form])


def test_a_decoder_alone_says_where_to_give_it(official: State) -> None:
    decoder = {name: tensor for name, tensor in official.items() if not name.startswith("image_encoder.")}
    with pytest.raises(
        CheckpointError, match=r"holds a prompt encoder and a mask decoder alone; .*--decoder-checkpoint"
    ):
        load_mobile_sam(decoder)
    joined = load_mobile_sam(encoder_forms(official, {})["stripped"], SIZE, decoder={"sam": decoder})
    assert same({k: v for k, v in joined.state_dict().items() if k in decoder}, decoder)


def test_an_encoder_alone_is_no_decoder(official: State) -> None:
    encoder = encoder_forms(official, {})["full"]
    with pytest.raises(CheckpointError, match="holds an image encoder alone, expected a prompt encoder and a mask dec"):
        load_mobile_sam(encoder, SIZE, decoder=encoder)


def test_the_decoder_of_an_original_sam_file_fits(official: State, own: State) -> None:
    decoder = {name: tensor for name, tensor in official.items() if not name.startswith("image_encoder.")}
    vit = {
        "image_encoder.pos_embed": torch.zeros(1, 64, 64, 1280),
        "image_encoder.blocks.0.attn.rel_pos_h": torch.zeros(27, 80),
        "image_encoder.neck.0.weight": torch.zeros(256, 1280, 1, 1),
    }
    joined = load_mobile_sam(encoder_forms(official, {})["full"], SIZE, decoder={**vit, **decoder})
    assert same(joined.state_dict(), own)


def test_a_fine_tuned_mask_decoder_alone_goes_into_a_whole_model(official: State, own: State) -> None:
    tuned = {n.partition(".")[2]: t + 1 for n, t in official.items() if n.startswith("mask_decoder.")}
    joined = load_mobile_sam(official, SIZE, decoder=tuned).state_dict()
    assert same(joined, {n: t + 1 if n.startswith("mask_decoder.") else t for n, t in own.items()})


def test_a_whole_model_goes_before_its_encoder_beside_it(official: State, own: State) -> None:
    lightning = {**prefixed(encoder_forms(official, {})["stripped"], "encoder."), **prefixed(official, "sam.")}
    assert same(weights_of(lightning), own)


def test_tensors_that_the_model_does_not_have_are_refused_inside_its_modules(official: State) -> None:
    adapter = {"mask_decoder.transformer.adapter.weight": torch.zeros(2)}
    with pytest.raises(CheckpointError, match=r"1 unexpected \(first: mask_decoder.transformer.adapter.weight\)"):
        weights_of({**official, **adapter})
    with pytest.raises(CheckpointError, match=r"1 unexpected \(first: model.mask_decoder.transformer.adapter.weight\)"):
        weights_of({"model": {**official, **adapter}})


def test_missing_names_are_told_as_the_file_would_have_them(official: State) -> None:
    lacking = {name: tensor for name, tensor in official.items() if "layers.1.downsample.conv2.c" not in name}
    missing = "1 missing (first: model.image_encoder.layers.1.downsample.conv2.c.weight)"
    with pytest.raises(CheckpointError, match=re.escape(missing)):
        weights_of({"model": lacking})


def test_a_dict_that_holds_itself_ends(official: State, own: State) -> None:
    tree: dict[str, Any] = {"model": official}
    tree["self"] = tree
    assert same(weights_of(tree), own)


def test_another_student_takes_a_decoder_too(tmp_path: Path, small_sam: MobileSam) -> None:
    student = MobileSam("repvit_m0_9", SIZE)
    encoder = {n: t for n, t in student.state_dict().items() if n.startswith("image_encoder.")}
    save_file(encoder, tmp_path / "student.safetensors", {"backbone": "repvit_m0_9"})
    save_checkpoint(small_sam, tmp_path / "dec.pt")
    joined = load_mobile_sam(tmp_path / "student.safetensors", SIZE, decoder=tmp_path / "dec.pt").state_dict()
    decoder = {n: t for n, t in small_sam.state_dict().items() if n.startswith(DECODER_PARTS)}
    assert same(joined, {**encoder, **decoder})
