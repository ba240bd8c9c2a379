"""What of ExecuTorch runs a graph: XNNPACK on the CPU, Apple's Core ML, or Vulkan on a GPU.

ExecuTorch's package for Linux writes files for all three and runs XNNPACK's only. Imports no backend.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Delegate:
    """One of ExecuTorch's delegates.

    Attributes:
        name: of the option ``delegate``, and in a file's metadata.
        title: for people.
        backend: as files call it.
        needs: what runs its files, for those that are written here and not run.
    """

    name: str
    title: str
    backend: str
    needs: str = ""

    @property
    def not_run(self) -> str | None:
        """Why nobody judges the masks of its files; None if they are run here."""
        if not self.needs:
            return None
        return f"compile-only: files for ExecuTorch's {self.title} delegate need {self.needs} and were not run"


XNNPACK = Delegate("xnnpack", "XNNPACK", "XnnpackBackend")
COREML = Delegate("coreml", "Core ML", "CoreMLBackend", "macOS or iOS")
VULKAN = Delegate("vulkan", "Vulkan", "VulkanBackend", "an app whose ExecuTorch is built with Vulkan")
DELEGATES = {delegate.name: delegate for delegate in (XNNPACK, COREML, VULKAN)}
