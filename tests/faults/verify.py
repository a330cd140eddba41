"""Compares what callers were told with what a store holds, once the servers are up again."""

import asyncio
from collections import Counter
from typing import Any

from tests.faults.journal import Journal
from tests.faults.load import CHAT
from tests.faults.places import Place
from tests.faults.report import Figures
from tests.faults.wire import Wire

SETTLES_WITHIN = 40.0
"""Seconds within which every open run has to end once the servers are up."""
ASKING_AT_ONCE = 16

SAID = "SELECT event_data ->> 'content' FROM thread_events WHERE event_type = 'comm.{role}_message'"
OPEN = "SELECT count(*) FROM jimsapi_runs WHERE finished_at IS NULL"
COMPLETED = "SELECT count(*) FROM jimsapi_runs WHERE status = 'completed'"
QUESTIONS = "SELECT event_data ->> 'question_id' FROM thread_events WHERE event_type = '{event_type}'"
RESULTS = "SELECT thread_id FROM thread_events WHERE event_type = 'once.result'"
THREADS = "SELECT thread_id, contact_id FROM threads"
EQUAL_MOMENTS = """
    SELECT count(*) FROM (SELECT 1 FROM thread_events GROUP BY thread_id, created_at HAVING count(*) > 1) AS equal
"""
# An answer repeats its message and has to follow on it. One whose run was repeated under a key follows later.
OUT_OF_TURN = """
    SELECT count(*) FROM (
        SELECT event_type, event_data ->> 'content' AS content,
            lag(event_data ->> 'content') OVER (PARTITION BY thread_id ORDER BY thread_events.created_at) AS before
        FROM thread_events JOIN threads USING (thread_id)
        WHERE event_type IN ('comm.user_message', 'comm.assistant_message') AND contact_id <> 'keyed'
    ) AS said
    WHERE event_type = 'comm.assistant_message' AND content <> coalesce(before, '')
"""

PROMISED_NONE = (
    "acknowledged and lost",
    "accepted and lost",
    "questions lost",
    "doubled messages",
    "doubled answers",
    "doubled approvals",
    "doubled results",
    "files lost",
    "files not deleted",
    "doubled files",
    "answers without a run",
    "runs stuck",
    "threads stuck",
    "answers out of turn",
    "equal moments in a thread",
    "unexpected answers",
)


def said(place: Place, role: str) -> Counter[str]:
    """How often each text was said by `user` or `assistant`, in all threads."""
    return each(place, SAID.format(role=role))


def each(place: Place, query: str) -> Counter[str]:
    """How often each text is in the one column that a query gives."""
    return Counter(text for (text,) in place.rows(query))


def number(place: Place, query: str) -> int:
    """The one number that a query gives."""
    return int(place.rows(query)[0][0])


def stored(place: Place, journal: Journal) -> Figures:
    """What the store holds of what was acknowledged. No run may be open."""
    asked, answered = said(place, "user"), said(place, "assistant")
    questions = each(place, QUESTIONS.format(event_type="question.asked"))
    approvals = each(place, QUESTIONS.format(event_type="question.answered"))
    for answer, times in journal.unexpected.most_common(5):
        print(f"unexpected, {times} times: {answer}")
    return {
        "acknowledged": len(journal.acknowledged),
        "acknowledged as streams": journal.streamed,
        "acknowledged over WebSockets": journal.over_websockets,
        "acknowledged after a question": journal.approved,
        "accepted in the background": len(journal.background),
        "acknowledged and lost": len(journal.acknowledged - (asked.keys() & answered.keys())),
        "accepted and lost": len(journal.background - asked.keys()),
        "questions lost": len(journal.questions - questions.keys()),
        "doubled messages": sum(times > 1 for times in asked.values()),
        "doubled answers": sum(times > 1 for times in answered.values()),
        "doubled approvals": sum(times > 1 for times in approvals.values()),
        "doubled results": sum(times > 1 for times in each(place, RESULTS).values()),
        "answers without a run": abs(answered.total() + questions.total() - number(place, COMPLETED)),
        "answers out of turn": number(place, OUT_OF_TURN),
        "equal moments in a thread": number(place, EQUAL_MOMENTS),
        "unexpected answers": journal.unexpected.total(),
    }


async def runs_stuck(place: Place) -> int:
    """How many runs are still open after the time within which all have to end."""
    until = asyncio.get_running_loop().time() + SETTLES_WITHIN
    while (left := number(place, OPEN)) and asyncio.get_running_loop().time() < until:
        await asyncio.sleep(0.05)
    return left


async def threads_stuck(place: Place, port: int) -> int:
    """Send a message into every thread; returns in how many it is not answered."""
    threads = place.rows(THREADS)
    stuck = 0

    async def ask() -> None:
        nonlocal stuck
        wire = Wire(port)
        while threads:
            thread_id, contact = threads.pop()
            message = f"last in {thread_id}"
            body: dict[str, Any] = {"contact_id": contact, "thread_id": thread_id, "message": message}
            answer = await wire.post(CHAT, body)
            stuck += answer.status != 200 or answer.json()["assistant_messages"] != [message]

    await asyncio.gather(*(ask() for _ in range(ASKING_AT_ONCE)))
    return stuck
