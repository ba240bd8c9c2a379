"""What a user of the export is told: one line that says what was got, what was expected and what to do next."""


class ExportError(Exception):
    """An export, a bundle or a request that cannot go on; the message is the whole explanation."""


class ParityError(ExportError):
    """Artifacts that do not compute what the reference does; the message lists every failure."""
