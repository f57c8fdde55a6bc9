"""What the service does under stress, measured: `python -m benchmarks.reliability NAME`."""
