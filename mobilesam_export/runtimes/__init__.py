"""Run what was written, one runtime a file."""
