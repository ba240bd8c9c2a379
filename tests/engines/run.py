"""Run a pair of ONNX files in another engine: ``python run.py ENGINE ENCODER DECODER FEEDS.npz ANSWERS.npz``.

A process of its own, which imports nothing but the engine: an importer that does not like a file ends in a
segmentation fault (OpenCV's did), and two engines in one process fight over their threads.

FEEDS holds ``image`` and, for P prompts, ``point_coords`` (P, N, 2), ``point_labels`` (P, N), ``mask_input`` (P, 1,
S/4, S/4) and ``has_mask_input`` (P,). ANSWERS gets ``image_embeddings``, ``low_res_masks`` (P, 4, S/4, S/4) and
``iou_predictions`` (P, 4).
"""

import sys
from pathlib import Path

import numpy as np

from benchmarks.engines import ENGINES

MASKS = ["low_res_masks", "iou_predictions"]


def main(engine: str, encoder: str, decoder: str, feeds: str, answers: str) -> None:
    """One encoder pass, then one decoder pass a prompt."""
    given = dict(np.load(feeds))
    encode = ENGINES[engine](Path(encoder), ["image"], ["image_embeddings"], 1)
    (embedding,) = encode({"image": given.pop("image")})
    decode = ENGINES[engine](Path(decoder), ["image_embeddings", *given], MASKS, 1)
    prompts = range(len(given["point_labels"]))
    rows = [
        decode({"image_embeddings": embedding, **{name: values[i : i + 1] for name, values in given.items()}})
        for i in prompts
    ]
    masks, iou = (np.concatenate([row[output] for row in rows]) for output in range(len(MASKS)))
    np.savez(answers, image_embeddings=embedding, low_res_masks=masks, iou_predictions=iou)


if __name__ == "__main__":
    main(*sys.argv[1:])
