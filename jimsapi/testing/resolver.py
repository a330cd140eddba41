"""The contract of a `ThreadResolver`, as tests. A resolver that passes them does not mix up threads of contacts."""

import asyncio
import copy
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal
from uuid import UUID

import msgspec

from jimsapi.asgi.testing import TestClient
from jimsapi.runs.inbound import MAX_CONTACT_ID, Inbound
from jimsapi.runs.resolver import ResolverContext, declared_headers, takes_context
from jimsapi.stores.memory import MemoryStore
from jimsapi.testing.contract import (
    CapturedOutput,
    DoesNotApply,
    NamedContract,
    cancel_in_mid_call,
    needs,
    nothing_left,
    within,
)
from jimsapi.threads.errors import ThreadNotFound
from jimsapi.threads.event import message_event
from jimsapi.threads.identity import Identity
from jimsapi.threads.ids import uuid7
from jimsapi.threads.run import ByExternalId, ById, Latest, New, RunPlan
from jimsapi.threads.store import ThreadStore

MESSAGE = "Ann's cat is called Mephistopheles"
"""Text that must not appear in a log."""


class ThreadResolverContract(NamedContract):
    """Derive a class from this one in a test module, and declare the messages for which the resolver chooses a thread:

        class TestDaily(ThreadResolverContract):
            distribution = "jimsapi-daily"
            settings = {}
            unconfigured = DoesNotApply("it needs no configuration")
            claimed = (Inbound(contact_id="ann", message="hi"),)
            left = DoesNotApply("it leaves only messages that name a thread")

    pytest then runs every case against the installed plugin. Each of `claimed` may be the first message of its contact:
    the server must answer it. If the resolver declares headers, `request_headers` has their values.
    """

    hook = "jimsapi_thread_resolver"

    @cached_property
    def separates_contacts(self) -> Literal[True] | DoesNotApply:
        """Whether contacts never share a thread. Declare DoesNotApply(why) if they may."""
        return True

    @cached_property
    def claimed(self) -> Sequence[Inbound]:
        """Messages for which the resolver chooses a thread."""
        raise self.undeclared("claimed", "messages for which it chooses a thread")

    @cached_property
    def left(self) -> Sequence[Inbound] | DoesNotApply:
        """Messages that the resolver leaves to the next resolver."""
        raise self.undeclared("left", "messages that it leaves to the next resolver, or DoesNotApply(why)")

    identity = Identity("caller")
    """The identity of the caller, for a resolver that takes a `ResolverContext`."""

    request_headers: ClassVar[Mapping[str, str]] = {}
    """The headers of the request that brings the messages, for a resolver that declares headers."""

    def call(self, resolver: Any, inbound: Inbound) -> Awaitable[Any]:
        """Call the resolver as the server does. The contact has no thread yet."""
        resolve: Callable[..., Awaitable[Any]] = resolver.resolve
        if not takes_context(resolver):
            return resolve(inbound)
        declared = declared_headers(resolver)
        headers = {name.lower(): text for name, text in self.request_headers.items() if name.lower() in declared}
        return resolve(inbound, ResolverContext(self.identity, headers, MemoryStore(), inbound.contact_id))

    async def resolve(self, resolver: Any, inbound: Inbound) -> Any:
        """Return what the resolver returns. Fails if it takes too long."""
        return await within(self.call(resolver, inbound))

    async def test_it_returns_selectors_for_the_messages_that_it_claims(self) -> None:
        async with self.opened() as resolver:
            for number, inbound in enumerate(self.examples("claimed")):
                selectors = await self.resolve(resolver, inbound)
                assert isinstance(selectors, list | tuple), f"claimed[{number}] returned a {type(selectors).__name__}"
                assert selectors, f"claimed[{number}] returned no selector: no thread can match"
                assert all(isinstance(one, ById | ByExternalId | Latest | New) for one in selectors)

    @needs("left")
    async def test_it_leaves_the_others_to_the_next_resolver(self) -> None:
        async with self.opened() as resolver:
            for number, inbound in enumerate(self.examples("left")):
                assert await self.resolve(resolver, inbound) is None, f"left[{number}] was claimed"

    async def test_a_message_that_names_a_thread_enters_no_other_thread(self) -> None:
        named = uuid7()
        async with self.opened() as resolver:
            for inbound in self.claimed:
                selectors = await self.resolve(resolver, msgspec.structs.replace(inbound, thread_id=named))
                assert selectors is None or list(selectors) == [ById(named)], "it ignores the named thread"

    @needs("separates_contacts")
    async def test_two_contacts_never_share_a_thread(self) -> None:
        await self.expect_separate(["ann", "ben", "", "Ann", "ann ", "ann:ben", "漢"], at_once=False)

    @needs("separates_contacts")
    async def test_concurrent_messages_get_their_own_threads(self) -> None:
        await self.expect_separate([f"contact {number}" for number in range(50)], at_once=True)

    async def expect_separate(self, contacts: Sequence[str], *, at_once: bool) -> None:
        """Fail unless the same message of each of these contacts enters a separate thread."""
        async with self.opened() as resolver:
            for inbound in self.claimed:
                messages = [msgspec.structs.replace(inbound, contact_id=contact) for contact in contacts]
                calls = [self.resolve(resolver, message) for message in messages]
                resolved = await asyncio.gather(*calls) if at_once else [await call for call in calls]
                async with MemoryStore() as store:
                    threads = [
                        await _thread_of(store, message, selectors)
                        for message, selectors in zip(messages, resolved, strict=True)
                    ]
                found = [thread for thread in threads if thread is not None]
                assert len(set(found)) == len(found), "two contacts share a thread: put the contact into external ids"

    async def test_any_message_that_the_server_accepts_can_be_resolved(self) -> None:
        contacts = ["", "🦊 Ümläut", "x" * MAX_CONTACT_ID, "a'b\"c;--", "a\nb"]
        async with self.opened() as resolver:
            for inbound in self.claimed:
                for contact in contacts:
                    await self.resolve(resolver, msgspec.structs.replace(inbound, contact_id=contact))
                for text in ("", "x" * 100_000, "\u2028"):
                    await self.resolve(resolver, msgspec.structs.replace(inbound, message=text))
                unusual = msgspec.structs.replace(inbound, thread_config={"a": [None, {}]}, event_type="ui.click")
                await self.resolve(resolver, unusual)

    async def test_a_message_is_not_changed(self) -> None:
        async with self.opened() as resolver:
            for inbound in self.claimed:
                before = copy.deepcopy(inbound)
                await self.resolve(resolver, inbound)
                assert inbound == before

    async def test_a_call_that_is_cancelled_ends_and_the_next_one_works(self) -> None:
        async with nothing_left(), self.opened() as resolver:
            await cancel_in_mid_call(lambda: self.call(resolver, self.claimed[0]))
            await self.use(resolver)

    async def test_the_text_of_messages_is_not_logged(self, shown: CapturedOutput) -> None:
        async with self.opened() as resolver:
            for inbound in self.claimed:
                await self.resolve(resolver, msgspec.structs.replace(inbound, message=MESSAGE))
            shown.add(resolver)
        shown.assert_contains_none_of([MESSAGE])

    async def test_a_server_answers_the_messages_that_it_claims(self) -> None:
        async with TestClient(self.api()) as client:
            for inbound in self.claimed:
                for _ in range(2):
                    body = {"contact_id": inbound.contact_id, "message": inbound.message}
                    config = {"thread_config": inbound.thread_config, "event_type": inbound.event_type}
                    answer = await client.post("/api/v1/chat", json=body | config, headers=self.request_headers)
                    assert answer.status_code == 200, answer.text

    async def use(self, resolver: Any) -> None:
        assert await self.resolve(resolver, self.examples("claimed")[0])


async def _thread_of(store: ThreadStore, inbound: Inbound, selectors: Any) -> UUID | None:
    """Return the thread that a message enters; None if no selector matches."""
    plan = RunPlan(
        run_id=uuid7(),
        owner=uuid7(),
        contact_id=inbound.contact_id,
        acting_for=None,
        selectors=tuple(selectors),
        message=message_event(inbound.event_type, inbound.message),
        thread_config=b"{}",
    )
    try:
        return (await store.accept(plan)).thread.thread_id
    except ThreadNotFound:
        return None
