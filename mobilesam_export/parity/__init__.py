"""Does an artifact compute what the reference computes? Cases, metrics, gates with their reasons, and the report."""
