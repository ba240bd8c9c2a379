"""Which weights an export takes when the user names none."""

from reference.download import cached_official_checkpoint, official_checkpoint
from reference.errors import CheckpointError

DOWNLOAD_TIMEOUT_S = 5


def default_checkpoint() -> tuple[str, str | None]:
    """The official weights if they are cached or can be fetched, else the bundled ones.

    Returns:
        ``official`` or ``demo``, and for ``demo`` why the official ones could not be had.
    """
    try:
        official_checkpoint(timeout_s=DOWNLOAD_TIMEOUT_S)
    except CheckpointError as error:
        reason = f"{error.__cause__ or error}"
        return "demo", (
            f"the official checkpoint is not at {cached_official_checkpoint()} and could not be downloaded ({reason})"
        )
    return "official", None
