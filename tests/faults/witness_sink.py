"""A plugin with a sink that writes down the events it gets, so that a test can count them."""

import os
from collections import Counter
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


    @hookimpl
    def jimsapi_event_sink():
        return Witness(os.environ["{JOURNAL}"])
'''


class WitnessSink:
    """The plugin in a folder, and the journal that its sinks write."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._journal = folder / "sink.journal"
        self.env = {JOURNAL: str(self._journal)}
        install(folder, "jimsapi-witness", CODE)

    def delivered(self) -> Counter[str]:
        """How often each event was delivered. The line that a kill cut is no event."""
        lines = self._journal.read_text().split(os.linesep) if self._journal.exists() else []
        return Counter(line for line in lines if len(line) == 32)
