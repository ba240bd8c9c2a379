"""Another target is one class and one entry of the list: TorchScript, written here, goes all the way."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mobilesam_export import cli, export, load_bundle, targets, verify_bundle
from mobilesam_export.bundle.manifest import Manifest
from mobilesam_export.contract import Contract, Written
from mobilesam_export.errors import ExportError
from mobilesam_export.options import Option
from mobilesam_export.parity.gates import FLOAT32
from mobilesam_export.rewrites.plain import PlainImageEncoder
from mobilesam_export.targets.onnx.decoder import PromptDecoderOnnx
from mobilesam_export.targets.target import Cost, Precision, Runtime, Step, Target
from reference import Predictor
from reference.images import save_picture
from reference.mobile_sam import MobileSam
from tests.randomised import randomised_sam

SIZE = 96


class TorchScriptRuntime:
    """Runs two TorchScript files."""

    max_points = None

    def __init__(self, encoder: Path, decoder: Path) -> None:
        self._encoder, self._decoder = torch.jit.load(encoder), torch.jit.load(decoder)
        self.image_size = int(Toy.metadata(encoder)["image_size"])

    @torch.inference_mode()
    def encode(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        embeddings: Tensor = self._encoder(torch.from_numpy(image))
        return embeddings.numpy()

    @torch.inference_mode()
    def decode(
        self, image_embeddings: Any, point_coords: Any, point_labels: Any, mask_input: NDArray[np.float32] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        low = self.image_size // 4
        masks = np.zeros((len(point_labels), 1, low, low), np.float32) if mask_input is None else mask_input
        has_mask = np.array([mask_input is not None], np.float32)
        feeds = (image_embeddings, point_coords, point_labels, masks, has_mask)
        logits, iou = self._decoder(*(torch.from_numpy(np.asarray(feed, np.float32)) for feed in feeds))
        return logits.numpy(), iou.numpy()


class Toy(Target):
    """TorchScript files, traced."""

    name = "torchscript"
    packages = ("torch",)
    distributions = ("torch",)
    options = (Option("greeting", str, "what the files say to their reader", choices=("hello", "ahoy")),)
    precisions = (Precision("float32", FLOAT32),)
    default_precision = "float32"
    seconds: Mapping[Step, Cost] = {"write": Cost(1, 1), "verify": Cost(1, 1)}

    def write(
        self,
        sam: MobileSam,
        out_dir: Path,
        *,
        precision: str,
        options: Mapping[str, Any],
        calibration: Sequence[Path] | None,
        metadata: Mapping[str, str],
        progress: Callable[[str], None],
    ) -> list[Path]:
        contract, paths = Contract(sam.image_size), []
        graphs = {
            "encoder": (PlainImageEncoder(sam).eval(), contract.encoder_inputs),
            "decoder": (PromptDecoderOnnx(sam), contract.decoder_inputs),
        }
        for part, (graph, ports) in graphs.items():
            progress(part)
            sizes = [[2 if isinstance(size, str) else size for size in port.shape] for port in ports]
            with torch.no_grad():
                traced = torch.jit.trace(graph, tuple(torch.zeros(size) for size in sizes), check_trace=False)
            paths.append(out_dir / f"mobile_sam_{part}.pt")
            said = json.dumps({**metadata, **options, "precision": precision})
            torch.jit.save(traced, paths[-1], _extra_files={"metadata": said})
        return paths

    @staticmethod
    def metadata(path: Path) -> dict[str, str]:
        extra = {"metadata": ""}
        torch.jit.load(path, _extra_files=extra)
        found: dict[str, str] = json.loads(extra["metadata"])
        return found

    def ports(self, encoder: Path, decoder: Path) -> Written:
        said = self.metadata(decoder)
        contract = Contract(int(said["image_size"]))
        inputs, outputs = contract.decoder_inputs, contract.decoder_outputs
        return Written(contract.encoder_inputs, contract.encoder_outputs, inputs, outputs, None, said)

    def open(self, encoder: Path, decoder: Path) -> Runtime:
        return TorchScriptRuntime(encoder, decoder)


@pytest.fixture(scope="module")
def sam() -> MobileSam:
    return randomised_sam(image_size=SIZE)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "ALL", (*targets.ALL, Toy()))


@pytest.mark.usefixtures("toy")
def test_a_target_of_one_class_and_one_entry_exports_verifies_and_segments(
    sam: MobileSam, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "dist"
    bundle = export(sam, "torchscript", out, verify="quick", greeting="ahoy")
    entry = Manifest.read(out).targets["torchscript"]
    assert entry.options == {"greeting": "ahoy"}
    assert entry.parity is not None and entry.parity["passed"]
    assert [path.name for path in bundle.artifacts] == ["mobile_sam_encoder.pt", "mobile_sam_decoder.pt"]
    assert "torch" in entry.versions
    assert [report.passed for report in verify_bundle(out, sam, level="quick")] == [True]

    photo = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    ours, reference = load_bundle(out, "torchscript"), Predictor(sam)
    for predictor in (ours, reference):
        predictor.set_image(photo)
    point = {"point_coords": [[40, 30]], "point_labels": [1]}
    np.testing.assert_allclose(ours.predict(**point)[2], reference.predict(**point)[2], atol=1e-3)
    save_picture(Image.fromarray(photo), tmp_path / "photo.png")
    command = ["segment", str(tmp_path / "photo.png"), "--bundle", str(out), "--point", "40,30"]
    assert cli.main([*command, "-o", str(tmp_path / "mask.png")]) == 0
    assert (tmp_path / "mask.png").is_file()
    assert cli.main(["inspect", str(out)]) == 0
    assert "mobile_sam_encoder.pt" in capsys.readouterr().out


@pytest.mark.usefixtures("toy")
def test_its_options_precisions_and_name_are_in_the_help_and_in_the_errors(
    sam: MobileSam, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli.main(["export", "--help"])
    text = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert f"{{{','.join(targets.names())},all}}" in text and targets.names()[-1] == "torchscript"
    assert "--greeting {hello,ahoy} torchscript: what the files say to their reader" in text
    assert "torchscript float32 (default: float32)" in text
    with pytest.raises(ExportError, match="got greeting hi, expected hello or ahoy"):
        export(sam, "torchscript", tmp_path / "dist", greeting="hi")
    with pytest.raises(ExportError, match="got precision int8 for torchscript, expected float32"):
        export(sam, "torchscript", tmp_path / "dist", precision="int8")
    with pytest.raises(ExportError, match="greeting ahoy is for torchscript, got target onnx"):
        export(sam, "onnx", tmp_path / "dist", greeting="ahoy")


def test_without_its_entry_there_is_no_such_target(sam: MobileSam, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="got target torchscript, expected onnx, coreml, tflite"):
        export(sam, "torchscript", tmp_path / "dist")
    with pytest.raises(TypeError, match=r"export\(\) got an unexpected keyword argument 'greeting'"):
        export(sam, "onnx", tmp_path / "dist", greeting="ahoy")
