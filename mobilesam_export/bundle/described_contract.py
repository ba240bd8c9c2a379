"""The contract as a manifest describes it: written from the files' own ports, and read from whatever somebody wrote."""

import json
from dataclasses import asdict
from typing import Any

from mobilesam_export.contract import (
    CONTRACT_VERSION,
    MASK_THRESHOLD,
    PAD_COLOUR,
    PAD_COLOUR_8BIT,
    PIXEL_MEAN,
    PIXEL_STD,
    PointLabel,
    Port,
    Written,
)
from mobilesam_export.errors import ExportError
from mobilesam_export.json_fields import Field

DTYPES = ("float32", "float16", "uint8", "int32", "int64", "rgb_image")


def describe_contract(image_size: int, written: Written) -> dict[str, Any]:
    """The ports as the files have them, and what holds for every target, in JSON's own types."""
    described = {
        "version": CONTRACT_VERSION,
        "image_size": image_size,
        "max_points": written.max_points,
        "encoder": {
            "inputs": [asdict(port) for port in written.encoder_inputs],
            "outputs": [asdict(port) for port in written.encoder_outputs],
        },
        "decoder": {
            "inputs": [asdict(port) for port in written.decoder_inputs],
            "outputs": [asdict(port) for port in written.decoder_outputs],
        },
        "point_labels": {label.name.lower(): int(label) for label in PointLabel},
        "pixel_mean": PIXEL_MEAN,
        "pixel_std": PIXEL_STD,
        "pad_colour": PAD_COLOUR,
        "pad_colour_8bit": PAD_COLOUR_8BIT,
        "mask_threshold": MASK_THRESHOLD,
    }
    plain: dict[str, Any] = json.loads(json.dumps(described))
    return plain


def check_contract(field: Field, image_size: int) -> None:
    """Ports may be any; the rest is this version's, or the contract version is a lie."""

    def ports(graph: Field, side: str) -> tuple[Port, ...]:
        found = []
        for item in graph.record("inputs", "outputs")[side].items():
            port = item.record("name", "shape", "dtype", "meaning")
            shape = tuple(
                size.text(40) if isinstance(size.value, str) else size.integer(1, 1 << 31)
                for size in port["shape"].items()
            )
            found.append(Port(port["name"].text(100), shape, port["dtype"].one_of(DTYPES), port["meaning"].text()))
        if not found:
            graph.refuse(f"{side} with at least one port")
        return tuple(found)

    graphs = field.entries()
    for name in ("encoder", "decoder", "max_points"):
        if name not in graphs:
            raise ExportError(f"{field.where} has no {name!r}; export again")
    if (slots := graphs["max_points"]).value is not None:
        slots.integer(1, 1 << 16)
    encoder, decoder = graphs["encoder"], graphs["decoder"]
    expected = describe_contract(
        image_size,
        Written(
            ports(encoder, "inputs"), ports(encoder, "outputs"), ports(decoder, "inputs"), ports(decoder, "outputs"),
            slots.value, {},
        ),
    )  # fmt: skip
    for name, value in field.record(*expected).items():
        if value.value != expected[name]:
            value.refuse(f"{json.dumps(expected[name])[:60]} of contract {CONTRACT_VERSION}")
