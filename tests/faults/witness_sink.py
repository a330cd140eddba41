"""A plugin with two sinks that write down the events they get, so that a test can count them: one of each kind."""

import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.plugins.distributions import install

JOURNAL = "FAULTS_SINK_JOURNAL"
CODE = f'''
    import os

    from jimsapi.plugins.hooks import hookimpl


    class Witness:
        name = "witness"

        def __init__(self, path):
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

        async def deliver(self, events):
            os.write(self._file, b"".join(event.event_id.hex.encode() + b"\\n" for event in events))


    class DurableWitness:
        name = "durable witness"
        durable = True

        def __init__(self, path):
            self._down = path + ".down"
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

        async def deliver(self, events):
            if os.path.exists(self._down):
                raise ConnectionError("the witness is down")
            lines = (f"{{event.thread_id.hex}} {{event.event_id.hex}}\\n" for event in events)
            os.write(self._file, "".join(lines).encode())


    @hookimpl
    def jimsapi_event_sink():
        return Witness(os.environ["{JOURNAL}"])
'''
DURABLE = f'''
    import os

    from jimsapi.plugins.hooks import hookimpl
    from jimsapi_witness import DurableWitness


    @hookimpl
    def jimsapi_event_sink():
        return DurableWitness(os.environ["{JOURNAL}"] + ".durable")
'''


class WitnessSink:
    """The plugins in a folder, and the journals that their sinks write."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._journal = folder / "sink.journal"
        self._durable = folder / "sink.journal.durable"
        self._down = folder / "sink.journal.durable.down"
        self.env = {JOURNAL: str(self._journal)}
        install(folder, "jimsapi-witness", CODE)
        install(folder, "jimsapi-durable-witness", DURABLE)

    def delivered(self) -> Counter[str]:
        """How often each event was delivered to the best-effort sink. The line that a kill cut is no event."""
        lines = self._journal.read_text().split(os.linesep) if self._journal.exists() else []
        return Counter(line for line in lines if len(line) == 32)

    def set_down(self, down: bool) -> None:
        """Let the durable sink fail, or work again."""
        if down:
            self._down.touch()
        else:
            self._down.unlink(missing_ok=True)

    def durably_delivered(self) -> Mapping[str, Sequence[str]]:
        """The events of each thread that were delivered to the durable sink, each where it came first."""
        threads: defaultdict[str, dict[str, None]] = defaultdict(dict)
        lines = self._durable.read_text().split(os.linesep) if self._durable.exists() else []
        for line in lines:
            if len(line) == 65:
                thread_id, _, event_id = line.partition(" ")
                threads[thread_id].setdefault(event_id)
        return {thread_id: list(events) for thread_id, events in threads.items()}
