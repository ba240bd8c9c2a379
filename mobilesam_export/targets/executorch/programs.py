"""Open written files with ExecuTorch's own runtime."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mobilesam_export.chatter import without_log_of, without_native_chatter
from mobilesam_export.errors import ExportError

METHOD = "forward"  # what an app's Module.forward runs


def load(path: Path) -> Any:
    """The ``executorch.runtime.Program`` of a file.

    Raises:
        ExportError: it is missing, damaged or no ExecuTorch file.
    """
    with without_native_chatter(), without_log_of("torch.utils._pytree"):
        from executorch.runtime import Runtime, Verification

        if not path.is_file():
            raise ExportError(f"there is no {path}; export it again with --target executorch")
        try:
            return Runtime.get().load_program(path, verification=Verification.InternalConsistency)
        except RuntimeError as error:
            raise ExportError(f"{path} is damaged or no ExecuTorch file; export it again with --overwrite") from error


def method(program: Any, name: str, path: Path) -> Any:
    """A method of a program, with what XNNPACK makes of its weights.

    Raises:
        ExportError: there is none of that name, or it does not load.
    """
    if name not in program.method_names:
        raise ExportError(f"{path} has the methods {', '.join(sorted(program.method_names))}, expected {name}")
    try:
        with without_native_chatter():
            return program.load_method(name)
    except RuntimeError as error:
        raise ExportError(f"{path} is damaged; export it again with --overwrite") from error


def constant(program: Any, name: str) -> Any:
    """What a method without inputs returns: a string, or a list of them.

    Raises:
        LookupError: there is none of that name.
    """
    if name not in program.method_names:
        raise LookupError(f"no method {name}")
    answer: Sequence[Any] = program.load_method(name).execute([])
    return answer[0] if name == "metadata" else list(answer)
