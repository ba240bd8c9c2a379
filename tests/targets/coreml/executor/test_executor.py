"""Opening, compiling and running saved programs: rounding, errors, constants of every kind."""

import shutil
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from coremltools.optimize import coreml as optimize
from numpy.typing import NDArray

from mobilesam_export.errors import ExportError
from mobilesam_export.targets.coreml.executor import MLProgram
from mobilesam_export.targets.coreml.executor.constants import WeightBlob
from mobilesam_export.targets.coreml.executor.structure import Form, count, structure_failures, structure_of
from tests.targets.coreml.mil_programs import save_program


def _normal(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def test_every_float16_result_is_a_float16_number(tmp_path: Path) -> None:
    x, weight = _normal(1, 8, 5, 5), _normal(4, 8, 3, 3, seed=1)
    path = save_program(
        tmp_path / "half.mlpackage",
        lambda x: mb.softmax(x=mb.conv(x=x, weight=weight), axis=1),
        [x],
        precision=ct.precision.FLOAT16,
    )
    program = MLProgram(path)
    (got,) = program.run({"x": x}).values()
    rounded = got.astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(got, rounded)

    seen = []
    program.run({"x": x}, lambda op, name, value: seen.append((op.kind, value.numpy().copy())))
    convolved = next(value for kind, value in seen if kind == "conv")
    # The observer sees values before their rounding: they are finer than float16 ...
    assert not np.array_equal(convolved, convolved.astype(np.float16).astype(np.float32))
    # ... and what they are computed from is not: the convolution of the rounded input and weight.
    import torch
    import torch.nn.functional as F

    halves = (torch.from_numpy(array.astype(np.float16).astype(np.float32)) for array in (x, weight))
    np.testing.assert_allclose(convolved, F.conv2d(*halves).numpy(), rtol=1e-5, atol=1e-5)


def test_float16_overflows_to_infinity_as_declared(tmp_path: Path) -> None:
    x = np.array([300.0], np.float32)
    path = save_program(
        tmp_path / "over.mlpackage",
        lambda x: mb.sqrt(x=mb.square(x=x)),
        [x],
        precision=ct.precision.FLOAT16,
    )
    assert np.isinf(next(iter(MLProgram(path).run({"x": x}).values())))[0]


def test_an_unknown_operation_is_named_with_its_place(tmp_path: Path) -> None:
    x = _normal(1, 3, 4, 4)
    path = save_program(
        tmp_path / "odd.mlpackage", lambda x: mb.relu(x=mb.cumsum(x=x, axis=1, name="running_total")), [x]
    )
    with pytest.raises(ExportError, match=r"'cumsum' named 'running_total' \(operation \d+ of \d+ in main of odd"):
        MLProgram(path)


def test_a_failing_operation_is_named_with_its_place(tmp_path: Path) -> None:
    x = _normal(4, 3)
    path = save_program(tmp_path / "bad.mlpackage", lambda x: mb.gather(x=x, indices=[1, 2], axis=0, name="pick"), [x])
    program = MLProgram(path)
    object.__setattr__(program._steps[0], "constants", {"indices": [1, 9], "axis": 0})
    with pytest.raises(ExportError, match="operation gather named 'pick' failed"):
        program.run({"x": x})


def test_wrong_inputs_are_named(tmp_path: Path) -> None:
    path = save_program(tmp_path / "one.mlpackage", lambda x: mb.relu(x=x), [_normal(2, 3)])
    program = MLProgram(path)
    with pytest.raises(ExportError, match=r"got inputs \['y'\], expected \['x'\]"):
        program.run({"y": _normal(2, 3)})
    with pytest.raises(ExportError, match=r"got x of shape \(3, 2\), expected \(2, 3\)"):
        program.run({"x": _normal(3, 2)})


def _large_weight_program(path: Path) -> Path:
    weight = _normal(40, 40, 1, 1, seed=1)  # large enough to lie in the blob
    return save_program(path, lambda x: mb.conv(x=x, weight=weight), [_normal(1, 40, 2, 2)])


def test_damaged_packages_say_what_is_missing(tmp_path: Path) -> None:
    whole = _large_weight_program(tmp_path / "whole.mlpackage")

    def damaged(name: str) -> Path:
        return Path(shutil.copytree(whole, tmp_path / name))

    blob = Path("Data/com.apple.CoreML/weights/weight.bin")
    model = Path("Data/com.apple.CoreML/model.mlmodel")
    path = damaged("a.mlpackage")
    (path / blob).unlink()
    with pytest.raises(ExportError, match=r"weight blob .* is missing"):
        MLProgram(path)
    path = damaged("b.mlpackage")
    (path / blob).write_bytes((path / blob).read_bytes()[:200])
    with pytest.raises(ExportError, match="is truncated: 200 bytes"):
        MLProgram(path)
    path = damaged("c.mlpackage")
    (path / blob).write_bytes(bytes((path / blob).stat().st_size))
    with pytest.raises(ExportError, match="has no record of"):
        MLProgram(path)
    path = damaged("d.mlpackage")
    (path / model).write_bytes((path / model).read_bytes()[:300])
    with pytest.raises(ExportError, match=r"truncated or no Core ML model|expected an ML Program"):
        MLProgram(path)
    path = damaged("e.mlpackage")
    (path / model).unlink()
    with pytest.raises(ExportError, match="lacks its specification"):
        MLProgram(path)
    path = damaged("f.mlpackage")
    (path / "Manifest.json").write_text("{}")
    with pytest.raises(ExportError, match="is damaged"):
        MLProgram(path)
    with pytest.raises(ExportError, match=r"expected an \.mlpackage folder"):
        MLProgram(tmp_path / "nowhere.mlpackage")
    with pytest.raises(ExportError, match="has no function 'other'"):
        MLProgram(whole, function="other")


@pytest.mark.parametrize("target", [ct.target.iOS16, ct.target.iOS18])
@pytest.mark.parametrize("kind", ["int8", "uint8", "int4", "blocks", "palette6", "palette4", "grouped"])
def test_compressed_constants_expand_as_coremltools_expands_them(tmp_path: Path, kind: str, target: Any) -> None:
    configs = {
        "int8": optimize.OpLinearQuantizerConfig(mode="linear_symmetric", dtype="int8", weight_threshold=0),
        "uint8": optimize.OpLinearQuantizerConfig(mode="linear", dtype="uint8", weight_threshold=0),
        "int4": optimize.OpLinearQuantizerConfig(mode="linear_symmetric", dtype="int4", weight_threshold=0),
        "blocks": optimize.OpLinearQuantizerConfig(
            mode="linear", dtype="int8", granularity="per_block", block_size=8, weight_threshold=0
        ),
        "palette6": optimize.OpPalettizerConfig(mode="uniform", nbits=6, weight_threshold=0),
        "palette4": optimize.OpPalettizerConfig(mode="uniform", nbits=4, weight_threshold=0),
        "grouped": optimize.OpPalettizerConfig(
            mode="uniform", nbits=4, granularity="per_grouped_channel", group_size=8, weight_threshold=0
        ),
    }
    if target == ct.target.iOS16 and kind in ("int4", "blocks", "grouped"):
        pytest.skip("needs iOS 18")
    weight, x = _normal(32, 16, 1, 1, seed=1), _normal(1, 16, 3, 3)
    plain = save_program(tmp_path / "plain.mlpackage", lambda x: mb.conv(x=x, weight=weight), [x], target)
    model = ct.models.MLModel(str(plain), skip_model_load=True)
    config = optimize.OptimizationConfig(global_config=configs[kind])
    if isinstance(configs[kind], optimize.OpPalettizerConfig):
        compress = optimize.palettize_weights
    else:
        compress = optimize.linear_quantize_weights
    compressed = compress(model, config)
    compressed.save(str(tmp_path / "small.mlpackage"))
    ours = MLProgram(tmp_path / "small.mlpackage")
    assert any(op["type"].startswith("constexpr_") for op in _raw_operations(ours))

    expanded = optimize.decompress_weights(compressed)
    expanded.save(str(tmp_path / "expanded.mlpackage"))
    theirs = MLProgram(tmp_path / "expanded.mlpackage")
    got, expected = (next(iter(program.run({"x": x}).values())) for program in (ours, theirs))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    assert not np.allclose(got, next(iter(MLProgram(plain).run({"x": x}).values())), atol=1e-5), "nothing compressed"


def _raw_operations(program: MLProgram) -> list[dict[str, str]]:
    function = program.package.spec.mlProgram.functions["main"]
    return [{"type": op.type} for op in function.block_specializations[function.opset].operations]


def test_blob_reader_refuses_offsets_past_the_end(tmp_path: Path) -> None:
    path = tmp_path / "weight.bin"
    path.write_bytes(bytes(128))
    with pytest.raises(ExportError, match="truncated"):
        WeightBlob(path).read(4096, "FLOAT16", (4,))


def test_structure_counts_the_saved_program(tmp_path: Path) -> None:
    def build(x: Any) -> Any:
        x = mb.transpose(x=x, perm=[1, 0, 2])
        x = mb.reshape(x=x, shape=[1, 2, 3, 2, 2])
        x = mb.linear(x=x, weight=_normal(5, 2))
        x = mb.gather(x=x, indices=[0, 1], axis=0)
        return mb.reduce_mean(x=x, axes=[-1], keep_dims=True)

    path = save_program(tmp_path / "counted.mlpackage", build, [_normal(3, 2, 4)])
    structure = structure_of(path)
    assert (structure.transposes, structure.reshapes, structure.linears, structure.gathers) == (1, 1, 1, 1)
    assert structure.spelled_out_norms == 1
    assert structure.max_rank == 5
    failures = structure_failures("decoder", structure, Form(transposes=2, layer_norms=12))
    assert len(failures) == 4, failures  # linear, gather, norms, rank; one transpose is allowed
    assert count(MLProgram(path).body) == structure
