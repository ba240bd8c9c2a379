"""Which files a tool takes, and how they are called there."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from onnx import ModelProto

from mobilesam_export.contract import DECODER_SUMMARY, ENCODER_SUMMARY, Contract, Port
from mobilesam_export.targets.onnx.contracts import transformersjs
from mobilesam_export.targets.onnx.contracts.cvat import cvat_decoder, cvat_ports
from mobilesam_export.targets.onnx.contracts.encoders import normalised_encoder, photo_encoder
from mobilesam_export.targets.onnx.contracts.official import official_decoder, official_ports
from mobilesam_export.targets.onnx.save import describe_ports, save

ENCODER_NAME, DECODER_NAME = "mobile_sam.encoder.onnx", "mobile_sam.decoder.onnx"
_ANYLABELING = """\
type: segment_anything
name: mobile_sam-{weights}
display_name: MobileSAM
encoder_model_path: {encoder}
decoder_model_path: {decoder}
input_size: {size}
max_width: {size}
max_height: 684
"""

Graphs = tuple[ModelProto, ModelProto]
Content = ModelProto | str


def write_contracts(
    names: Sequence[str],
    graphs: Mapping[str, Graphs],
    contract: Contract,
    out_dir: Path,
    metadata: Mapping[str, str],
) -> list[Path]:
    """Write ``out_dir/NAME/`` for each contract.

    Args:
        names: of ``target.CONTRACTS``.
        graphs: encoder and decoder of ``contract``, by precision; the first is the one that was asked for.
        contract: of any number of points, with four masks.
        out_dir: an existing folder.
        metadata: goes into every ONNX file.

    Returns:
        all files, encoders before decoders.
    """
    written = []
    for name in names:
        for path, (precision, content) in _files(name, graphs, contract, metadata).items():
            file = out_dir / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, str):
                file.write_text(content, encoding="utf-8")
            else:
                told = {**metadata, "contract": name}
                save(content, told | ({"precision": precision} if "precision" in metadata else {}), file)
            written.append(file)
    return written


def _files(
    name: str, graphs: Mapping[str, Graphs], contract: Contract, metadata: Mapping[str, str]
) -> dict[str, tuple[str, Content]]:
    """Contents of a contract's files with the precision of each, by path."""
    size = contract.image_size
    precision, (encoder, decoder) = next(iter(graphs.items()))
    if name == "cvat":
        return {"decoder.onnx": (precision, _described(cvat_decoder(decoder, contract), cvat_ports(size)))}
    if name == "transformersjs":
        meanings = transformersjs.ports(contract)
        files: dict[str, tuple[str, Content]] = {}
        for form, (one, other) in graphs.items():
            suffix = transformersjs.SUFFIXES[form]
            first = transformersjs.vision_encoder(one, size)
            second = transformersjs.prompt_encoder_mask_decoder(other, contract)
            files[f"onnx/vision_encoder{suffix}.onnx"] = form, _described(first, meanings)
            files[f"onnx/prompt_encoder_mask_decoder{suffix}.onnx"] = form, _described(second, meanings)
        return files | {
            path: (precision, text) for path, text in transformersjs.configurations(size, precision).items()
        }
    (embeddings,) = contract.encoder_outputs
    if name == "anylabeling":
        pixels = Port("input_image", ("height", "width", 3), "float32", f"RGB, 0 to 255, of at most {size} a side")
        first = photo_encoder(encoder, size, pixels.name)
    else:
        frame = f"RGB, longest side {size}, normalised by mean and std, then padded with zeros at right and bottom"
        pixels = Port("x", (1, 3, size, size), "float32", frame)
        first = normalised_encoder(encoder, size, pixels.name)
    files = {
        ENCODER_NAME: (precision, _described(first, (pixels, embeddings))),
        DECODER_NAME: (precision, _described(official_decoder(decoder, contract), official_ports(size))),
    }
    if name == "anylabeling":
        weights = metadata.get("weights_sha256", "")[:12] or "export"
        config = _ANYLABELING.format(weights=weights, encoder=ENCODER_NAME, decoder=DECODER_NAME, size=size)
        files["config.yaml"] = precision, config
    return files


def _described(model: ModelProto, ports: Sequence[Port]) -> ModelProto:
    """Say in the file what each port means, and its shape in these words."""
    is_encoder = any(value.name == "image_embeddings" for value in model.graph.output)
    describe_ports(model, ENCODER_SUMMARY if is_encoder else DECODER_SUMMARY, ports)
    model.graph.doc_string = ""
    shapes = {port.name: port.shape for port in ports}
    for value in (*model.graph.input, *model.graph.output):
        dims = value.type.tensor_type.shape.dim
        del dims[:]
        for size in shapes[value.name]:
            dims.add(**{"dim_param" if isinstance(size, str) else "dim_value": size})
    return model
