"""Stores whose data is there again after they were closed, in many versions: one sound, the others lose something."""

from typing import Self

from jimsapi.stores import MemoryStore
from jimsapi.threads import RunStatus


class Sound(MemoryStore):
    def reopened(self) -> Self:
        again = type(self)()
        vars(again).update(vars(self))
        again.lose()
        return again

    def lose(self) -> None:
        """Lose what this version loses."""


class LosesEverything(Sound):
    def reopened(self) -> Self:
        return type(self)()


class LosesKeys(Sound):
    def lose(self) -> None:
        self._keys = {}


class LosesWhatWaits(Sound):
    def lose(self) -> None:
        for run in self._open.values():
            if run.status is RunStatus.QUEUED:
                run.status = RunStatus.CANCELLED
