"""The rules by which threads and runs change, one table each."""

from datetime import datetime, timedelta
from uuid import UUID

import msgspec
import pytest

from jimsapi.threads.errors import KeyMismatch, KeyUsed, RunClosed, ThreadNotFound
from jimsapi.threads.event import NewEvent, beside_message, id_with_room, message_event
from jimsapi.threads.ids import uuid7
from jimsapi.threads.run import ByExternalId, ById, Latest, New, Outcome, RunPlan, RunStatus, Selector
from jimsapi.threads.transitions import (
    KeyHolder,
    Start,
    accepted_status,
    answer_again,
    cancel_counts,
    config_of_new,
    enters_late,
    finish_counts,
    has_context,
    interrupted_error,
    is_adoptable,
    is_full,
    is_next,
    judge_start,
    keys_known_since,
    may_restart,
    may_see,
    orphan_status,
    select_thread,
    stored_events,
    was_active,
)

NOW = datetime(2026, 1, 1)
MINUTE = timedelta(minutes=1)
ANNS, BOBS, NOWHERE = ById(UUID(int=1)), ById(UUID(int=2)), ById(UUID(int=3))
EXTERNAL, UNKNOWN, LATEST, NEW = ByExternalId("bob's"), ByExternalId("unknown"), Latest(), New()
FOUND: dict[Selector, tuple[str, str]] = {
    ANNS: ("ann", "ann's thread"),
    BOBS: ("bob", "bob's thread"),
    EXTERNAL: ("bob", "bob's external thread"),
    LATEST: ("ann", "ann's latest thread"),
}


def make_plan(*selectors: Selector, acting_for: str | None = None) -> RunPlan:
    return RunPlan(
        run_id=uuid7(),
        owner=uuid7(),
        contact_id="ann",
        acting_for=acting_for,
        selectors=selectors,
        message=message_event("comm.user_message", "Hello"),
        thread_config=b'{"of":"plan"}',
    )


@pytest.mark.parametrize(
    ("contact_id", "acting_for", "sees"),
    [("ann", None, True), ("ann", "ann", True), ("ann", "bob", False), (None, "ann", False), ("", "", True)],
)
def test_a_caller_sees_the_threads_of_its_contact(contact_id: str | None, acting_for: str | None, sees: bool) -> None:
    assert may_see(contact_id, acting_for) is sees


def select(*selectors: Selector, acting_for: str | None = None) -> object:
    found = select_thread(make_plan(*selectors, acting_for=acting_for), FOUND.get, lambda thread: thread[0])
    return found if isinstance(found, New) else found[1]


@pytest.mark.parametrize(
    ("selectors", "found"),
    [
        ([BOBS], "bob's thread"),
        ([LATEST, NEW], "ann's latest thread"),
        ([EXTERNAL, BOBS], "bob's external thread"),
        ([NOWHERE, UNKNOWN, LATEST], "ann's latest thread"),
        ([UNKNOWN, NEW], NEW),
        ([NEW, LATEST], NEW),
    ],
)
def test_the_first_selector_that_matches_decides(selectors: list[Selector], found: object) -> None:
    assert select(*selectors) == found


@pytest.mark.parametrize(
    ("selectors", "named"),
    [
        ([UNKNOWN], None),
        ([NOWHERE, UNKNOWN], NOWHERE.thread_id),
        ([BOBS, NEW], BOBS.thread_id),
        ([EXTERNAL, NEW], None),
        ([NOWHERE, EXTERNAL, LATEST], None),
    ],
)
def test_a_thread_that_is_missing_or_of_another_contact_is_not_found(
    selectors: list[Selector], named: UUID | None
) -> None:
    with pytest.raises(ThreadNotFound) as refused:
        select(*selectors, acting_for="ann")
    assert refused.value.thread_id == named


@pytest.mark.parametrize(("age", "active"), [(0 * MINUTE, True), (MINUTE, True), (2 * MINUTE, False)])
def test_a_thread_is_active_up_to_the_age_asked_for(age: timedelta, active: bool) -> None:
    assert was_active(NOW - age, NOW, MINUTE) is active


def test_a_new_thread_has_the_config_of_its_selector_or_of_the_plan() -> None:
    assert config_of_new(make_plan(), New()) == b'{"of":"plan"}'
    assert config_of_new(make_plan(), New(config={"of": "selector"})) == b'{"of":"selector"}'
    assert config_of_new(make_plan(), New(config={})) == b"{}"


def test_a_key_is_known_for_as_long_as_keys_are_kept() -> None:
    assert keys_known_since(NOW, MINUTE) == NOW - MINUTE


SAME, OTHER = UUID(int=1), UUID(int=2)
FREE, CONTINUED = False, True


@pytest.mark.parametrize(
    ("status", "started", "continues", "body", "expected"),
    [
        (RunStatus.QUEUED, False, False, SAME, KeyUsed),
        (RunStatus.RUNNING, True, False, SAME, KeyUsed),
        (RunStatus.COMPLETED, True, False, SAME, KeyUsed),
        (RunStatus.FAILED, True, False, SAME, KeyUsed),
        (RunStatus.CANCELLED, True, False, SAME, KeyUsed),
        (RunStatus.CANCELLED, True, True, SAME, KeyUsed),
        (RunStatus.CANCELLED, False, False, SAME, FREE),
        (RunStatus.CANCELLED, False, False, OTHER, FREE),
        (RunStatus.CANCELLED, False, True, SAME, CONTINUED),
        (RunStatus.CANCELLED, False, True, OTHER, KeyMismatch),
        (RunStatus.INTERRUPTED, True, False, SAME, CONTINUED),
        (RunStatus.INTERRUPTED, False, False, SAME, CONTINUED),
        (RunStatus.INTERRUPTED, True, False, OTHER, KeyMismatch),
        (RunStatus.COMPLETED, True, False, OTHER, KeyMismatch),
        (RunStatus.QUEUED, False, False, OTHER, KeyMismatch),
    ],
)
def test_a_known_key_stands_for_the_run_that_took_it(
    status: RunStatus, started: bool, continues: bool, body: UUID, expected: bool | type[Exception]
) -> None:
    holder = KeyHolder(uuid7(), SAME, status, started, continues)
    if isinstance(expected, bool):
        assert holder.is_continued_by(body) is expected
    else:
        with pytest.raises(expected) as refused:
            holder.is_continued_by(body)
        assert getattr(refused.value, "run_id", holder.run_id) == holder.run_id


def test_a_message_that_is_answered_again_keeps_its_identifier() -> None:
    plan, message_id = make_plan(LATEST), uuid7()
    again = answer_again(plan, message_id)
    assert (again.message.event_id, again.message.data) == (message_id, plan.message.data)
    assert (again.run_id, again.selectors) == (plan.run_id, plan.selectors)


def test_what_is_beside_a_message_that_is_answered_again_names_the_message() -> None:
    plan, message_id = make_plan(LATEST), id_with_room()
    first = id_with_room()
    message = NewEvent(first, plan.message.event_type, plan.message.data)
    beside = beside_message(first, [("message.metadata", {"metadata": {"n": 1}}), ("message.files", {})])
    again = answer_again(msgspec.structs.replace(plan, message=message, beside=beside), message_id)
    assert again.beside == beside_message(
        message_id, [("message.metadata", {"metadata": {"n": 1}}), ("message.files", {})]
    )


@pytest.mark.parametrize(
    ("open_runs", "limit", "full"), [(0, 0, False), (1, 0, True), (2, 2, False), (3, 2, True), (4, 2, True)]
)
def test_a_thread_is_full_when_the_limit_waits_behind_the_oldest_open_run(
    open_runs: int, limit: int, full: bool
) -> None:
    assert is_full(open_runs, limit) is full


@pytest.mark.parametrize(
    ("open_runs", "is_greeted", "status"),
    [
        (0, False, RunStatus.RUNNING),
        (0, True, RunStatus.QUEUED),
        (1, False, RunStatus.QUEUED),
        (3, False, RunStatus.QUEUED),
    ],
)
def test_a_run_starts_when_it_is_accepted_unless_something_comes_first(
    open_runs: int, is_greeted: bool, status: RunStatus
) -> None:
    assert accepted_status(open_runs, is_greeted=is_greeted) is status


@pytest.mark.parametrize(
    ("status", "created", "has"),
    [
        (RunStatus.RUNNING, False, True),
        (RunStatus.RUNNING, True, True),
        (RunStatus.QUEUED, False, False),
        (RunStatus.QUEUED, True, True),
        (RunStatus.COMPLETED, True, False),
        (RunStatus.CANCELLED, False, False),
    ],
)
def test_accepting_answers_with_a_context_if_something_is_to_be_called(
    status: RunStatus, created: bool, has: bool
) -> None:
    assert has_context(status, created) is has


def test_a_run_that_continues_a_message_is_not_greeted() -> None:
    assert has_context(RunStatus.QUEUED, True, True) is False
    assert has_context(RunStatus.RUNNING, True, True) is True


@pytest.mark.parametrize(
    ("status", "is_owner", "is_oldest", "start"),
    [
        (RunStatus.QUEUED, True, True, Start.NOW),
        (RunStatus.QUEUED, True, False, Start.LATER),
        (RunStatus.RUNNING, True, True, Start.AGAIN),
    ],
)
def test_the_oldest_open_run_of_a_thread_starts(
    status: RunStatus, is_owner: bool, is_oldest: bool, start: Start
) -> None:
    assert judge_start(status, is_owner=is_owner, is_oldest=is_oldest) is start


@pytest.mark.parametrize("status", RunStatus)
@pytest.mark.parametrize("is_oldest", [True, False])
def test_a_run_that_has_ended_or_has_another_owner_does_not_start(status: RunStatus, is_oldest: bool) -> None:
    with pytest.raises(RunClosed, match="no longer open"):
        judge_start(status, is_owner=status not in ("queued", "running"), is_oldest=is_oldest)


@pytest.mark.parametrize("status", RunStatus)
def test_calls_count_and_turns_come_by_the_status_of_a_run(status: RunStatus) -> None:
    assert is_next(status) is (status == "queued")
    assert finish_counts(status, is_owner=True) is (status == "running")
    assert not finish_counts(status, is_owner=False)
    assert cancel_counts(status) is (status in ("queued", "running"))


@pytest.mark.parametrize("status", RunStatus)
def test_only_a_completed_run_leaves_events(status: RunStatus) -> None:
    events = (make_plan().message,)
    assert stored_events(Outcome(status, events)) == (events if status == "completed" else ())


@pytest.mark.parametrize(
    ("status", "background", "adoptable", "enters", "beat_ends_it_as"),
    [
        (RunStatus.RUNNING, False, False, False, RunStatus.INTERRUPTED),
        (RunStatus.RUNNING, True, False, False, RunStatus.INTERRUPTED),
        (RunStatus.QUEUED, False, False, True, RunStatus.CANCELLED),
        (RunStatus.QUEUED, True, True, True, RunStatus.CANCELLED),
    ],
)
def test_an_open_run_that_nobody_works_on_is_ended_or_left_to_be_adopted(
    status: RunStatus, background: bool, adoptable: bool, enters: bool, beat_ends_it_as: RunStatus
) -> None:
    assert is_adoptable(status, background=background) is adoptable
    assert enters_late(status) is enters
    assert orphan_status(status) is beat_ends_it_as


@pytest.mark.parametrize(
    ("status", "background", "restarts", "max_restarts", "expected"),
    [
        (RunStatus.RUNNING, True, 0, 1, True),
        (RunStatus.RUNNING, True, 1, 2, True),
        (RunStatus.RUNNING, True, 0, 0, False),
        (RunStatus.RUNNING, True, 2, 2, False),
        (RunStatus.RUNNING, False, 0, 1, False),
        (RunStatus.QUEUED, True, 0, 1, False),
    ],
)
def test_a_started_background_run_may_start_again_as_often_as_its_app_allows(
    status: RunStatus, background: bool, restarts: int, max_restarts: int, expected: bool
) -> None:
    assert may_restart(status, background=background, restarts=restarts, max_restarts=max_restarts) is expected


def test_the_error_of_a_run_that_was_restarted_in_vain_counts_its_starts() -> None:
    assert interrupted_error(0) is None
    assert interrupted_error(1) == "The run was interrupted: it was started 2 times, and its server died each time"
