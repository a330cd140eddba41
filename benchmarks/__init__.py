"""Measurements of what jimsapi costs, beside other frameworks and jims-api: `python -m benchmarks`."""
