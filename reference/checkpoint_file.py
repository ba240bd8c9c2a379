"""Files of weights: PyTorch's (plain tensors only, nothing in them is ever run) and safetensors."""

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from reference.errors import CheckpointError


def read_state(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a ``.safetensors`` or PyTorch file without running anything in it.

    Returns:
        the state dict, and a safetensors file's metadata.

    Raises:
        CheckpointError: missing, truncated, no checkpoint, or not a plain dict of tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f'there is no checkpoint at {path}; give a path to mobile_sam.pt, "official" or "demo"')
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, "pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{path} is truncated or no safetensors file ({error}); fetch it again") from error
    return _read_pytorch(path), {}


def _read_pytorch(path: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # on damaged bytes torch raises ten kinds, from KeyError to struct.error
        if isinstance(error, UnpicklingError) and "GLOBAL" in str(error):
            raise CheckpointError(
                f"{path} holds code besides weights and was not opened; expected a plain dict of tensors: save "
                "model.state_dict() or a .safetensors file"
            ) from error
        # torch explains an UnpicklingError with the advice to switch its safety off: not passed on.
        reason = "" if isinstance(error, UnpicklingError) else str(error).partition("\n")[0]
        raise CheckpointError(
            f"{path} is truncated or no PyTorch checkpoint ({reason or type(error).__name__}); fetch it again"
        ) from error
    if isinstance(state, dict) and isinstance(state.get("model"), dict):
        state = state["model"]
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise CheckpointError(f"{path} holds a {type(state).__name__}, expected a dict from names to tensors")
    return state


def write_state(state: Mapping[str, Tensor], path: str | Path, metadata: Mapping[str, str]) -> None:
    """Write CPU tensors whole or not at all, by the path's ending as safetensors (with metadata) or PyTorch.

    Raises:
        OSError: if the disk is full or the place cannot be written; what was there stays.
    """
    path = Path(path)
    part = path.with_name(path.name + ".part")
    try:
        if path.suffix == ".safetensors":
            save_file(dict(state), part, dict(metadata))
        else:
            torch.save(dict(state), part)
        part.replace(path)
    except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors have their own for a full disk
        raise OSError(f"could not write {path} ({error}); free some disk or give another place") from error
    finally:
        part.unlink(missing_ok=True)
