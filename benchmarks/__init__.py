"""Measurements, each run by hand: ``python -m benchmarks.cpu_latency`` or ``python benchmarks/cpu_latency.py``."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
