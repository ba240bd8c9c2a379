"""Take copies that do nothing out of a lowered program: transposes that undo each other, reshapes to the same shape.

ExecuTorch puts a transpose in front of every convolution and behind it, because XNNPACK's are channels-last and its
own are not. A graph that is channels-last already has the opposite transpose beside each of them, and XNNPACK would
run both: at 1024 that is some hundred passes over whole activations. XNNPACK's part of a program is a flatbuffer of
its own in it, which the compiler of ExecuTorch's package, flatc, turns into JSON and back.
"""

import json
import re
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Any

Graph = dict[str, Any]
EXTERNAL_OUTPUT = 2  # XNN_VALUE_FLAG_EXTERNAL_OUTPUT
TRANSPOSE, RESHAPE = "XNNStaticTranspose", "XNNStaticReshape"


def remove_copies(graph: Graph) -> None:
    """Merge copies of a kind that follow each other in XNNPACK's graph, and take out those that do nothing, in place.

    Args:
        graph: an ``XNNGraph`` of ExecuTorch's ``backends/xnnpack/serialization/schema.fbs``, as JSON.
    """
    tensors = {tensor["id_out"]: tensor for tensor in map(_tensor, graph["xvalues"])}
    external = {id_out for id_out, tensor in tensors.items() if tensor["flags"] & EXTERNAL_OUTPUT}
    same: dict[int, int] = {}  # what a copy that does nothing would put out, and what it took in
    copies: dict[int, tuple[str, Graph]] = {}  # by what they put out
    kept = []
    for entry in graph["xnodes"]:
        kind, node = entry["xnode_union_type"], entry["xnode_union"]
        for field in _inputs(node):
            node[field] = same.get(node[field], node[field])
        if kind in (TRANSPOSE, RESHAPE):
            before, earlier = copies.get(node["input_id"], ("", {}))
            if before == kind:
                node["input_id"] = earlier["input_id"]
                if kind == TRANSPOSE:
                    node["perm"] = [earlier["perm"][axis] for axis in node["perm"]]
            if kind == TRANSPOSE:
                nothing = node["perm"] == sorted(node["perm"])
            else:
                nothing = node["new_shape"] == tensors[node["input_id"]]["dims"]
            if nothing and node["output_id"] not in external:
                same[node["output_id"]] = node["input_id"]
                continue
            copies[node["output_id"]] = kind, node
        kept.append(entry)
    used = external | {entry["xnode_union"][field] for entry in kept for field in _inputs(entry["xnode_union"])}
    unused = copies.keys() - used
    graph["xnodes"] = [entry for entry in kept if entry["xnode_union"].get("output_id") not in unused]


def _tensor(value: Graph) -> Graph:
    tensor: Graph = value["xvalue_union"]
    inner: Graph = tensor.get("tensor_value", tensor)  # of a quantised one
    return inner


def _inputs(node: Graph) -> list[str]:
    return [field for field in node if field.endswith("_id") and not field.startswith("output_")]


def without_copies(content: bytes) -> bytes:
    """XNNPACK's part of a program, a header, a flatbuffer and constants, by ``remove_copies``."""
    from executorch.backends.xnnpack.serialization.xnnpack_graph_serialize import XNNHeader

    header = XNNHeader.from_bytes(content[: XNNHeader.EXPECTED_LENGTH])
    constants = content[header.constant_data_offset :][: header.constant_data_size]
    graph = read_graph(content)
    remove_copies(graph)
    flatbuffer = _flatbuffer_of(graph)
    start = header.flatbuffer_offset
    data = start + len(flatbuffer) + -len(flatbuffer) % 16  # constants are aligned
    head: bytes = XNNHeader(start, len(flatbuffer), data, len(constants)).to_bytes()
    return (head.ljust(start, b"\0") + flatbuffer).ljust(data, b"\0") + constants


def read_graph(content: bytes) -> Graph:
    """The ``XNNGraph`` in XNNPACK's part of a program."""
    from executorch.backends.xnnpack.serialization.xnnpack_graph_serialize import XNNHeader
    from executorch.exir._serialize._flatbuffer import _flatc_decompile

    header = XNNHeader.from_bytes(content[: XNNHeader.EXPECTED_LENGTH])
    with tempfile.TemporaryDirectory(prefix="xnnpack-") as folder:
        binary = Path(folder) / "graph.bin"
        binary.write_bytes(content[header.flatbuffer_offset :][: header.flatbuffer_size])
        _flatc_decompile(folder, _schema(), str(binary))
        text = binary.with_suffix(".json").read_text(encoding="utf-8")
    # flatc writes inf, as of a bound that a ReLU does not have, where Python's JSON says Infinity; it reads either.
    graph: Graph = json.loads(re.sub(r": (-?)inf\b", r": \1Infinity", text))
    return graph


def _flatbuffer_of(graph: Graph) -> bytes:
    from executorch.exir._serialize._flatbuffer import _flatc_compile

    with tempfile.TemporaryDirectory(prefix="xnnpack-") as folder:
        text = Path(folder) / "graph.json"
        text.write_text(json.dumps(graph), encoding="utf-8")
        _flatc_compile(folder, _schema(), str(text))
        return text.with_suffix(".bin").read_bytes()


def _schema() -> str:
    from executorch.backends.xnnpack import serialization

    return str(files(serialization).joinpath("schema.fbs"))
