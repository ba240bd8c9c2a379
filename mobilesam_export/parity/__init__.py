"""Do the artifacts compute what the reference computes: cases, metrics, gates, report."""
