"""Prometheus metrics of files."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, Metric

from jimsapi_files.service import Files


class FilesCollector:
    """Collects the counters of an app's files when the metrics are read."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        yield CounterMetricFamily("files_received", "Files that were uploaded and stored.", self._files.received)
        yield CounterMetricFamily(
            "files_received_bytes", "Bytes of the files that were uploaded and stored.", self._files.received_bytes
        )
