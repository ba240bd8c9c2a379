"""The folder that an export writes: its manifest, how it gets in place, and the predictor over it."""
