"""A replica link in many versions: one that keeps the contract, and some that each break one thing.

The tests install this module as the distribution `acme-post`; the option `--post-version` chooses.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, ClassVar, Self

from jimsapi import Options, Secret, hookimpl, option

logger = logging.getLogger("acme_post")

Answer = Callable[[bytes], Awaitable[bytes | None]]
Receive = Callable[[bytes], None]


class PostOptions(Options, prefix="post"):
    office: Secret | None = option(help="Which office carries the letters.")
    version: str = option("Sound", help="The class that is built.")


class Office:
    """What carries letters between the links of this process."""

    open = True
    addresses: ClassVar[dict[str, Answer]] = {}
    subscribers: ClassVar[dict[str, Receive]] = {}
    number = 0


@contextmanager
def closed_office() -> Iterator[None]:
    Office.open = False
    yield
    Office.open = True


class Sound:
    """Passes questions to the other links of this process."""

    name = "post"

    def __init__(self, office: Secret) -> None:
        self.office = office
        Office.number += 1
        self.address = f"post {Office.number}"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        Office.addresses.pop(self.address, None)
        Office.subscribers.pop(self.address, None)

    async def listen(self, receive: Receive) -> None:
        Office.subscribers[self.address] = receive

    async def publish(self, notice: bytes) -> None:
        if Office.open:
            for address, receive in Office.subscribers.items():
                if address != self.address:
                    receive(notice)

    async def serve(self, answer: Answer) -> None:
        Office.addresses[self.address] = answer

    async def ask(self, question: bytes, replica: str | None) -> tuple[bytes, str] | None:
        await asyncio.sleep(0)
        asking = [asyncio.ensure_future(self.letter(address, question)) for address in self.asked(replica)]
        try:
            for answer in asyncio.as_completed(asking):
                if (found := await answer) is not None:
                    return found
            return None
        finally:
            for one in asking:
                one.cancel()

    def asked(self, replica: str | None) -> list[str]:
        if not Office.open:
            raise ConnectionError("the office is closed")
        others = [address for address in Office.addresses if address != self.address]
        return [address for address in others if replica in (None, address)]

    async def letter(self, address: str, question: bytes) -> tuple[bytes, str] | None:
        answer = await Office.addresses[address](question)
        return None if answer is None else (answer, address)


class Nameless(Sound):
    name = ""


class LeavesATask(Sound):
    async def serve(self, answer: Answer) -> None:
        await super().serve(answer)
        self.task = asyncio.create_task(asyncio.sleep(60))


class AsksTheFirst(Sound):
    def asked(self, replica: str | None) -> list[str]:
        return super().asked(replica)[:1]


class AsksAll(Sound):
    def asked(self, replica: str | None) -> list[str]:
        return super().asked(None)[:: -1 if replica else 1]


class Strips(Sound):
    async def letter(self, address: str, question: bytes) -> tuple[bytes, str] | None:
        found = await super().letter(address, question)
        return None if found is None else (found[0].strip(b"\r\n"), address)


class CutsLong(Sound):
    async def letter(self, address: str, question: bytes) -> tuple[bytes, str] | None:
        found = await super().letter(address, question)
        return None if found is None else (found[0][:65536], address)


class CutsQuestions(Sound):
    async def letter(self, address: str, question: bytes) -> tuple[bytes, str] | None:
        return await super().letter(address, question[:32])


class OneAfterAnother(Sound):
    def __init__(self, office: Secret) -> None:
        super().__init__(office)
        self.busy = asyncio.Lock()

    async def letter(self, address: str, question: bytes) -> tuple[bytes, str] | None:
        async with self.busy:
            return await super().letter(address, question)


class MixesUp(Sound):
    last: tuple[bytes, str] | None = None

    async def letter(self, address: str, question: bytes) -> tuple[bytes, str] | None:
        self.last = await super().letter(address, question) or self.last
        await asyncio.sleep(0.002)
        return self.last


class AnswersForOthers(Sound):
    async def letter(self, address: str, question: bytes) -> tuple[bytes, str] | None:
        return await super().letter(address, question) or (b"", address)


class AsksItself(Sound):
    def asked(self, replica: str | None) -> list[str]:
        super().asked(replica)
        return [address for address in Office.addresses if replica in (None, address)]


class LosesPlaces(Sound):
    def __init__(self, office: Secret) -> None:
        super().__init__(office)
        self.places = asyncio.Semaphore(10)

    async def ask(self, question: bytes, replica: str | None) -> tuple[bytes, str] | None:
        await self.places.acquire()
        found = await super().ask(question, replica)
        self.places.release()
        return found


class NeverLeaves(Sound):
    async def __aexit__(self, *_: object) -> None:
        pass


class AnswersInATask(Sound):
    async def letter(self, address: str, question: bytes) -> tuple[bytes, str] | None:
        task = asyncio.create_task(super().letter(address, question))
        await asyncio.wait([task])
        return task.result()


class GivesUp(Sound):
    given_up = False

    def asked(self, replica: str | None) -> list[str]:
        self.given_up = self.given_up or not Office.open
        return [] if self.given_up else super().asked(replica)


class PublishesToItself(Sound):
    async def publish(self, notice: bytes) -> None:
        await super().publish(notice)
        Office.subscribers[self.address](notice)


class PublishesTwice(Sound):
    async def publish(self, notice: bytes) -> None:
        await super().publish(notice)
        await super().publish(notice)


class PublishesToOne(Sound):
    async def publish(self, notice: bytes) -> None:
        next(receive for address, receive in Office.subscribers.items() if address != self.address)(notice)


class StripsNotices(Sound):
    async def publish(self, notice: bytes) -> None:
        await super().publish(notice.strip(b"\r\n"))


class PublishesLate(Sound):
    async def publish(self, notice: bytes) -> None:
        self.waiting = [*getattr(self, "waiting", []), notice]
        while Office.open and self.waiting:
            await super().publish(self.waiting.pop(0))


class LogsAnswers(Sound):
    async def ask(self, question: bytes, replica: str | None) -> tuple[bytes, str] | None:
        found = await super().ask(question, replica)
        logger.info("answer: %s", found)
        return found


class ShowsItsSecret(Sound):
    def __repr__(self) -> str:
        return f"post of {self.office.reveal()}"


@asynccontextmanager
async def outage() -> AsyncIterator[None]:
    with closed_office():
        yield


@hookimpl
def jimsapi_options() -> type[Options]:
    return PostOptions


@hookimpl
def jimsapi_replica_link(settings: Any) -> Any:
    options = settings.get(PostOptions)
    if options.version == "AlwaysThere":
        return Sound(Secret("none"))
    return None if options.office is None else globals()[options.version](options.office)
