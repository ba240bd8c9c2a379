"""What libraries say to their developers stays away from the user; what we and Python say does not."""

import io
import logging
import os
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mobilesam_export.chatter import own_stderr, without_log_of, without_native_chatter
from mobilesam_export.targets.onnx.precision import apply_precision


def test_native_chatter_is_dropped_and_standard_error_comes_back(capfd: pytest.CaptureFixture[str]) -> None:
    os.write(2, b"before\n")
    with without_native_chatter():
        os.write(2, b"I0000 a library's news\n")
    os.write(2, b"after\n")
    with pytest.raises(ValueError, match="passed on"), without_native_chatter():
        os.write(2, b"I0000 more news\n")
        raise ValueError("passed on")
    os.write(2, b"end\n")
    assert capfd.readouterr().err == "before\nafter\nend\n"


def test_our_own_progress_is_seen_meanwhile(capfd: pytest.CaptureFixture[str]) -> None:
    with own_stderr() as terminal, without_native_chatter():
        os.write(2, b"I0000 a library's news\n")
        print("converting", file=terminal)
    print("done", file=sys.stderr)
    assert capfd.readouterr().err == "converting\ndone\n"


def test_where_standard_error_is_no_file_it_is_used_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with own_stderr() as terminal:
        assert terminal is sys.stderr


def test_logs_below_an_error_are_dropped_and_levels_come_back(caplog: pytest.LogCaptureFixture) -> None:
    names = ("", "mobilesam_export.tests.library")
    before = [logging.getLogger(name or None).level for name in names]
    with without_log_of(*names):
        for name in names:
            logging.getLogger(name or None).warning("news")
        logging.getLogger().error("bad news")
    assert [record.getMessage() for record in caplog.records] == ["bad news"]
    assert [logging.getLogger(name or None).level for name in names] == before


def test_onnx_quantisation_is_silent(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    weight = numpy_helper.from_array(np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32), "w")
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"], "m")], "g", ports[:1], ports[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    quantised = apply_precision(model, "int8", is_encoder=True)
    assert "DynamicQuantizeLinear" in {node.op_type for node in quantised.graph.node}
    onnx.checker.check_model(quantised)
    assert caplog.records == [] and capfd.readouterr().err == ""
