"""The version, for ``--version`` and ``mobilesam_export.__version__``; ``pyproject.toml`` has the same."""

__version__ = "0.1.0"
