"""Conversations as regression tests: an app answers stored messages again, and must answer them as before."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path
from typing import Any

from jimsapi.cli.replay_text import report
from jimsapi.runs.conversation import Conversation
from jimsapi.runs.limits import RunLimits
from jimsapi.runs.pipeline import Blocking, Deltas, JimsApp, Pipeline
from jimsapi.runs.replay import ReplayedTurn, Replayer
from jimsapi.threads.run import ContextLimits

__all__ = ["Conversation", "ReplayedTurn", "assert_unchanged", "replay"]


async def replay(
    app: JimsApp | Pipeline | Deltas | Blocking,
    conversation: Conversation | Path | str,
    *,
    ignore: Sequence[str] = (),
    run_timeout: float | None = None,
) -> list[ReplayedTurn]:
    """Let an app answer the messages of a stored conversation again, and return each turn with both answers.

    `conversation` is the path of a file that `jimsapi replay THREAD --save FILE` has written, or a `Conversation`. The
    `lifespan` of the app is entered. Nothing is stored, but the tools and the models of the app are real ones, unless
    the test replaces them.

    `ignore` are types of events that are not compared, such as `("model.reasoning", "rag.*")`. `run_timeout` is in
    seconds; None is the default of the server. If the pipeline raises, the new answer of the turn has the error.

    Raises `InvalidConversation`, a `ValueError`, for a file that is not a conversation.
    """
    jims_app = app if isinstance(app, JimsApp) else JimsApp(app)
    stored = conversation if isinstance(conversation, Conversation) else Conversation.load(conversation)
    async with _lifespan(jims_app) as resources:
        replayer = Replayer(
            jims_app.pipeline, limits=_limits(jims_app, run_timeout), resources=resources, ignore=ignore
        )
        return [await replayer.replay(stored, turn) for turn in stored.turns()]


def assert_unchanged(turns: Sequence[ReplayedTurn]) -> None:
    """Fail if an answer has changed, or if there are no turns. The message shows the differences:

    def test_the_answers_about_quokkas_stay_the_same():
        assert_unchanged(asyncio.run(replay(app, "quokkas.json")))
    """
    __tracebackhide__ = True
    if not turns:
        raise AssertionError("nothing was replayed: the conversation has no message of a user")
    if any(turn.changed for turn in turns):
        raise AssertionError(report(turns))


def _lifespan(app: JimsApp) -> AbstractAsyncContextManager[Any]:
    return nullcontext() if app.lifespan is None else app.lifespan()


def _limits(app: JimsApp, run_timeout: float | None) -> RunLimits:
    context = ContextLimits() if app.context_events is None else ContextLimits(events=app.context_events)
    return RunLimits(context=context) if run_timeout is None else RunLimits(context=context, run_timeout=run_timeout)
