"""What every request of ours has, and `without.py` can take away for a measurement."""

FEATURES = ("metrics", "request id", "log line", "limits")
