"""The phases in which the demonstration weights are trained, and what each is fed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Feed:
    """One kind of batch.

    Attributes:
        cache: Folder name below the work folder.
        crop: Side in pixels.
        images: A batch.
        places: Look-up prompts an image.
        prompts: Decoder prompts an image.
    """

    cache: str
    crop: int
    images: int
    places: int
    prompts: int = 0


@dataclass(frozen=True)
class Phase:
    """One phase; its feeds take turns.

    Attributes:
        name: Of the phase.
        feeds: Kinds of batch.
        steps: Optimiser steps.
        encoder_rate, decoder_rate: Peak learning rates; a cosine falls from `start` to `end` of them.
        schedule_steps: Steps in which the cosine falls, if the phase is to end before.
        lookup_weight: Of the look-up loss beside the decoder's.
        mask_loss: "balanced" cross entropy + dice for the cold start (later it makes clicks find twice an object's
            area, since the surroundings of a small one count half in all); "plain" cross entropy + dice; or SAM's
            "focal" + dice, which from the start undoes the look-up: its gradient on logits trained for balance is
            large and wrong.
        freeze_norm: Use BatchNorm's running statistics and keep them.
        freeze_encoder: Train only the prompt encoder and the mask decoder.
        second_rounds: Share of batches whose first answers are given back as mask inputs.
        construct: Write the decoder as a look-up before the first step, unless the run started from weights that have
            one.
        balance_marks: Choose how strongly the marks of distance count before the first step, see `marks.py`.
    """

    name: str
    feeds: tuple[Feed, ...]
    steps: int
    encoder_rate: float
    decoder_rate: float
    start: float = 1.0
    end: float = 0.0
    schedule_steps: int | None = None
    warm_up: int = 50
    lookup_weight: float = 1.0
    mask_loss: str = "balanced"
    freeze_norm: bool = False
    freeze_encoder: bool = False
    second_rounds: float = 0.4
    construct: bool = False
    balance_marks: bool = False


_LOOK_224 = Feed("scenes224", 224, 8, 32)
_LOOK_448 = Feed("scenes1024", 448, 2, 48)
_JOINT = (
    Feed("scenes1024", 448, 2, 32, 12),
    Feed("scenes224", 224, 8, 32, 6),
    Feed("scenes1024", 448, 2, 32, 12),
    Feed("scenes1024", 1024, 1, 24, 12),
    Feed("scenes1024", 448, 2, 32, 12),
    Feed("scenes224", 224, 8, 32, 6),
    Feed("scenes1024", 448, 2, 32, 12),
)

PHASES = (
    Phase(
        "lookup",
        (_LOOK_224, _LOOK_448, _LOOK_224),
        2700,
        1e-3,
        1e-3,
        end=0.35,
        warm_up=100,
        mask_loss="plain",
    ),
    Phase(
        "joint",
        _JOINT,
        1320,
        2.5e-4,
        6e-5,
        end=0.03,
        schedule_steps=2100,
        warm_up=100,
        lookup_weight=0.7,
        mask_loss="plain",
        construct=True,
    ),
    Phase(
        "lookup again",
        (_LOOK_224, _LOOK_448, _LOOK_224, _LOOK_224, _LOOK_448),
        1600,
        7e-4,
        4e-4,
        end=0.35,
        mask_loss="plain",
    ),
    Phase(
        "joint again",
        _JOINT,
        1600,
        2.5e-4,
        1e-4,
        end=0.03,
        lookup_weight=0.7,
        mask_loss="plain",
    ),
    Phase(
        "full",
        (
            Feed("scenes1024", 1024, 1, 24, 12),
            Feed("scenes1024", 448, 2, 32, 12),
            Feed("scenes1024", 1024, 1, 24, 12),
        ),
        700,
        8e-5,
        1e-4,
        end=0.02,
        warm_up=20,
        lookup_weight=0.0,
        mask_loss="plain",
        freeze_norm=True,
        balance_marks=True,
    ),
    Phase(
        "rounds",
        (Feed("scenes1024", 1024, 1, 1, 12),),
        200,
        0.0,
        5e-5,
        end=0.02,
        warm_up=20,
        lookup_weight=0.0,
        mask_loss="plain",
        freeze_norm=True,
        freeze_encoder=True,
        second_rounds=1.0,
        balance_marks=True,
    ),
)
