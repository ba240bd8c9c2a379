"""What a run on SA-1B costs, before it is started.

    python -m reference.training plan --teacher vit_h --epochs 8

Disk follows from the formats. Hours follow from the work in multiply-accumulates and a sustained rate that you should
replace by your own measurement (`--teraflops`): the default is an assumption, not a measurement.
"""

from __future__ import annotations

from dataclasses import dataclass

SA1B_IMAGES = 11_185_362
EMBEDDING_BYTES = 256 * 64 * 64 * 2  # float16
JPEG_BYTES = 300_000  # a resized picture at quality 95, typical
SHARES = (0.01, 0.1, 1.0)
# Of the encoder at 1024, published figures of the SAM family.
TEACHER_GMACS = {"vit_h": 2976.0, "vit_l": 1491.0, "vit_b": 486.0}
STUDENT_GMACS = 42.0  # TinyViT-5M at 1024 with the neck
DECODED_AT_TERAFLOPS = 150.0  # an A100-class GPU in bf16 at half of its peak


@dataclass(frozen=True)
class Cost:
    """Cost of one share of SA-1B."""

    images: int
    disk_gb: float
    embed_gpu_hours: float
    distill_gpu_hours: float


def cost(share: float, teacher: str = "vit_h", epochs: int = 8, teraflops: float = DECODED_AT_TERAFLOPS) -> Cost:
    """Estimate disk and GPU hours.

    Args:
        share: Of SA-1B's images.
        teacher: vit_h, vit_l or vit_b.
        epochs: Of `distill`; a step is three forward passes' work.
        teraflops: Sustained rate of one GPU, 2 a multiply-accumulate.
    """
    images = round(SA1B_IMAGES * share)
    seconds_a_gmac = 2e9 / (teraflops * 1e12)
    return Cost(
        images,
        images * (EMBEDDING_BYTES + JPEG_BYTES) / 1e9,
        images * TEACHER_GMACS[teacher] * seconds_a_gmac / 3600,
        images * epochs * 3 * STUDENT_GMACS * seconds_a_gmac / 3600,
    )


def table(teacher: str = "vit_h", epochs: int = 8, teraflops: float = DECODED_AT_TERAFLOPS) -> str:
    """The plan as text."""
    lines = [
        f"teacher {teacher}, {epochs} epochs, {teraflops:.0f} sustained Tflop/s a GPU (assumed; measure yours)",
        f"{'SA-1B':>6} {'images':>11} {'disk GB':>9} {'embed h: 1 GPU':>15} {'8 GPUs':>8} {'distill h: 1 GPU':>17} "
        f"{'8 GPUs':>8}",
    ]
    for share in SHARES:
        c = cost(share, teacher, epochs, teraflops)
        lines.append(
            f"{share:>6.0%} {c.images:>11,} {c.disk_gb:>9,.0f} {c.embed_gpu_hours:>15,.1f} "
            f"{c.embed_gpu_hours / 8:>8,.1f} "
            f"{c.distill_gpu_hours:>17,.1f} {c.distill_gpu_hours / 8:>8,.1f}"
        )
    return "\n".join(lines)
