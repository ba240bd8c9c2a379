"""What of a graph a delegate has taken over, as ExecuTorch counts it and as a written file says."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobilesam_export.errors import ExportError


@dataclass(frozen=True)
class Partition:
    """How a graph is divided.

    Attributes:
        delegated_subgraphs: parts that the delegate runs; each more is a way out of its layout and back.
        delegated_operators: in them.
        outside: operators that ExecuTorch's portable kernels would run, one thread and no vectors.
    """

    delegated_subgraphs: int
    delegated_operators: int
    outside: tuple[str, ...]

    def problem(self, delegate: str) -> str | None:
        """Why this is not one partition of the delegate of that name, or None."""
        if self.delegated_subgraphs == 1 and not self.outside:
            return None
        left = f", outside are {', '.join(self.outside)}" if self.outside else ""
        return f"got {self.delegated_subgraphs} {delegate} partitions, expected 1 with nothing outside{left}"


def partition_of(lowered: Any) -> Partition:
    """Count in a lowered ``torch.fx.GraphModule``.

    ``getitem`` takes one of a delegate's outputs and is no operator.
    """
    from executorch.devtools.backend_debug import get_delegation_info

    info = get_delegation_info(lowered)
    outside = {
        name: operator.non_delegated
        for name, operator in info.delegation_by_operator.items()
        if operator.non_delegated and name != "getitem"
    }
    told = tuple(name if count == 1 else f"{count} {name}" for name, count in sorted(outside.items()))
    return Partition(info.num_delegated_subgraphs, info.num_delegated_nodes, told)


def program_of(path: Path) -> Any:
    """The ``Program`` of ExecuTorch's schema that a file has inside.

    Raises:
        ExportError: it is damaged or no ExecuTorch file.
    """
    from executorch.exir._serialize._program import deserialize_pte_binary

    try:
        return deserialize_pte_binary(path.read_bytes()).program
    except FileNotFoundError as error:
        raise ExportError(f"there is no {path}; export it again with --target executorch") from error
    except Exception as error:  # whatever flatc and the schema's classes raise
        raise ExportError(f"{path} is damaged or no ExecuTorch file; export it again with --overwrite") from error


def calls_of(path: Path) -> dict[str, Any]:
    """What ``forward`` of a written file calls: partitions of delegates, and operators outside."""
    plan = next(plan for plan in program_of(path).execution_plan if plan.name == "forward")
    kinds = [type(instruction.instr_args).__name__ for chain in plan.chains for instruction in chain.instructions]
    return {
        "backends": sorted({delegate.id for delegate in plan.delegates}),
        "partitions": kinds.count("DelegateCall"),
        "outside": [f"{operator.name}.{operator.overload}" for operator in plan.operators],
    }
