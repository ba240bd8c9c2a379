"""What a model with another image encoder than MobileSAM's can be exported as."""

from collections.abc import Mapping

from timm.models.tiny_vit import TinyVit

from mobilesam_export.errors import ExportError
from mobilesam_export.jobs import Job
from mobilesam_export.rewrites.folded_conv_net import has_conv_form
from mobilesam_export.targets import named, names
from reference.mobile_sam import MobileSam


def refuse_other_encoders(sam: MobileSam, jobs: Mapping[str, Job]) -> None:
    """Refuse, before any work, targets that have no form of the model, and precisions that are about TinyViT's layers.

    Raises:
        ExportError: saying what there is instead.
    """
    if isinstance(sam.image_encoder.body, TinyVit):
        return
    folded = has_conv_form(sam.image_encoder)
    fit = [name for name in names() if named(name).takes_any_encoder or (folded and named(name).takes_conv_nets)]
    if others := [name for name in jobs if name not in fit]:
        raise ExportError(
            f"got {sam.family} for {' and '.join(others)}, expected a TinyViT there: this image encoder has no "
            f"form of it; choose --target {','.join(fit)}"
        )
    if not folded:
        return
    for name, job in jobs.items():
        known = [precision.name for precision in job.target.precisions if not precision.for_transformers]
        if job.precision not in known:
            raise ExportError(
                f"got precision {job.precision} of {name} for {sam.family}, expected {', '.join(known)}; the others "
                "are about the layers of MobileSAM's TinyViT, which this image encoder does not have"
            )
