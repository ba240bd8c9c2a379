"""How good the masks are: measured against annotated photos."""
