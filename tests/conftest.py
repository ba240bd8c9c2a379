"""What holds for all tests: threads, and no clock."""

import os

from hypothesis import settings

# Several workers share the cores: each computes with one thread, and so do the programs that its tests start.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when PyTorch is imported

# A deadline for each example would measure the machine's other work: a busy core once took 450 ms for what takes 0.4.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
