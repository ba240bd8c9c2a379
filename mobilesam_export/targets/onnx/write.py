"""Write ONNX files.

Two forms. The default, opset 17 and IR version 8, loads in every ONNX Runtime from 1.16 on, OpenCV, OpenVINO and MNN:
it spells GELU and attention out, and ONNX Runtime makes one kernel of each GELU again. Opset 23 has real ``Gelu`` and
``Attention`` operators, for ONNX Runtime 1.23 or later and for compilers that want them; it is no faster.

onnxsim is not applied: torch's exporter has folded the constants already.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import onnx
import torch
from timm.models.tiny_vit import TinyVit
from torch import Tensor, nn

from mobilesam_export.contract import DECODER_SUMMARY, ENCODER_SUMMARY, Contract, Port
from mobilesam_export.errors import ExportError
from mobilesam_export.rewrites.plain import PlainImageEncoder
from mobilesam_export.targets.onnx.decoder import PromptDecoderOnnx
from mobilesam_export.targets.onnx.encoder import ImageEncoderOnnx
from mobilesam_export.targets.onnx.official_decoder import official_inputs, official_outputs, with_official_contract
from mobilesam_export.targets.onnx.opset_17 import OPSET_BEFORE, to_opset_17
from mobilesam_export.targets.onnx.precision import PRECISIONS, apply_precision
from mobilesam_export.version import __version__
from reference.mobile_sam import MobileSam

DEFAULT_OPSET = 17
NEW_OPSET = 23  # the first with Attention

ENCODER_NAME = "mobile_sam_encoder.onnx"
DECODER_NAME = "mobile_sam_decoder.onnx"


def write(
    sam: MobileSam,
    out_dir: Path,
    *,
    precision: str = "float32",
    opset: int | None = None,
    max_points: int | None = None,
    single_mask: bool = False,
    official_decoder: bool = False,
    metadata: Mapping[str, str] | None = None,
    progress: Callable[[str], None] = lambda step: None,
) -> list[Path]:
    """Write encoder and decoder.

    Args:
        sam: the reference, in eval mode.
        out_dir: an existing folder.
        precision: a name of ``precision.PRECISIONS``.
        opset: 17 (default) or 23, with real ``Gelu`` and ``Attention`` operators.
        max_points: fix the number of point slots (and the batch at 1); None leaves both variable.
        single_mask: the decoder returns one mask, chosen as the official ONNX wrapper does.
        official_decoder: give the decoder the official wrapper's inputs and outputs (``orig_im_size`` in,
            full-size ``masks`` out), so that apps made for it can take the file as it is.
        metadata: goes into both files.
        progress: called with the name of each step as it begins.

    Returns:
        the encoder's and the decoder's path.

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
    encoder_model = export_graph(encoder, contract.encoder_inputs, contract.encoder_outputs, opset)

    progress("ONNX decoder")
    decoder_inputs, decoder_outputs = contract.decoder_inputs, contract.decoder_outputs
    decoder_model = export_graph(PromptDecoderOnnx(sam, single_mask), decoder_inputs, decoder_outputs, opset)
    if official_decoder:
        decoder_model = with_official_contract(decoder_model, contract)
        decoder_inputs, decoder_outputs = official_inputs(contract), official_outputs(contract)
    describe_ports(encoder_model, ENCODER_SUMMARY, (*contract.encoder_inputs, *contract.encoder_outputs))
    describe_ports(decoder_model, DECODER_SUMMARY, (*decoder_inputs, *decoder_outputs))

    paths = []
    for name, model in ((ENCODER_NAME, encoder_model), (DECODER_NAME, decoder_model)):
        if precision != "float32":
            progress(f"ONNX {precision} {name}")
            model = apply_precision(model, precision, is_encoder=name == ENCODER_NAME)
        onnx.helper.set_model_props(model, dict(metadata or {}))
        model.producer_name, model.producer_version = "mobilesam-export", __version__
        onnx.checker.check_model(model, full_check=True)
        onnx.save_model(model, out_dir / name)
        paths.append(out_dir / name)
    return paths


def export_graph(module: nn.Module, inputs: tuple[Port, ...], outputs: tuple[Port, ...], opset: int) -> onnx.ModelProto:
    """Export one graph; dimensions that a port names are variable."""
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
    if opset == DEFAULT_OPSET:
        model = to_opset_17(model)
    _strip_traces(model)
    return model


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
