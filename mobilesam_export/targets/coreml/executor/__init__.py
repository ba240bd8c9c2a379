"""Execute saved ML Programs (``.mlpackage``) with torch, on any platform.

It runs no Apple code. It proves the arithmetic of the package as written, every result rounded to the type the program
declares; it proves nothing about the Neural Engine's own accumulation, residency or speed.
"""

from mobilesam_export.targets.coreml.executor.program import MLProgram

__all__ = ["MLProgram"]
