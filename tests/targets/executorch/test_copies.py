"""Copies that do nothing go from XNNPACK's graph, and others stay; the package is not needed for that."""

from typing import Any

from mobilesam_export.targets.executorch.copies import remove_copies

OUTPUT = 2  # of a value's flags


def value(number: int, *dims: int, flags: int = 0) -> dict[str, Any]:
    return {"xvalue_union": {"id_out": number, "dims": list(dims), "flags": flags}}


def quantised(number: int, *dims: int) -> dict[str, Any]:
    return {"xvalue_union": {"tensor_value": value(number, *dims)["xvalue_union"]}}


def node(kind: str, output: int, *inputs: int, **fields: Any) -> dict[str, Any]:
    names = ["input_id"] if len(inputs) == 1 else [f"input{i + 1}_id" for i in range(len(inputs))]
    union = {**dict(zip(names, inputs, strict=True)), "output_id": output, **fields}
    return {"xnode_union_type": kind, "xnode_union": union}


def transpose(output: int, source: int, *perm: int) -> dict[str, Any]:
    return node("XNNStaticTranspose", output, source, perm=list(perm))


def reshape(output: int, source: int, *shape: int) -> dict[str, Any]:
    return node("XNNStaticReshape", output, source, new_shape=list(shape))


def kinds(graph: dict[str, Any]) -> list[str]:
    return [entry["xnode_union_type"].removeprefix("XNN") for entry in graph["xnodes"]]


def test_opposite_transposes_and_reshapes_there_and_back_go_and_their_readers_read_what_was_before() -> None:
    graph = {
        "xvalues": [value(0, 1, 4, 5, 3), value(1, 1, 3, 4, 5), value(2, 1, 4, 5, 3), value(3, 1, 20, 3),
                    quantised(4, 1, 4, 5, 3), value(5, 1, 4, 5, 3, flags=OUTPUT)],
        "xnodes": [transpose(1, 0, 0, 3, 1, 2), transpose(2, 1, 0, 2, 3, 1), reshape(3, 2, 1, 20, 3),
                   reshape(4, 3, 1, 4, 5, 3), node("XNNAdd", 5, 4, 2)],
    }  # fmt: skip
    remove_copies(graph)
    assert kinds(graph) == ["Add"]
    assert graph["xnodes"][0]["xnode_union"] == {"input1_id": 0, "input2_id": 0, "output_id": 5}


def test_transposes_that_follow_each_other_become_one_and_a_shared_one_stays_for_its_other_reader() -> None:
    graph = {
        "xvalues": [value(0, 2, 3, 4), value(1, 4, 2, 3), value(2, 3, 4, 2), value(3, 4, 2, 3), value(4, 3, 4, 2)],
        "xnodes": [transpose(1, 0, 2, 0, 1), transpose(2, 1, 2, 0, 1), node("XNNGelu", 3, 1), node("XNNGelu", 4, 2)],
    }
    remove_copies(graph)
    assert kinds(graph) == ["StaticTranspose", "StaticTranspose", "Gelu", "Gelu"]
    assert graph["xnodes"][1]["xnode_union"] == {"input_id": 0, "output_id": 2, "perm": [1, 2, 0]}


def test_a_copy_into_an_output_stays() -> None:
    graph = {
        "xvalues": [value(0, 2, 3), value(1, 3, 2), value(2, 2, 3, flags=OUTPUT), value(3, 2, 3, flags=OUTPUT)],
        "xnodes": [transpose(1, 0, 1, 0), transpose(2, 1, 1, 0), reshape(3, 0, 2, 3)],
    }
    remove_copies(graph)
    assert [entry["xnode_union"]["output_id"] for entry in graph["xnodes"]] == [2, 3]
    assert graph["xnodes"][0]["xnode_union"]["input_id"] == 0
    assert graph["xnodes"][0]["xnode_union"]["perm"] == [0, 1]
