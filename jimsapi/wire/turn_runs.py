"""The runs of a turn: the run that answers a message, and those that the answers to its questions began."""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec

from jimsapi.runs.admission import Admission
from jimsapi.runs.inbound import Inbound
from jimsapi.runs.keys import idempotency
from jimsapi.runs.service import RunService
from jimsapi.threads.errors import IdentifierTaken, RunNotFound, ThreadNotFound
from jimsapi.threads.event import USER_MESSAGE, Event, EventRow, NewEvent, id_beside, position_of, row_id, row_time
from jimsapi.threads.ids import derived_id
from jimsapi.threads.questions import (
    MESSAGE_ANSWERS,
    QUESTION_ANSWERED,
    QUESTION_ASKED,
    QUESTION_CLOSED,
    Question,
    answer_id,
    closing_id,
    counts,
    load_answer,
    load_question,
    turn_of_answers,
)
from jimsapi.threads.run import OPEN, QUEUED, RunFilter, RunStatus, StoredRun
from jimsapi.wire.history import event_data_json

MOST_RUNS = 100
"""How many of the newest runs of a turn are found, beside its first one."""
PROBES = 24
"""How many times the end of a long turn is searched for among the later runs of its thread."""
PROBED = 3
"""How many runs are examined each time."""
MOST_READ = 50
"""How many runs of a thread are compared at most to find one. Nearly always the first is the one."""
AT_ONCE = 10
"""How many runs of a list are read at once."""
EVENTS_BEFORE = 10
"""How many events before a message are searched for a question that its text may answer. A run ends with its question,
so only events that were added outside of runs are between the two."""
_BESIDE = 8
"""The number of events that are looked for beside a message."""
_USER = USER_MESSAGE.rpartition("_")[0]
_TOLERANCE = timedelta(milliseconds=1)
"""By how much a run may have started after its message has entered. Both have the time of one transaction."""


class AskedQuestion(msgspec.Struct, frozen=True):
    """A question with which a run ended, and what became of it.

    `answer` is the event with the answer that counts, and `closing` the one that closed the question without one; None
    if there is none.
    """

    question: Question
    answer: EventRow | None = None
    closing: EventRow | None = None

    @property
    def is_open(self) -> bool:
        """Whether the question can be answered now."""
        return self.answer is None and self.closing is None and not self.question.has_expired(datetime.now(UTC))

    @property
    def message_id(self) -> UUID:
        """The identifier of the message with the answer; without an answer that of an answer without other text."""
        given = None if self.answer is None else load_answer(self.answer)
        return answer_id(self.question.question_id) if given is None else given.message_id

    def was_answered_by(self, admission: Admission, contact_id: str, key: str) -> bool:
        """Return whether the request with this idempotency key, of this caller and contact, has the answer."""
        given = None if self.answer is None else load_answer(self.answer)
        if given is None or given.request is None:
            return False
        digests = idempotency(key, Inbound(contact_id=contact_id, message=""), admission)
        return given.request == derived_id("answering", digests.key.hex)


class TurnRuns:
    """Finds the runs of a turn, for protocols that show a message and its questions as one task.

    A question ends a run, and its answer begins another one, by whatever protocol it comes and also as a text. Such
    a protocol shows all of these runs as the task that the first of them began.

    The methods check no permissions: whoever may see one run of a turn may see the others, unless the question is
    for another person. Their cost does not depend on the length of the thread. All raise `StoreUnavailable`.
    """

    def __init__(self, service: RunService) -> None:
        self._service = service

    async def first(self, run: StoredRun) -> StoredRun:
        """Return the first run of the turn of a run. It is the run itself if that does not answer a question."""
        while (earlier := await self._asking(run)) is not None:
            run = earlier
            turn = await self._turn(run)
            if turn is None or turn == run.message_id:
                continue
            begun = await self._of_message(run.thread_id, turn)
            if begun is not None:  # else the turn began in the thread that this one was forked from
                return begun
        return run

    async def is_first(self, run: StoredRun) -> bool:
        """Return whether a run is the first of its turn. It reads less than `first` does."""
        return await self._asking(run) is None

    async def following(self, first: StoredRun) -> list[StoredRun]:
        """Return the runs of a turn, in order. `first` is its first run.

        If more than `MOST_RUNS` follow it, it returns the first run and the newest ones: the last one decides what
        became of the turn.
        """
        runs, is_whole = await self._chain(first, {first.run_id})
        if not is_whole:
            runs = await self._newest_before(await self._end(runs), first.run_id)
        return [self._service.disclosure.stored(run) for run in (first, *runs)]

    async def questions(self, run: StoredRun) -> list[AskedQuestion]:
        """Return the questions with which a run ended, with their answers."""
        asked = [
            load_question(NewEvent(event.event_id, event.event_type, event_data_json(event.event_data)))
            for event in run.events
            if event.event_type == QUESTION_ASKED
        ]
        questions = [question for question in asked if question is not None]
        if not questions:
            return []
        ids = [find(question.question_id) for question in questions for find in (answer_id, closing_id)]
        rows = {row_id(row): row for row in await self._service.store.events_by_id(run.thread_id, ids)}
        found: list[AskedQuestion] = []
        for question in questions:
            answer = _of_type(rows.get(answer_id(question.question_id)), QUESTION_ANSWERED)
            closing = _of_type(rows.get(closing_id(question.question_id)), QUESTION_CLOSED)
            if answer is not None and not counts(answer, closing):
                answer = None
            found.append(AskedQuestion(question, answer, None if answer is not None else closing))
        return found

    async def close(
        self, run: StoredRun, asked: Sequence[AskedQuestion], admission: Admission, reason: str = "cancelled"
    ) -> None:
        """Close those of the questions of a run that are open, so that nobody can answer them any more.

        `reason` is stored with each: a word for programs, such as `declined`.
        """
        for one in asked:
            if not one.is_open:
                continue
            identifier = one.question.question_id
            closing = Event(
                event_type=QUESTION_CLOSED,
                event_data={"question_id": str(identifier), "reason": reason},
                event_id=closing_id(identifier),
            )
            try:
                await self._service.append(run.thread_id, [closing], admission)
            except IdentifierTaken:  # it was closed meanwhile
                continue

    async def message_rows(self, run: StoredRun) -> list[EventRow]:
        """Return the message of a run after the events beside it; empty if it has not entered its thread yet."""
        ids = [*(id_beside(run.message_id, number) for number in range(1, _BESIDE + 1)), run.message_id]
        found = await self._service.store.events_by_id(run.thread_id, ids)
        return [row for row in found if row.event_type.startswith("message.") or row_id(row) == run.message_id]

    async def _chain(self, run: StoredRun, known: set[UUID]) -> tuple[list[StoredRun], bool]:
        """Return up to `MOST_RUNS` runs of a turn after `run`, and whether these are all.

        A run that is in `known` ends them. Those that are found are added to it.
        """
        runs: list[StoredRun] = []
        while (after := await self._after(run)) is not None and after.run_id not in known:
            if len(runs) == MOST_RUNS:
                return runs, False
            known.add(after.run_id)
            runs.append(after)
            run = after
        return runs, True

    async def _end(self, runs: Sequence[StoredRun]) -> StoredRun:
        """Return the newest run of a long turn. `runs` are early ones.

        Nearly always no run of another turn comes in between, so that the search ends near the newest one.
        """
        run, is_whole = runs[-1], False
        known = {one.run_id for one in runs}
        turn = await self._turn(run)
        while not is_whole:
            run = run if turn is None else await self._late_run(run, turn)
            known.add(run.run_id)
            more, is_whole = await self._chain(run, known)
            run = more[-1] if more else run
        return run

    async def _late_run(self, run: StoredRun, turn: UUID) -> StoredRun:
        """Return a run of a turn that comes long after `run`, by bisecting the time; `run` itself if it finds none."""
        low = run.accepted_at
        high: datetime | None = None
        middle: datetime | None = None  # first the newest runs of the thread are examined
        for _ in range(PROBES):
            only = RunFilter(thread_id=run.thread_id, accepted_from=low, accepted_before=middle)
            others = [one async for one in self._newest(only, most=PROBED) if one.accepted_at > run.accepted_at]
            found = await self._first_in(turn, others)
            if found is not None:
                run, low = found, found.accepted_at
            elif others:
                high = others[-1].accepted_at
            elif middle is not None:
                low = middle
            if high is None:
                break
            middle = low + (high - low) / 2
        return run

    async def _first_in(self, turn: UUID, runs: Sequence[StoredRun]) -> StoredRun | None:
        """Return the first of these runs that is of a turn."""
        for run in runs:
            if await self._turn(run) == turn:
                return run
        return None

    async def _newest_before(self, run: StoredRun, first: UUID) -> list[StoredRun]:
        """Return a run and those of its turn before it, in order, at most `MOST_RUNS`, and without the run `first`."""
        runs = [run]
        while len(runs) < MOST_RUNS:
            earlier = await self._asking(runs[-1])
            if earlier is None or earlier.run_id == first:
                break
            runs.append(earlier)
        return runs[::-1]

    async def _turn(self, run: StoredRun) -> UUID | None:
        """Return the turn of a run, which is its first message; None if the message of the run has not entered yet."""
        rows = await self.message_rows(run)
        if not rows:
            return None
        for row in rows:
            if row.event_type == QUESTION_ANSWERED:
                given = load_answer(row)
                asked = [] if given is None else [given.question_id]
                found = await self._service.store.events_by_id(run.thread_id, asked)
                question = load_question(found[0]) if found else None
                return run.message_id if question is None else question.turn
            if (turn := turn_of_answers(row)) is not None:
                return turn
        answered = await self._answered_in_text(run, rows)
        return run.message_id if answered is None else answered.turn

    async def _after(self, run: StoredRun) -> StoredRun | None:
        """Return the run that an answer to a question of a run began; None if there is none yet."""
        for asked in await self.questions(run):
            if asked.closing is None:
                found = await self._of_message(run.thread_id, asked.message_id)
                if found is not None:
                    return found
        return None

    async def _of_message(self, thread_id: UUID, message_id: UUID) -> StoredRun | None:
        """Return the newest run that answers a message."""
        rows = await self._service.store.events_by_id(thread_id, [message_id])
        if not rows:  # it waits for its turn
            return await self._search(thread_id, message_id, RunFilter(OPEN, thread_id=thread_id))
        entered = _time(rows[0])
        accepted = RunFilter(thread_id=thread_id, accepted_before=entered + _TOLERANCE)
        found = await self._search(thread_id, message_id, accepted, entered)
        if found is None:  # a run that was started again started later than its message entered
            found = await self._search(thread_id, message_id, accepted)
        if found is not None and found.status is RunStatus.INTERRUPTED:  # the request may have been repeated
            again = RunFilter(thread_id=thread_id, accepted_from=found.accepted_at)
            return await self._search(thread_id, message_id, again) or found
        return found

    async def _search(
        self, thread_id: UUID, message_id: UUID, only: RunFilter, started: datetime | None = None
    ) -> StoredRun | None:
        """Return the newest run of a list that answers a message. `started`: it had started by then."""
        async for run in self._newest(only, started):
            if run.message_id == message_id:
                return run
        return None

    async def _asking(self, run: StoredRun) -> StoredRun | None:
        """Return the run whose question a run answers; None if it answers none."""
        rows = await self.message_rows(run)
        if not rows:
            return await self._asking_queued(run)
        message = rows[-1]
        if message.event_type == QUESTION_ANSWERED:
            given = load_answer(message)
            return None if given is None else await self._asker(run.thread_id, given.question_id)
        question = await self._answered_in_text(run, rows)
        if question is not None:
            return await self._asker(run.thread_id, question.question_id)
        if any(row.event_type == MESSAGE_ANSWERS for row in rows):
            return await self._asking_queued(run)
        return None

    async def _answered_in_text(self, run: StoredRun, rows: Sequence[EventRow]) -> Question | None:
        """Return the question that the text of a run's message answers. `rows` are the message, and those beside it."""
        for question in await self._asked_before(run.thread_id, rows[0]):
            answers = await self._service.store.events_by_id(run.thread_id, [answer_id(question.question_id)])
            if any(_answers_with(row, run.message_id) for row in answers):
                return question
        return None

    async def _asking_queued(self, run: StoredRun) -> StoredRun | None:
        """Return the run whose question a run answers, by comparing the earlier runs of its thread."""
        if run.status is RunStatus.CANCELLED or run.created_new_thread:
            return None
        only = RunFilter((RunStatus.COMPLETED,), thread_id=run.thread_id, accepted_before=run.accepted_at)
        async for earlier in self._newest(only):
            if any(asked.message_id == run.message_id for asked in await self.questions(earlier)):
                return earlier
        return None

    async def _asked_before(self, thread_id: UUID, message: EventRow) -> list[Question]:
        """Return the questions between a message and the message of the user before it."""
        found: list[Question] = []
        for row in reversed(await self._service.store.load_events(thread_id, position_of(message), EVENTS_BEFORE)):
            if row.event_type.startswith(_USER):
                break
            if row.event_type == QUESTION_ASKED and (question := load_question(row)) is not None:
                found.append(question)
        return found

    async def _asker(self, thread_id: UUID, question_id: UUID) -> StoredRun | None:
        """Return the run that asked a question first."""
        rows = await self._service.store.events_by_id(thread_id, [question_id])
        if not rows:
            return None
        asked = _time(rows[0])
        only = RunFilter(thread_id=thread_id, accepted_before=asked + _TOLERANCE)
        async for run in self._newest(only, asked):
            if any(event.event_id == question_id for event in run.events):
                return run
        return None

    async def _newest(
        self, only: RunFilter, started: datetime | None = None, most: int = MOST_READ
    ) -> AsyncIterator[StoredRun]:
        """Iterate over `most` runs of a list, newest first. `started`: only those that had started by then."""
        after: str | None = None
        count = 0
        while count < most:
            try:
                page = await self._service.store.runs(None, min(AT_ONCE, most), after, only)
            except ThreadNotFound:
                return
            for listed in page.runs:
                has_started = listed.started_at is not None and (
                    started is None or listed.started_at <= started + _TOLERANCE
                )
                if not has_started and (started is not None or listed.status is not QUEUED):
                    continue
                count += 1
                try:
                    yield await self._service.store.run(listed.run_id, None, None)
                except RunNotFound:  # it was deleted meanwhile
                    continue
            after = page.next
            if after is None:
                return


def _of_type(row: EventRow | None, event_type: str) -> EventRow | None:
    return row if row is not None and row.event_type == event_type else None


def _answers_with(row: EventRow, message_id: UUID) -> bool:
    given = load_answer(row) if row.event_type == QUESTION_ANSWERED else None
    return given is not None and given.message_id == message_id


def _time(row: EventRow) -> datetime:
    return row_time(row).replace(tzinfo=UTC)
