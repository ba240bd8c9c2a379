"""Write ONNX files.

Two forms. The default, opset 17 and IR version 8, loads in every ONNX Runtime from 1.16 on, OpenCV, OpenVINO and MNN:
it spells GELU and attention out, and ONNX Runtime makes one kernel of each GELU again. Opset 23 has real ``Gelu`` and
``Attention`` operators, for ONNX Runtime 1.23 or later and for compilers that want them; it is no faster.

onnxsim is not applied: torch's exporter has folded the constants already.
"""

import ast
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import onnx
import torch
from timm.models.tiny_vit import TinyVit
from torch import Tensor, nn

from mobilesam_export.contract import DECODER_SUMMARY, ENCODER_SUMMARY, Contract, Port
from mobilesam_export.errors import ExportError
from mobilesam_export.rewrites.parts import part_of
from mobilesam_export.rewrites.plain import PlainImageEncoder
from mobilesam_export.targets.onnx.decoder import PromptDecoderOnnx
from mobilesam_export.targets.onnx.encoder import ImageEncoderOnnx
from mobilesam_export.targets.onnx.official_decoder import official_inputs, official_outputs, with_official_contract
from mobilesam_export.targets.onnx.opset_17 import OPSET_BEFORE, to_opset_17
from mobilesam_export.targets.onnx.precision import PRECISIONS, apply_precision, rounded_constants
from mobilesam_export.version import __version__
from reference.mobile_sam import MobileSam

DEFAULT_OPSET = 17
NEW_OPSET = 23  # the first with Attention

ENCODER_NAME = "mobile_sam_encoder.onnx"
DECODER_NAME = "mobile_sam_decoder.onnx"
_SCOPES = "pkg.torch.onnx.name_scopes"  # where the exporter notes the modules that a node comes from


def write(sam: MobileSam, out_dir: Path, **arguments: Any) -> list[Path]:
    """Write encoder and decoder.

    Args:
        sam: the reference, in eval mode.
        out_dir: an existing folder.
        arguments: of ``draft``.

    Returns:
        the encoder's and the decoder's path.
    """
    return draft(sam, **arguments).write(out_dir)


def draft(
    sam: MobileSam,
    *,
    precision: str = "float32",
    opset: int | None = None,
    max_points: int | None = None,
    single_mask: bool = False,
    official_decoder: bool = False,
    metadata: Mapping[str, str] | None = None,
    progress: Callable[[str], None] = lambda step: None,
) -> "OnnxDraft":
    """Export both graphs, for files of a precision.

    Args:
        sam: the reference, in eval mode.
        precision: a name of ``precision.PRECISIONS``.
        opset: 17 (default) or 23, with real ``Gelu`` and ``Attention`` operators.
        max_points: fix the number of point slots (and the batch at 1); None leaves both variable.
        single_mask: the decoder returns one mask, chosen as the official ONNX wrapper does.
        official_decoder: give the decoder the official wrapper's inputs and outputs (``orig_im_size`` in,
            full-size ``masks`` out), so that apps made for it can take the file as it is.
        metadata: goes into both files.
        progress: called with the name of each step as it begins.

    Raises:
        ExportError: for a combination that is not offered.
    """
    opset = opset or DEFAULT_OPSET
    if opset not in (DEFAULT_OPSET, NEW_OPSET):
        raise ExportError(f"got ONNX opset {opset}, expected {DEFAULT_OPSET} or {NEW_OPSET}")
    if precision not in PRECISIONS:
        raise ExportError(f"got precision {precision!r} for ONNX, expected one of {', '.join(PRECISIONS)}")
    if sam.training:
        raise ExportError("got a model in train mode, expected eval mode; call sam.eval() before the export")
    contract = Contract(sam.image_size, max_points, single_mask)

    progress("ONNX encoder")
    # A student without a folded form goes as it is; the exporter folds its BatchNorms.
    tiny_vit = isinstance(sam.image_encoder.body, TinyVit)
    fused, linear = opset == NEW_OPSET, precision == "int8"
    encoder = ImageEncoderOnnx(sam, fused_attention=fused, linear=linear) if tiny_vit else PlainImageEncoder(sam).eval()
    encoder_model, encoder_parts = _traced(encoder, contract.encoder_inputs, contract.encoder_outputs, opset)

    progress("ONNX decoder")
    decoder_inputs, decoder_outputs = contract.decoder_inputs, contract.decoder_outputs
    decoder = PromptDecoderOnnx(sam, single_mask)
    decoder_model, decoder_parts = _traced(decoder, decoder_inputs, decoder_outputs, opset)
    if official_decoder:
        decoder_model = with_official_contract(decoder_model, contract)
        decoder_inputs, decoder_outputs = official_inputs(contract), official_outputs(contract)
    describe_ports(encoder_model, ENCODER_SUMMARY, (*contract.encoder_inputs, *contract.encoder_outputs))
    describe_ports(decoder_model, DECODER_SUMMARY, (*decoder_inputs, *decoder_outputs))
    graphs = {ENCODER_NAME: (encoder_model, encoder_parts), DECODER_NAME: (decoder_model, decoder_parts)}
    return OnnxDraft(graphs, precision, metadata or {}, progress)


class OnnxDraft:
    """Both graphs in float32, and what writes them in their precision; see ``targets.target.Draft``.

    Args:
        graphs: by file name, each with the part of every constant.
    """

    def __init__(
        self,
        graphs: Mapping[str, tuple[onnx.ModelProto, Mapping[str, str | None]]],
        precision: str,
        metadata: Mapping[str, str],
        progress: Callable[[str], None],
    ) -> None:
        self.graphs, self.precision, self.metadata, self.progress = graphs, precision, metadata, progress

    @property
    def parts(self) -> tuple[str, ...]:
        """See ``Draft``."""
        found: dict[str, None] = {}
        for name, (model, parts) in self.graphs.items():
            for constant in rounded_constants(model, self.precision, name == ENCODER_NAME):
                if part := parts.get(constant):
                    found[part] = None
        return tuple(found)

    def write(self, out_dir: Path, exceptions: Collection[str] = ()) -> list[Path]:
        """See ``Draft``."""
        paths = []
        for name, (traced, parts) in self.graphs.items():
            model = onnx.ModelProto()
            model.CopyFrom(traced)
            if self.precision != "float32":
                self.progress(f"ONNX {self.precision} {name}")
                exact = {constant for constant, part in parts.items() if part in exceptions}
                model = apply_precision(model, self.precision, name == ENCODER_NAME, exact.__contains__)
            onnx.helper.set_model_props(model, dict(self.metadata))
            model.producer_name, model.producer_version = "mobilesam-export", __version__
            onnx.checker.check_model(model, full_check=True)
            onnx.save_model(model, out_dir / name)
            paths.append(out_dir / name)
        return paths


def _traced(
    module: nn.Module, inputs: tuple[Port, ...], outputs: tuple[Port, ...], opset: int
) -> tuple[onnx.ModelProto, dict[str, str | None]]:
    """A graph and the part of each of its constants, which the exporter's traces tell before they are removed."""
    model = _export(module, inputs, outputs, opset)
    parts = parts_of_constants(model)
    _strip_traces(model)
    return model, parts


def parts_of_constants(model: onnx.ModelProto) -> dict[str, str | None]:
    """By its own name, if that is a parameter's; else by the modules of the first node that reads it.

    Args:
        model: with the exporter's traces.
    """
    reader: dict[str, str | None] = {}
    for node in model.graph.node:
        scopes = next((entry.value for entry in node.metadata_props if entry.key == _SCOPES), None)
        modules = [] if scopes is None else ast.literal_eval(scopes)[:-1]  # the last is the operation itself
        for name in node.input:
            reader.setdefault(name, part_of(modules[-1]) if modules else None)
    names = [tensor.name for tensor in model.graph.initializer]
    return {name: part_of(name) if "." in name else reader.get(name) for name in names}


def export_graph(module: nn.Module, inputs: tuple[Port, ...], outputs: tuple[Port, ...], opset: int) -> onnx.ModelProto:
    """Export one graph; dimensions that a port names are variable."""
    model = _export(module, inputs, outputs, opset)
    _strip_traces(model)
    return model


def _export(module: nn.Module, inputs: tuple[Port, ...], outputs: tuple[Port, ...], opset: int) -> onnx.ModelProto:
    dims: dict[str, torch.export.Dim] = {}
    arguments: list[Tensor] = []
    shapes: list[dict[int, torch.export.Dim]] = []
    for port in inputs:
        named = {i: name for i, name in enumerate(port.shape) if isinstance(name, str)}
        shapes.append({i: dims.setdefault(name, torch.export.Dim(name)) for i, name in named.items()})
        # Example sizes other than 1, which torch.export would take for a constant, and all different.
        example = [3 + sorted(dims).index(size) if isinstance(size, str) else size for size in port.shape]
        arguments.append(torch.zeros(example))
    with torch.no_grad():
        program = torch.onnx.export(
            module,
            tuple(arguments),
            dynamo=True,
            opset_version=OPSET_BEFORE if opset == DEFAULT_OPSET else opset,
            input_names=[port.name for port in inputs],
            output_names=[port.name for port in outputs],
            dynamic_shapes=tuple(shapes) if dims else None,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    return to_opset_17(model) if opset == DEFAULT_OPSET else model


def describe_ports(model: onnx.ModelProto, summary: str, ports: Iterable[Port]) -> None:
    """Say in the file what the graph is, and what each port means; viewers show both."""
    model.doc_string = summary
    meanings = {port.name: port.meaning for port in ports}
    for value in (*model.graph.input, *model.graph.output):
        value.doc_string = meanings[value.name]


def _strip_traces(model: onnx.ModelProto) -> None:
    """Remove the exporter's stack traces, which name folders of the exporting machine."""
    del model.metadata_props[:], model.graph.metadata_props[:], model.graph.value_info[:]
    for item in (*model.graph.node, *model.graph.initializer, *model.graph.input, *model.graph.output):
        del item.metadata_props[:]
    for node in model.graph.node:
        node.doc_string = ""
