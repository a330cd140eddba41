"""What all contracts have in common: they reject fixtures that hide a helper, and name tasks that were left running."""

import asyncio
import contextlib

import pytest

from jimsapi.testing import AuthProviderContract, DoesNotApply, EventSinkContract, ThreadStoreContract, contract


def test_a_fixture_that_has_the_name_of_a_helper_is_rejected() -> None:
    wanted = "the fixture TestTicket.client has the name of an attribute of AuthProviderContract, which the cases"
    with pytest.raises(TypeError, match=wanted):

        class TestTicket(AuthProviderContract):
            @pytest.fixture
            def client(self) -> None: ...


@pytest.mark.parametrize(
    ("base", "name"),
    [(AuthProviderContract, "settings"), (EventSinkContract, "arrived"), (ThreadStoreContract, "open_store")],
)
def test_a_fixture_in_the_place_of_a_declaration_is_rejected(base: type, name: str) -> None:
    @pytest.fixture
    def declared(self: object) -> None: ...

    with pytest.raises(TypeError, match=f"the fixture TestIt.{name} has the name of an attribute of .*another name"):
        type("TestIt", (base,), {name: declared})


def test_a_fixture_of_a_class_beside_the_contract_is_checked_as_well() -> None:
    class Shared:
        @pytest.fixture
        def answers(self) -> None: ...

    with pytest.raises(TypeError, match=r"the fixture TestTicket\.answers has the name of an attribute"):

        class TestTicket(Shared, AuthProviderContract):
            pass


def test_a_fixture_may_replace_a_fixture_of_the_contract() -> None:
    class TestStore(ThreadStoreContract):
        reopen_store = DoesNotApply("it is in memory")

        @pytest.fixture
        def store(self) -> None: ...

        @pytest.fixture
        def place(self) -> None: ...


def test_a_case_that_a_subclass_sets_to_none_stays_omitted() -> None:
    class WithOutage(EventSinkContract):
        outage = contextlib.nullcontext

    class WithoutOutage(EventSinkContract):
        outage = DoesNotApply("it writes to a file")

    class SwitchedOff(WithOutage):
        test_in_an_outage_delivering_fails_or_the_batch_arrives_later = None  # type: ignore[assignment]

    class Inherits(SwitchedOff):
        pass

    class Mixin:
        test_in_an_outage_delivering_fails_or_the_batch_arrives_later = None

    class Mixed(Mixin, WithOutage):  # type: ignore[misc]
        pass

    class Returns(SwitchedOff):
        test_in_an_outage_delivering_fails_or_the_batch_arrives_later = (
            EventSinkContract.test_in_an_outage_delivering_fails_or_the_batch_arrives_later  # type: ignore[assignment]
        )

    class Declares(WithoutOutage):
        outage = contextlib.nullcontext  # type: ignore[assignment]

    name = "test_in_an_outage_delivering_fails_or_the_batch_arrives_later"
    classes: list[type] = [WithOutage, WithoutOutage, SwitchedOff, Inherits, Mixed, Returns, Declares]
    assert [cls for cls in classes if callable(getattr(cls, name))] == [WithOutage, Returns, Declares]


@pytest.mark.anyio
async def test_a_task_that_was_left_running_is_named_with_the_line_where_it_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(contract, "SETTLES_WITHIN", 0.0)
    gate = asyncio.Event()

    async def send() -> None:
        await gate.wait()

    wanted = r"tasks were left running: sender \(\S*send, at \S+test_contract_base.py:\d+\)$"
    with pytest.raises(AssertionError, match=wanted):
        async with contract.nothing_left():
            task = asyncio.create_task(send(), name="sender")
    gate.set()
    await task


def test_what_a_contract_asks_for_may_be_assigned_to_its_instance() -> None:
    ticket = AuthProviderContract()
    with pytest.raises(AssertionError, match="does not declare `settings`"):
        _ = ticket.settings
    ticket.settings, ticket.unconfigured = {"ticket_secret": "sesame"}, {"ticket_secret": ""}  # as a fixture does
    assert (ticket.settings, ticket.unconfigured) == ({"ticket_secret": "sesame"}, {"ticket_secret": ""})
