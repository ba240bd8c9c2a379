"""Several workers share the cores: each computes with one thread, and so do the programs that its tests start."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when PyTorch is imported
