"""Links of replicas within one process, for tests."""

from collections.abc import Awaitable, Callable

Answer = Callable[[bytes], Awaitable[bytes | None]]


class Wire:
    """What connects the links of a test. `questions` and `answers` are those that were sent so far."""

    def __init__(self) -> None:
        self.serving: dict[str, Answer] = {}
        self.questions: list[bytes] = []
        self.answers: list[bytes] = []


class WireLink:
    """A link in one process."""

    def __init__(self, wire: Wire, name: str) -> None:
        self.name = name
        self.wire = wire

    async def serve(self, answer: Answer) -> None:
        self.wire.serving[self.name] = answer

    async def ask(self, question: bytes, replica: str | None) -> tuple[bytes, str] | None:
        self.wire.questions.append(question)
        asked = [name for name in self.wire.serving if name != self.name] if replica is None else [replica]
        answers = [(await self.wire.serving[name](question), name) for name in asked]
        found = next(((answer, name) for answer, name in answers if answer is not None), None)
        if found is None:
            return None
        self.wire.answers.append(found[0])
        return found
