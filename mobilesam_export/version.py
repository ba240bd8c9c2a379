"""The version, for ``--version`` and ``mobilesam_export.__version__``; ``pyproject.toml`` reads it here."""

__version__ = "0.1.0"
