"""Put a small graph, written as text, before or behind one of ours."""

from collections.abc import Mapping, Sequence

from onnx import ModelProto, compose, parser


def graph(text: str, **values: object) -> ModelProto:
    """A model of one graph; ``{names}`` in its text are replaced, the braces around its body doubled."""
    return named(parser.parse_model('<ir_version: 8, opset_import: ["" : 17]>\n' + text.format(**values)))


def named(model: ModelProto) -> ModelProto:
    """The model, each of its nodes named by its first output.

    ONNX Runtime names what it fuses after a node that was there; 1.18 to 1.21 then refuse a file with two of one name.
    """
    for node in model.graph.node:
        node.name = node.output[0]
    return model


def before(part: ModelProto, model: ModelProto, links: Mapping[str, str], prefix: str) -> ModelProto:
    """``part``, and behind it ``model``, whose inputs that ``links`` names (output of ``part`` to input) are given.

    What the two call their other inputs and outputs stays; everything else of ``part`` gets a prefix.
    """
    return _joined(_apart(part, prefix), model, links)


def behind(model: ModelProto, part: ModelProto, links: Mapping[str, str], prefix: str) -> ModelProto:
    """``model``, and behind it ``part``, see ``before``."""
    return _joined(model, _apart(part, prefix), links)


def renamed(model: ModelProto, names: Mapping[str, str]) -> ModelProto:
    """A copy whose inputs and outputs have other names."""
    copy = ModelProto()
    copy.CopyFrom(model)
    for value in (*copy.graph.input, *copy.graph.output):
        value.name = names.get(value.name, value.name)
    for node in copy.graph.node:
        for ends in (node.input, node.output):
            ends[:] = [names.get(name, name) for name in ends]
    return copy


def in_order(model: ModelProto, inputs: Sequence[str], outputs: Sequence[str]) -> ModelProto:
    """The model with inputs and outputs in an order; what is not named is no output any more."""
    for values, names in ((model.graph.input, inputs), (model.graph.output, outputs)):
        by_name = {value.name: value for value in values}
        del values[:]
        values.extend(by_name[name] for name in names)
    return model


def _apart(part: ModelProto, prefix: str) -> ModelProto:
    return compose.add_prefix(part, prefix, rename_inputs=False, rename_outputs=False)


def _joined(first: ModelProto, second: ModelProto, links: Mapping[str, str]) -> ModelProto:
    for model in (first, second):
        model.ir_version = 8
        del model.metadata_props[:]
    merged = compose.merge_models(first, second, io_map=list(links.items()))
    merged.graph.name = "mobile_sam"
    return merged
