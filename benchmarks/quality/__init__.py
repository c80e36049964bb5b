"""Measures the bars of docs/quality.md: `python -m benchmarks.quality`."""
