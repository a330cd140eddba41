"""The observer. It sends one UDP packet for each record."""

import asyncio
from typing import Self

from jimsapi.plugins import AdmissionRecord, CommitRecord, RequestRecord, RunRecord


class StatsdObserver:
    """Sends counters and timers (https://github.com/statsd/statsd/blob/master/docs/metric_types.md).

    Sending never waits: asyncio sends the packet at once or buffers it. If no server listens, the packets are lost.
    """

    def __init__(self, host: str, port: int, prefix: str) -> None:
        self._address = host, port
        self._prefix = prefix

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, remote_addr=self._address)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._transport.close()

    def on_request(self, record: RequestRecord) -> None:
        """Count requests by status, and send their duration. Probes are left out."""
        if not record.probe:
            self._send(_count(f"requests.{record.status}"), _time("requests", record.duration))

    def on_admission(self, record: AdmissionRecord) -> None:
        """Count what auth providers decided."""
        self._send(_count(f"admissions.{record.provider}.{record.outcome}"))

    def on_run(self, record: RunRecord) -> None:
        """Count runs by status, and send how long they waited and took."""
        self._send(
            _count(f"runs.{record.status.value}"), _time("runs", record.duration), _time("runs.waited", record.waited)
        )

    def on_commit(self, record: CommitRecord) -> None:
        """Count transactions, and send their duration."""
        name = "commits.failed" if record.failed else "commits.done"
        self._send(_count(name), _time("commits", record.duration))

    def _send(self, *metrics: str) -> None:
        self._transport.sendto("\n".join(f"{self._prefix}.{metric}" for metric in metrics).encode())


def _count(name: str) -> str:
    return f"{name}:1|c"


def _time(name: str, seconds: float) -> str:
    return f"{name}:{seconds * 1000:.3f}|ms"
