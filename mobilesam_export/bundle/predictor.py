"""The reference predictor's interface over exported artifacts: same prompts, same photos, another engine."""

from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mobilesam_export.bundle.manifest import Manifest, TargetEntry
from mobilesam_export.contract import PointLabel
from mobilesam_export.errors import ExportError
from mobilesam_export.model_frame import model_frame
from mobilesam_export.targets import named
from mobilesam_export.targets.target import ClosingRuntime, Runtime, TwoStepRuntime, UpscalingRuntime
from reference.errors import PromptError
from reference.predictor import Answer, BasePredictor
from reference.prompts import Prompts, check_prompts, one_as_batch

Floats = NDArray[np.float32]


class BundlePredictor(BasePredictor):
    """``reference.Predictor`` over a runtime; see there for ``set_image`` and ``predict``.

    Args:
        runtime: of one target.
        weights: sha256 of the weights that were exported.
        single_mask: the decoder chooses one mask by itself; ``multimask_output`` then changes nothing.
    """

    def __init__(self, runtime: Runtime, weights: str, single_mask: bool = False) -> None:
        super().__init__()
        self.runtime = runtime
        self.single_mask = single_mask
        self.image_size = runtime.image_size
        self._weights = weights

    def weights_id(self) -> str:
        """sha256 of the exported weights."""
        return self._weights

    def _encode(self, resized: NDArray[np.uint8]) -> Floats:
        return self.runtime.encode(model_frame(resized, self.image_size))

    def _decode(self, prompts: Prompts) -> tuple[Floats, Floats]:
        assert self.image_embeddings is not None
        return self.runtime.decode(self.image_embeddings, *self._points(prompts), prompts.masks)

    def _decode_to_draw(self, prompts: Prompts) -> Answer:
        if prompts.masks is not None or not isinstance(self.runtime, TwoStepRuntime):
            return super()._decode_to_draw(prompts)
        assert self.image_embeddings is not None
        return Answer(*self.runtime.attend(self.image_embeddings, *self._points(prompts)))

    @property
    def concurrency(self) -> int:
        """How many threads may ask at a time."""
        return self.runtime.concurrency if isinstance(self.runtime, TwoStepRuntime) else super().concurrency

    @property
    def best_batch(self) -> int:
        """Prompts that are fastest together."""
        return self.runtime.best_batch if isinstance(self.runtime, TwoStepRuntime) else super().best_batch

    def masks_of_decoder(
        self,
        point_coords: ArrayLike | None = None,
        point_labels: ArrayLike | None = None,
        box: ArrayLike | None = None,
        mask_input: ArrayLike | None = None,
    ) -> tuple[Floats, Floats] | None:
        """What an official decoder draws at the photo's size by itself, where ``predict`` leaves that to the host.

        Returns:
            (C, H, W) logits and the (C, S/4, S/4) logits that they come from; None for every other decoder.
        """
        if not isinstance(self.runtime, UpscalingRuntime) or not self.runtime.official:
            return None
        size = self._require_image()
        assert self.image_embeddings is not None
        prompt = one_as_batch(point_coords, point_labels, box, mask_input, self.image_size)
        prompts = check_prompts(*prompt, size, self.image_size)
        points = self._points(prompts)
        masks, logits = self.runtime.decode_to_photo(self.image_embeddings, *points, prompts.masks, size)
        return masks[0], logits[0]

    def _points(self, prompts: Prompts) -> tuple[Floats, Floats]:
        coords, labels = decoder_points(prompts)
        slots = self.runtime.max_points
        if slots is not None and coords.shape[1] > slots:
            raise PromptError(
                f"got a prompt of {coords.shape[1]} slots (points, box corners, padding point), the artifact holds "
                f"{slots}; give fewer points or export with a larger max_points"
            )
        return coords, labels

    def _rows(self, multimask_output: bool) -> slice:
        return super()._rows(multimask_output and not self.single_mask)

    def _every_row(self) -> slice:
        return slice(0, 1) if self.single_mask else super()._every_row()

    def close(self) -> None:
        """Release the artifacts."""
        if isinstance(self.runtime, ClosingRuntime):
            self.runtime.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def decoder_points(prompts: Prompts) -> tuple[Floats, Floats]:
    """The decoder's point inputs for B prompts, by the contract's rules.

    Points without a box are followed by one padding point; a box is two points labelled as its corners;
    a mask alone is a single absent slot, since SAM gives it no point tokens at all.

    Returns:
        (B, N, 2) coordinates and (B, N) labels.
    """
    batch = next(len(a) for a in (prompts.points, prompts.boxes, prompts.masks) if a is not None)
    coords: list[Floats] = []
    labels: list[Floats] = []

    def add(points: Floats, *kinds: PointLabel) -> None:
        coords.append(points)
        labels.append(np.tile(np.array(kinds, np.float32), (batch, 1)))

    if prompts.points is not None and prompts.labels is not None:
        coords.append(prompts.points)
        labels.append(prompts.labels)
    if prompts.boxes is not None:
        add(prompts.boxes.reshape(batch, 2, 2), PointLabel.BOX_TOP_LEFT, PointLabel.BOX_BOTTOM_RIGHT)
    else:
        kind = PointLabel.PADDING if prompts.points is not None else PointLabel.ABSENT
        add(np.zeros((batch, 1, 2), np.float32), kind)
    return np.concatenate(coords, axis=1), np.concatenate(labels, axis=1)


def load_bundle(directory: str | Path, target: str | None = None) -> BundlePredictor:
    """Open one target of a bundle for prediction.

    Args:
        directory: what ``export`` wrote.
        target: a name in ``targets.names()``; may be left out if the bundle holds one only.

    Raises:
        ExportError: no bundle, a target that it lacks, a damaged file, or a runtime that is not installed.
    """
    directory = Path(directory)
    manifest = Manifest.read(directory)
    entry = manifest.target(target)
    entry.check_files(directory)
    return open_predictor(entry, directory, manifest.weights.sha256)


def open_predictor(entry: TargetEntry, directory: Path, weights: str) -> BundlePredictor:
    """The predictor over a manifest entry's files."""
    return BundlePredictor(open_runtime(entry, directory), weights, bool(entry.options.get("single_mask")))


def open_runtime(entry: TargetEntry, directory: Path) -> Runtime:
    """The runtime of a target, over the files of its manifest entry."""
    encoder, decoder = directory / entry.path_of("encoder"), directory / entry.path_of("decoder")
    target = named(entry.target)
    try:
        return target.open(encoder, decoder)
    except ImportError as error:
        raise ExportError(f"the {target.name} runtime is not installed ({error}); {target.remedy}") from error
