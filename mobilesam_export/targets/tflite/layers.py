"""Which layer of a module an operator of the converted file comes from, by the names that the converter gives."""


def layer_of(tensor: str) -> str:
    """The path of the layer that puts a tensor out: ``mbconvs.0.conv1`` from ``.../Sequential_mbconvs/.../...``.

    The converter's names list the modules from the outside in, each as its class and, behind an underscore, the name of
    the attribute that holds it.
    """
    parts = [part.rsplit(".", 1)[-1].partition("_")[2] for part in tensor.split(";")[0].split("/")]
    return ".".join(part for part in parts if part not in ("", "conv"))


def lies_in(layer: str, part: str) -> bool:
    """Whether a layer is a part or lies below it."""
    return f"{layer}.".startswith(f"{part}.")
