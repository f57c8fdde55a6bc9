"""Experiments on the service under stress. Run one with `python -m benchmarks.reliability NAME`."""
