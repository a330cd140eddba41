"""The contract of a wrapper of the store, as tests. The store behaves with it as without it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import date, timedelta
from typing import Any, cast

from jimsapi.asgi.testing import TestClient
from jimsapi.stores.memory import MemoryStore
from jimsapi.testing.contract import (
    BuiltContract,
    CapturedOutput,
    DoesNotApply,
    cancel_in_mid_call,
    nothing_left,
    outcome,
    within,
)
from jimsapi.testing.store.contract import ThreadStoreContract
from jimsapi.testing.store.samples import OWNER, completed, make_event, make_plan, take_turn
from jimsapi.threads.errors import StoreUnavailable
from jimsapi.threads.facts import ForkPlan, Rating, ThreadChange, ThreadPlan
from jimsapi.threads.ids import uuid7
from jimsapi.threads.run import ContextLimits, Latest, ThreadQuery
from jimsapi.threads.search import SearchQuery
from jimsapi.threads.store import ThreadStore
from jimsapi.threads.usage import UsageHolder

MESSAGE = "Ann's cat is called Mephistopheles"
"""Text that must not appear in a log."""


class StoreWrapperContract(BuiltContract, ThreadStoreContract):
    """Derive a class from this one in a test module, and declare the plugin and its options:

        class TestDeletions(StoreWrapperContract):
            distribution = "jimsapi-deletions"
            settings = {}
            unconfigured = DoesNotApply("it always logs deletions")

    pytest then runs every case against the installed plugin. They include those of `ThreadStoreContract`, with a memory
    store that is wrapped, so they also need hypothesis. What the wrapper adds is for tests of your own.
    """

    hook = "jimsapi_store_wrapper"
    reopen_store = DoesNotApply("the memory store that is wrapped loses everything when it is closed")

    @asynccontextmanager
    async def open_store(self) -> AsyncIterator[ThreadStore]:
        """Open a memory store, and wrap it as the server does."""
        async with self.wrapped(MemoryStore()) as store:
            yield store

    @asynccontextmanager
    async def wrapped(self, inner: MemoryStore) -> AsyncIterator[ThreadStore]:
        """Open a store, and wrap it as the server does, which sets the attributes of the store inside."""
        async with self.opened() as wrapper, inner:
            yield cast(ThreadStore, _Wrapped(wrapper(inner), inner))

    async def test_errors_of_the_store_are_raised(self) -> None:
        async with self.wrapped(_Unavailable()) as store:
            for name, arguments in CALLS.items():
                raised = await outcome(getattr(store, name)(*arguments))
                assert raised is UNAVAILABLE, f"{name} of the store raised StoreUnavailable, its wrapper {raised!r}"

    async def test_a_call_that_is_cancelled_ends(self) -> None:
        async with nothing_left(), self.wrapped(_Slow()) as store:
            await cancel_in_mid_call(lambda: store.accept(make_plan()))
            await within(take_turn(store, "hi"))

    async def test_neither_messages_nor_secrets_are_logged(self, shown: CapturedOutput) -> None:
        async with self.open_store() as store:
            await take_turn(store, MESSAGE)
            shown.add(store)
        shown.assert_contains_none_of([MESSAGE, *self.secrets])

    async def test_a_server_answers_with_it(self) -> None:
        body = {"contact_id": "ann", "message": "hi"}
        async with TestClient(self.api()) as client:
            for created in (True, False):
                answer = await client.post("/api/v1/chat", json=body)
                assert answer.status_code == 200, answer.text
                assert answer.json()["created_new_thread"] is created
            assert (await client.delete("/api/v1/contacts?contact_id=ann")).status_code == 204
            assert (await client.post("/api/v1/chat", json=body)).json()["created_new_thread"]

    async def use(self, wrapper: Callable[[ThreadStore], ThreadStore]) -> None:
        await within(take_turn(wrapper(MemoryStore()), "hi"))


class _Wrapped:
    """Reads the wrapper of a store, and sets attributes of the store inside."""

    def __init__(self, outer: ThreadStore, inner: ThreadStore) -> None:
        object.__setattr__(self, "outer", outer)
        object.__setattr__(self, "inner", inner)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.outer, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.inner, name, value)

    def __repr__(self) -> str:
        return repr(self.outer)


UNAVAILABLE = StoreUnavailable("the disk is full")
CALLS: Mapping[str, tuple[Any, ...]] = {
    "ping": (),
    "accept": (make_plan(),),
    "start": (uuid7(), OWNER, [], ContextLimits()),
    "finish": (uuid7(), OWNER, completed(make_event())),
    "append": (uuid7(), None, [make_event()]),
    "cancel": (uuid7(),),
    "heartbeat": (OWNER, [uuid7()]),
    "recover": (OWNER,),
    "adopt": (OWNER,),
    "run": (uuid7(), None, None),
    "runs": (None, 10, None),
    "contacts": (None, 10, None),
    "find_thread": (ThreadQuery("ann", (Latest(),), None),),
    "events_by_id": (uuid7(), [uuid7()]),
    "thread": (uuid7(), None),
    "threads": ("ann", 10, None),
    "search": (SearchQuery(()), "ann", 10, None),
    "events": (uuid7(), None, 10, None),
    "load_events": (uuid7(), None, 10),
    "create": (ThreadPlan(thread_id=uuid7(), contact_id="ann", events=(), thread_config=b"{}"),),
    "fork": (ForkPlan(thread_id=uuid7(), parent_id=uuid7(), acting_for=None),),
    "change_thread": (uuid7(), None, ThreadChange(title="Cats")),
    "rate": (uuid7(), None, uuid7(), Rating(1)),
    "feedback": (uuid7(), None),
    "summaries": ([uuid7()],),
    "thread_usage": (uuid7(), None),
    "usage": (UsageHolder("ann"), date(2026, 1, 1), date(2026, 1, 31)),
    "add_usage": (uuid7(), "ann", uuid7(), [make_event("model.usage")]),
    "delete_thread": (uuid7(), None),
    "delete_contact": ("ann",),
    "expire": (timedelta(days=1),),
    "purge": (timedelta(days=1),),
}
"""Arguments for each method of a store."""


class _Unavailable(MemoryStore):
    """A store whose methods raise `UNAVAILABLE`."""

    def __getattribute__(self, name: str) -> Any:
        if name not in CALLS:
            return super().__getattribute__(name)

        async def fail(*_: object) -> None:
            raise UNAVAILABLE

        return fail


class _Slow(MemoryStore):
    """A store that waits before it accepts a message."""

    async def accept(self, plan: Any) -> Any:
        for _ in range(5):
            await asyncio.sleep(0)
        return await super().accept(plan)
