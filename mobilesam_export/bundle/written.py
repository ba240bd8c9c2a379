"""What written files say of themselves, and whether a manifest says the same."""

import json
from pathlib import Path

from mobilesam_export.bundle.described_contract import describe_contract
from mobilesam_export.bundle.manifest import TargetEntry
from mobilesam_export.contract import Written
from mobilesam_export.errors import ExportError
from mobilesam_export.targets import named


def read_written(entry: TargetEntry, directory: Path) -> Written:
    """Ports and metadata of a target's files.

    Raises:
        ExportError: a file is damaged, or what reads it is not installed.
    """
    encoder, decoder = directory / entry.path_of("encoder"), directory / entry.path_of("decoder")
    target = named(entry.target)
    try:
        return target.ports(encoder, decoder)
    except ImportError as error:
        raise ExportError(f"{target.name} files cannot be read here ({error}); {target.remedy}") from error
    except (LookupError, ValueError, TypeError, AttributeError) as error:  # a well-formed file of other things
        raise ExportError(
            f"{encoder.name} and {decoder.name} are not as this program writes them ({error!r}); export again"
        ) from error


def refuse_other_claims(entry: TargetEntry, directory: Path, image_size: int) -> None:
    """Raise an ExportError if a manifest says of files what they do not say of themselves.

    A manifest is text that anybody may edit, and its precision chooses the gates: a file that says it is float32 is
    not judged by the gates of a 4-bit palette.
    """
    written = read_written(entry, directory)
    told = written.metadata.get("precision")
    if told != entry.precision:
        raise ExportError(
            f"the manifest says that {entry.target} is {entry.precision}, its files say {told or 'nothing'}; "
            "do not use this bundle, export again"
        )
    described = describe_contract(image_size, written)
    for graph in ("encoder", "decoder"):
        for side in ("inputs", "outputs"):
            for port in described[graph][side]:
                if port not in entry.contract[graph][side]:
                    shown = f"{port['name']} {json.dumps(port['shape'])} {port['dtype']}"
                    raise ExportError(
                        f"the manifest says otherwise than {entry.target}'s {graph} file, whose {side} have {shown}; "
                        "do not use this bundle, export again"
                    )
    if described != entry.contract:
        raise ExportError(
            f"the manifest names ports that {entry.target}'s files do not have; do not use this bundle, export again"
        )
