"""Ask a model for every annotated object and note how well it answered; photo by photo, whatever happens to one."""

import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilesam_export.accuracy.average_precision import answers_to, as_coco
from mobilesam_export.accuracy.dataset import AnnotatedPhoto, Annotation, Dataset, Skipped
from mobilesam_export.accuracy.detections import Detections
from mobilesam_export.accuracy.embeddings import EmbeddingCache
from mobilesam_export.accuracy.prompts import Prompt
from mobilesam_export.accuracy.subject import Subject
from mobilesam_export.accuracy.truth import truth_of
from mobilesam_export.errors import ExportError
from mobilesam_export.journal import Journal
from mobilesam_export.progress import Progress, Step, about
from reference.errors import ImageError, PromptError
from reference.images import read_image
from reference.regular_file import regular_file_size

LARGEST_PHOTO_BYTES = 2 * 10**9


@dataclass(frozen=True)
class Measured:
    """What a run has seen.

    Attributes:
        records: a line of the journal for each photo.
        unreadable: photos that could not be measured on.
        seconds: of this run.
        measured_now: photos of this run; the others were in the journal.
    """

    records: Sequence[Mapping[str, Any]]
    unreadable: Sequence[Skipped]
    seconds: float
    measured_now: int


@dataclass(frozen=True, eq=False)
class _Loaded:
    photo: AnnotatedPhoto
    pixels: NDArray[np.uint8]
    sha256: str
    annotations: Sequence[Annotation | Skipped] = field(default_factory=tuple)


def evaluate(
    subject: Subject,
    dataset: Dataset,
    prompts: Sequence[Prompt],
    journal: Journal,
    progress: Progress,
    *,
    detections: Detections | None = None,
    cache: EmbeddingCache | None = None,
    limit: int | None = None,
    workers: int = 2,
) -> Measured:
    """Measure on the photos that the journal lacks.

    Args:
        prompts: ways to ask for each object.
        detections: boxes that are asked for too, for AP.
        cache: of embeddings.
        limit: photos at most, the first ones.
        workers: threads that read photos ahead while the model computes.

    Raises:
        ExportError: not one photo could be read, or a decoder that is too small for a prompt.
    """
    too_long = [prompt for prompt in prompts if subject.max_points is not None and prompt.slots > subject.max_points]
    if too_long:
        raise ExportError(
            f"--prompt {too_long[0].name} takes {too_long[0].slots} slots (points and a padding point), this decoder "
            f"holds {subject.max_points}; ask for fewer clicks, or export with a larger --max-points"
        )
    photos = list(islice(dataset.photos, limit))
    waiting = [photo for photo in photos if photo.name not in journal.done]
    unreadable: list[Skipped] = []
    start, done = time.perf_counter(), 0
    with progress.step(f"measure on {len(photos):,} photos") as step:
        for loaded in _read_ahead(waiting, workers):
            progress.go_on()
            if isinstance(loaded, Skipped):
                unreadable.append(loaded)
            else:
                journal.add(loaded.photo.name, _measure(subject, loaded, prompts, detections, cache))
                done += 1
            seconds = time.perf_counter() - start
            left = len(waiting) - done - len(unreadable)
            progress.outcome = (
                f"{len(journal.done):,} photos are kept in {journal.path}; the same command goes on there"
            )
            _tell(step, len(photos) - left, len(photos), len(unreadable), seconds / (done + len(unreadable)) * left)
        step.result = f"{len(journal.done):,} photos" + (f", {len(unreadable):,} unreadable" if unreadable else "")
    wanted = {photo.name for photo in photos}
    records = [record for record in journal.records() if record["photo"] in wanted]
    if not records:
        raise ExportError(
            f"none of {len(photos):,} photos could be measured on; the first, {unreadable[0].name}: "
            f"{unreadable[0].reason}"
        )
    if not any(record["objects"] for record in records):
        name, reason = next((entry for record in records for entry in record["skipped"]), ("", "there is none"))
        raise ExportError(f"no annotation of {len(records):,} photos could be measured on; the first, {name}: {reason}")
    return Measured(records, unreadable, time.perf_counter() - start, done)


def _tell(step: Step, at: int, count: int, unreadable: int, seconds_left: float) -> None:
    failed = f", {unreadable:,} unreadable" if unreadable else ""
    step.update(f"{at:,} of {count:,}{failed}, {about(seconds_left)} left" if at < count else f"{at:,} of {count:,}")


def _read_ahead(photos: Iterable[AnnotatedPhoto], workers: int) -> Iterator[_Loaded | Skipped]:
    """Photos in their order, read by threads that are ``workers`` ahead and no more: each is held in memory."""
    with ThreadPoolExecutor(workers, "read") as threads:
        rest, waiting = iter(photos), list[Future[_Loaded | Skipped]]()
        while True:
            waiting += [threads.submit(_load, photo) for photo in islice(rest, workers + 1 - len(waiting))]
            if not waiting:
                return
            yield waiting.pop(0).result()


def _load(photo: AnnotatedPhoto) -> _Loaded | Skipped:
    try:
        regular_file_size(photo.path, "photo", LARGEST_PHOTO_BYTES, ImageError)
        with photo.path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        pixels = read_image(photo.path, upright=photo.upright)
        size = pixels.shape[:2]
        if photo.size not in (None, size):
            return Skipped(
                photo.name, f"{photo.path} has {list(size)} pixels, its annotations are for {list(photo.size or ())}"
            )
        return _Loaded(photo, pixels, sha256, photo.read())
    except (ValueError, OSError) as error:  # ImageError is a ValueError; annotations of one photo's own file
        return Skipped(photo.name, str(error))


def _measure(
    subject: Subject,
    loaded: _Loaded,
    prompts: Sequence[Prompt],
    detections: Detections | None,
    cache: EmbeddingCache | None,
) -> dict[str, Any]:
    """A line of the journal: objects with their answers, skipped annotations, and what AP needs."""
    if cache is None:
        subject.predictor.set_image(loaded.pixels)
    else:
        cache.set_image(loaded.pixels, loaded.sha256)
    size = (loaded.pixels.shape[0], loaded.pixels.shape[1])
    objects: list[dict[str, Any]] = []
    skipped: list[Skipped] = []
    truths: list[dict[str, Any]] = []
    for annotation in loaded.annotations:
        if isinstance(annotation, Skipped):
            skipped.append(annotation)
            continue
        try:
            truth = truth_of(annotation, size)
        except (ValueError, OSError) as error:
            skipped.append(Skipped(annotation.name, str(error)))
            continue
        try:
            answers = {prompt.name: prompt.ask(subject.predictor, truth) for prompt in prompts}
        except PromptError as error:  # a box far outside the photo; what a caller could do about it is cut off
            skipped.append(Skipped(annotation.name, str(error).partition(";")[0]))
            continue
        told = {name: answer.as_dict() for name, answer in answers.items()}
        objects.append({"id": annotation.name, "area": truth.area, "crowd": annotation.crowd, "answers": told})
        if detections is not None:
            truths.append(as_coco(annotation, truth))
    record: dict[str, Any] = {"objects": objects, "skipped": [[entry.name, entry.reason] for entry in skipped]}
    if detections is not None:
        found = answers_to(subject.predictor, detections.of_photo.get(loaded.photo.name, ()))
        record |= {"size": size, "truths": truths, "detections": found}
    return record
