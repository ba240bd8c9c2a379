"""The phases in which the demonstration weights are trained, and what each is fed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Feed:
    """One kind of batch.

    Attributes:
        size: side in pixels of the scenes that are cropped: 224 or 1024.
        crop: side of the crops in pixels.
        images: a batch, half of each family.
        prompts: decoder prompts an image; 0 leaves the decoder out.
        places: prompts an image for the direct look-up; 0 leaves it out.
        own_frame: the crop is the whole model frame, instead of a piece of the 1024 frame at a random place.
        shrunk: the crop is cut from a square of any side between its own and the scene's, and made smaller to fit.
    """

    size: int
    crop: int
    images: int
    prompts: int = 0
    places: int = 0
    own_frame: bool = False
    shrunk: bool = False


@dataclass(frozen=True)
class Phase:
    """One phase; its feeds take turns.

    Attributes:
        name: of the phase.
        feeds: kinds of batch.
        steps: optimiser steps.
        encoder_rate, decoder_rate: peak learning rates; a cosine falls to `end` of them.
        warm_up: steps in which the rates rise from zero.
        mask_loss: "balanced" or "plain", see `losses.mask_loss`; balanced for a cold start only.
        lookup_weight: of the look-up's loss beside the decoder's.
        quality_weight: of the predicted IoU's loss, at the phase's begin and end.
        attention_weight: of the loss that draws the tokens' attention onto the object they are asked for; without it
            a decoder that starts from random weights looks nowhere for thousands of steps.
        rounds: most rounds a batch goes through; each later one gets the earlier answer as mask input.
        freeze_norm: use BatchNorm's running statistics and keep them, as the exported graphs will.
        restart: begin from the average so far, rounded to float16 as a file would hold it, with a new optimiser.
    """

    name: str
    feeds: tuple[Feed, ...]
    steps: int
    encoder_rate: float
    decoder_rate: float
    end: float = 0.1
    warm_up: int = 50
    mask_loss: Literal["balanced", "plain"] = "plain"
    lookup_weight: float = 0.0
    quality_weight: tuple[float, float] = (0.6, 0.6)
    attention_weight: float = 0.0
    rounds: int = 1
    freeze_norm: bool = False
    restart: bool = False


_SMALL = Feed(224, 224, 64, prompts=12, places=32)
_CROPS = Feed(1024, 448, 16, prompts=16, places=32)
_OWN = Feed(1024, 448, 16, prompts=16, places=32, own_frame=True)
_FULL = Feed(1024, 1024, 6, prompts=16, places=32)
_FRAMES = (_FULL, _FULL, _FULL, _CROPS)
_MANY = Feed(1024, 1024, 16, prompts=12)
_SMALLER = tuple(
    Feed(1024, side, images, prompts=8, own_frame=True, shrunk=True)
    for side, images in ((320, 32), (448, 16), (512, 12), (768, 6))
)
_ALL_FRAMES = tuple(feed for smaller in _SMALLER for feed in (smaller, *[_MANY] * 5))

PHASES = (
    Phase("lookup", (Feed(224, 224, 96, places=48),), 550, 1.5e-3, 1.5e-3, end=0.5, warm_up=100, lookup_weight=1.0),
    Phase(
        "cold start",
        (_SMALL,),
        650,
        6e-4,
        5e-4,
        end=0.5,
        warm_up=200,
        mask_loss="balanced",
        lookup_weight=0.5,
        attention_weight=0.2,
    ),
    Phase(
        "crops",
        (_SMALL, _CROPS, _SMALL, _OWN),
        480,
        5e-4,
        4e-4,
        end=0.3,
        lookup_weight=0.3,
        attention_weight=0.05,
        rounds=2,
    ),
    Phase("full", _FRAMES, 680, 3e-4, 2.5e-4, end=0.1, lookup_weight=0.1, rounds=3),
    Phase("settle", (_FULL,), 220, 6e-5, 6e-5, end=0.02, warm_up=20, rounds=3, freeze_norm=True),
    Phase("full again", _FRAMES, 480, 3e-4, 2.5e-4, end=0.1, lookup_weight=0.1, rounds=3, restart=True),
    Phase("settle again", (_FULL,), 140, 6e-5, 6e-5, end=0.02, warm_up=20, rounds=3, freeze_norm=True),
    Phase(
        "all frames",
        _ALL_FRAMES,
        2190,
        6e-4,
        4e-4,
        end=0.01,
        warm_up=150,
        quality_weight=(0.6, 1.5),
        rounds=3,
        restart=True,
    ),
)
