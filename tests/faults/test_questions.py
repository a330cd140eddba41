"""Random histories of questions under kill -9, and that the comparison afterwards notices each broken promise."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.faults.places import SQLitePlace
from tests.faults.planned_turns import Effect, Kept, Row, Step, Turn, broken_promises
from tests.faults.questions import PROMISED_NONE, tell_histories
from tests.faults.report import broken

pytestmark = pytest.mark.anyio

HISTORIES = 6
STEPS = [Step("once", "a"), Step("choose", "q"), Step("tool", "t")]


async def test_questions_and_effects_of_killed_servers_count_once(tmp_path: Path) -> None:
    figures = await tell_histories(SQLitePlace(tmp_path), HISTORIES, seed=4)
    assert broken(figures, PROMISED_NONE) == {}
    for name in ("kills of a server", "answers acknowledged", "effects"):
        assert figures[name] > 0, name


def row(event_type: str, **data: Any) -> Row:
    return Row(event_type, json.dumps(data))


def answered(value: str) -> Row:
    return row("question.answered", question_id="1", value=value)


ASKED = row("question.asked", text="x q?", question_id="1")
ANSWERED = answered("yes")
CLOSED = row("question.closed", question_id="1")
MESSAGE = row("comm.user_message", role="user", content="x; once:a choose:q tool:t")
RESULT = row("once.result", key="a", value="v1")
CALL = row("tool.call", name="t", arguments={"label": "x"})
SAID = row("comm.assistant_message", role="assistant", content="x a=v1 q=yes")
WHOLE = [MESSAGE, RESULT, ASKED, ANSWERED, CALL, SAID]
EFFECT = Effect("v1", "x", "a", "7")


def turn() -> Turn:
    found = Turn("x", STEPS, ["x q?", "x a=v1 q=yes"], {"q": "yes"})
    found.sent["q"] = {"yes", "no"}
    return found


def names(rows: list[Row], effects: list[Effect], of: Turn | None = None, killed: set[str] | None = None) -> set[str]:
    found = broken_promises([of or turn()], Kept(rows, effects), killed or set())
    return {name for name, _ in found}


def test_a_turn_that_went_as_planned_breaks_nothing() -> None:
    assert names(WHOLE, [EFFECT]) == set()
    again = Effect("v0", "x", "a", "6")  # its process was killed before the result was stored
    assert names(WHOLE, [again, EFFECT], killed={"6"}) == set()
    assert names([*WHOLE[:3], CLOSED, ANSWERED], [EFFECT], Turn("x", STEPS, ["x q?"], refused={"q"})) == set()


@pytest.mark.parametrize(
    ("rows", "effects", "expected"),
    [
        (WHOLE[1:], [EFFECT], "acknowledged and lost"),
        (WHOLE[:-2], [EFFECT], "acknowledged and lost"),
        ([*WHOLE[:3], CALL, SAID], [EFFECT], "answers lost"),
        ([*WHOLE[:3], CALL, SAID], [EFFECT], "went on without an answer"),
        ([*WHOLE[:3], answered("no"), *WHOLE[4:]], [EFFECT], "answers lost"),
        ([*WHOLE[:3], answered("?"), *WHOLE[4:]], [EFFECT], "answers that nobody sent"),
        ([MESSAGE, *WHOLE], [EFFECT], "doubled messages"),
        ([*WHOLE, ANSWERED], [EFFECT], "doubled answers"),
        ([*WHOLE, CLOSED], [EFFECT], "answered and closed"),
        ([*WHOLE, CALL, SAID], [EFFECT], "endings out of turn"),
        ([*WHOLE[:4], CALL, CALL, SAID], [EFFECT], "endings out of turn"),
        ([*WHOLE[:4], SAID], [EFFECT], "endings out of turn"),
        ([RESULT, *WHOLE], [EFFECT], "doubled results"),
        (WHOLE, [], "results without an effect"),
        (WHOLE, [EFFECT, Effect("v2", "x", "a", "8")], "effects after their result"),
        (WHOLE, [Effect("v0", "x", "a", "6"), EFFECT], "effects repeated without a kill"),
    ],
)  # fmt: skip
def test_each_broken_promise_is_noticed(rows: list[Row], effects: list[Effect], expected: str) -> None:
    assert expected in names(rows, effects)


def test_an_answer_that_was_refused_and_counts_is_noticed() -> None:
    refused = turn()
    refused.answers, refused.refused = {}, {"q"}
    assert names(WHOLE, [EFFECT], refused) == {"refused and stored"}
