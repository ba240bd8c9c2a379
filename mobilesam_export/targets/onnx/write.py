"""Write ONNX files.

Two forms. The default, opset 17 and IR version 8, loads in every ONNX Runtime from 1.16 on, OpenCV, OpenVINO and MNN:
it spells GELU and attention out, and ONNX Runtime makes one kernel of each GELU again. Opset 23 has real ``Gelu`` and
``Attention`` operators, for ONNX Runtime 1.23 or later and for compilers that want them; it is no faster.

onnxsim is not applied: torch's exporter has folded the constants already.
"""

import ast
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from timm.models.repvit import RepVit
from timm.models.tiny_vit import TinyVit
from torch import Tensor, nn

from mobilesam_export.contract import DECODER_SUMMARY, ENCODER_SUMMARY, Contract, Port
from mobilesam_export.errors import ExportError
from mobilesam_export.rewrites.folded_conv_net import has_conv_form, is_conv_net
from mobilesam_export.rewrites.parts import part_of
from mobilesam_export.rewrites.plain import PlainImageEncoder
from mobilesam_export.targets.onnx.contracts.write import write_contracts
from mobilesam_export.targets.onnx.conv_net import ConvNetEncoderOnnx
from mobilesam_export.targets.onnx.decoder import PromptDecoderOnnx
from mobilesam_export.targets.onnx.encoder import ImageEncoderOnnx
from mobilesam_export.targets.onnx.official_decoder import official_inputs, official_outputs, with_official_contract
from mobilesam_export.targets.onnx.opset_17 import OPSET_BEFORE, to_opset_17
from mobilesam_export.targets.onnx.precision import PRECISIONS, apply_precision, rounded_constants
from mobilesam_export.targets.onnx.repvit import RepVitEncoderOnnx
from mobilesam_export.targets.onnx.save import describe_ports, save
from reference.mobile_sam import MobileSam

DEFAULT_OPSET = 17
NEW_OPSET = 23  # the first with Attention

ENCODER_NAME = "mobile_sam_encoder.onnx"
DECODER_NAME = "mobile_sam_decoder.onnx"
_SCOPES = "pkg.torch.onnx.name_scopes"  # where the exporter notes the modules that a node comes from

Traced = tuple[onnx.ModelProto, Mapping[str, str | None]]  # a graph, and the part of each of its constants


def write(sam: MobileSam, out_dir: Path, **arguments: Any) -> list[Path]:
    """Write encoder and decoder.

    Args:
        sam: the reference, in eval mode.
        out_dir: an existing folder.
        arguments: of ``draft``.

    Returns:
        the encoder's and the decoder's path, and those of the contracts' files.
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
    contracts: Sequence[str] | None = None,
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
        contracts: tools for which to write ``out_dir/NAME/`` too, in the forms that they take; names of
            ``target.CONTRACTS``. Their decoders need four masks and any number of points, at opset 17.
        metadata: goes into every file.
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
    encoder_model, encoder_parts = _traced_encoder(sam, opset, linear=precision == "int8")

    progress("ONNX decoder")
    decoder_inputs, decoder_outputs = contract.decoder_inputs, contract.decoder_outputs
    decoder = PromptDecoderOnnx(sam, single_mask)
    decoder_model, decoder_parts = _traced(decoder, decoder_inputs, decoder_outputs, opset)
    tools = None
    if contracts:
        twins: dict[str, Traced] = {}
        if precision == "float32" and "transformersjs" in contracts:
            twins["float16"] = encoder_model, encoder_parts
            if not has_conv_form(sam.image_encoder):  # which has no linear layers to be quantised
                twins["int8"] = _traced_encoder(sam, opset, linear=True)
        plain = onnx.ModelProto()
        plain.CopyFrom(decoder_model)
        tools = ForTools(contracts, contract, (plain, decoder_parts), twins)
    if official_decoder:
        decoder_model = with_official_contract(decoder_model, contract)
        decoder_inputs, decoder_outputs = official_inputs(contract), official_outputs(contract)
    describe_ports(encoder_model, ENCODER_SUMMARY, (*contract.encoder_inputs, *contract.encoder_outputs))
    describe_ports(decoder_model, DECODER_SUMMARY, (*decoder_inputs, *decoder_outputs))
    graphs = {ENCODER_NAME: (encoder_model, encoder_parts), DECODER_NAME: (decoder_model, decoder_parts)}
    return OnnxDraft(graphs, precision, metadata or {}, progress, tools)


def _traced_encoder(sam: MobileSam, opset: int, linear: bool) -> Traced:
    contract = Contract(sam.image_size)
    encoder: nn.Module
    match sam.image_encoder.body:
        case TinyVit():
            encoder = ImageEncoderOnnx(sam, fused_attention=opset == NEW_OPSET, linear=linear)
        case RepVit():
            encoder = RepVitEncoderOnnx(sam)
        case _ if is_conv_net(sam.image_encoder):
            encoder = ConvNetEncoderOnnx(sam)
        case _:  # a student without a folded form goes as it is; the exporter folds its BatchNorms
            encoder = PlainImageEncoder(sam).eval()
    return _traced(encoder, contract.encoder_inputs, contract.encoder_outputs, opset)


@dataclass(frozen=True)
class ForTools:
    """What the files for other people's tools are made from, besides the encoder.

    Attributes:
        names: of the contracts.
        contract: of the decoder.
        decoder: with four masks, for any number of points.
        twins: encoders of further precisions, in float32.
    """

    names: Sequence[str]
    contract: Contract
    decoder: Traced
    twins: Mapping[str, Traced]


class OnnxDraft:
    """Both graphs in float32, and what writes them in their precision; see ``targets.target.Draft``.

    Args:
        graphs: by file name.
        tools: for the contracts; None without any.
    """

    def __init__(
        self,
        graphs: Mapping[str, Traced],
        precision: str,
        metadata: Mapping[str, str],
        progress: Callable[[str], None],
        tools: ForTools | None = None,
    ) -> None:
        self.graphs, self.precision, self.metadata, self.progress = graphs, precision, metadata, progress
        self.tools = tools

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
        for name, traced in self.graphs.items():
            if self.precision != "float32":
                self.progress(f"ONNX {self.precision} {name}")
            save(_in_precision(traced, self.precision, name == ENCODER_NAME, exceptions), self.metadata, out_dir / name)
            paths.append(out_dir / name)
        if self.tools is not None:
            paths += self._write_contracts(self.tools, out_dir, exceptions)
        return paths

    def _write_contracts(self, tools: ForTools, out_dir: Path, exceptions: Collection[str]) -> list[Path]:
        self.progress(f"ONNX for {', '.join(tools.names)}")
        encoders = {self.precision: self.graphs[ENCODER_NAME], **tools.twins}
        graphs = {
            precision: (
                _in_precision(encoder, precision, True, exceptions),
                _in_precision(tools.decoder, precision, False, exceptions),
            )
            for precision, encoder in encoders.items()
        }
        return write_contracts(tools.names, graphs, tools.contract, out_dir, self.metadata)


def _in_precision(traced: Traced, precision: str, is_encoder: bool, exceptions: Collection[str]) -> onnx.ModelProto:
    """A copy of a float32 graph in a precision, but for the parts that are exceptions."""
    source, parts = traced
    model = onnx.ModelProto()
    model.CopyFrom(source)
    if precision == "float32":
        return model
    exact = {constant for constant, part in parts.items() if part in exceptions}
    return apply_precision(model, precision, is_encoder, exact.__contains__)


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


def _strip_traces(model: onnx.ModelProto) -> None:
    """Remove the exporter's stack traces, which name folders of the exporting machine."""
    del model.metadata_props[:], model.graph.metadata_props[:], model.graph.value_info[:]
    for item in (*model.graph.node, *model.graph.initializer, *model.graph.input, *model.graph.output):
        del item.metadata_props[:]
    for node in model.graph.node:
        node.doc_string = ""
