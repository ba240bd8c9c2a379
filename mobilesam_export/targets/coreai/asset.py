"""Open a saved ``.aimodel``, and say in one line what is missing or damaged.

An asset is a folder: ``main.mlirb`` is the program with its weights, ``main.hash`` its sha256, ``metadata.json`` what
readers show. The hash is looked at before Apple's parser sees a byte.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from mobilesam_export.errors import ExportError
from mobilesam_export.targets.coreai.backend import load_coreai, quiet
from mobilesam_export.targets.coreai.convert import FUNCTIONS
from mobilesam_export.targets.coreai.metadata import FILE as METADATA_FILE
from mobilesam_export.targets.coreai.metadata import read_entries

_PROGRAM, _HASH = "main.mlirb", "main.hash"


def open_asset(path: Path) -> Any:
    """The ``AIModelAsset`` of a saved asset.

    Raises:
        ExportError: it is no asset, damaged, or has other functions.
        ImportError: Apple's packages are not installed.
    """
    load_coreai()
    from coreai.authoring import AIModelAsset

    path = Path(path)
    if missing := [name for name in (_PROGRAM, _HASH, METADATA_FILE) if not (path / name).is_file()]:
        raise ExportError(
            f"got {path}, expected an .aimodel folder with {', '.join(missing)}; copy the whole folder or export again"
        )
    with (path / _PROGRAM).open("rb") as program:
        found = hashlib.file_digest(program, "sha256").digest()
    if (path / _HASH).read_bytes() != found:
        raise ExportError(f"{path / _PROGRAM} is truncated or changed (another sha256); copy it again or export again")
    read_entries(path)  # before Apple's reader does
    try:
        with quiet():
            asset = AIModelAsset.load(path)
            summary = asset.summary(include_statistics=False)
    except RuntimeError as error:
        reason = (str(error).strip() or "no message").splitlines()[0]
        raise ExportError(f"{path} is damaged ({reason}); copy it again or export again") from error
    functions = summary.function_names if summary else []
    if sorted(functions) != sorted(FUNCTIONS):
        raise ExportError(
            f"{path} has the functions {', '.join(functions) or 'none'}, expected {' and '.join(FUNCTIONS)}; "
            "export it with --target coreai"
        )
    return asset
