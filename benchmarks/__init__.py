"""Measurements of what jimsapi costs. Each module with a `main` is a command: `python -m benchmarks.floor`."""
