"""Tiny MIL programs, saved as packages and executed by our executor."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types
from numpy.typing import NDArray

from mobilesam_export.targets.coreml.executor import MLProgram

TARGET = ct.target.iOS17

# ct.convert collects garbage each time: half a second over torch's objects, against 30 ms for the rest.
gc.collect()
gc.freeze()
_TYPES = {np.dtype(np.float32): types.fp32, np.dtype(np.float16): types.fp16, np.dtype(np.int32): types.int32}


def save_program(
    path: Path,
    build: Callable[..., Any],
    inputs: list[NDArray[Any]],
    target: Any = TARGET,
    precision: Any = ct.precision.FLOAT32,
) -> Path:
    """Convert ``build(*inputs)`` without any optimisation pass and save it as a package."""
    specs = [mb.TensorSpec(shape=array.shape, dtype=_TYPES[array.dtype]) for array in inputs]
    # mb.program reads the parameter names of the function it decorates
    if len(inputs) == 1:
        program = mb.program(input_specs=specs, opset_version=target)(lambda x: build(x))
    elif len(inputs) == 2:
        program = mb.program(input_specs=specs, opset_version=target)(lambda x, y: build(x, y))
    else:
        program = mb.program(input_specs=specs, opset_version=target)(lambda x, y, z: build(x, y, z))
    pipeline = ct.PassPipeline.EMPTY if precision == ct.precision.FLOAT32 else ct.PassPipeline.DEFAULT
    model = ct.convert(
        program,
        convert_to="mlprogram",
        minimum_deployment_target=target,
        compute_precision=precision,
        pass_pipeline=pipeline,
        skip_model_load=True,
    )
    model.save(str(path))
    return path


def execute(build: Callable[..., Any], *inputs: NDArray[Any], target: Any = TARGET) -> list[NDArray[Any]]:
    """Results of ``build(*inputs)``, saved and executed from the saved package."""
    with tempfile.TemporaryDirectory() as folder:
        program = MLProgram(save_program(Path(folder) / "tiny.mlpackage", build, list(inputs), target))
        results = program.run(dict(zip(program.inputs, inputs, strict=True)))
    return list(results.values())
