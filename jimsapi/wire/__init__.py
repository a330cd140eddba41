"""The base of protocol plugins: it begins runs for the requests of a protocol, and reads their answers.

A plugin decodes a request into a `Turn`. `begin_turn` begins the run in the thread that the client names.
`spoken_items` converts the run's stream to items that every protocol has, and the plugin encodes these in its
protocol.
"""

from typing import TYPE_CHECKING

from jimsapi.exports import lazy_attributes

if TYPE_CHECKING:
    from jimsapi.wire.answer import (
        EVENT_STREAM,
        REFUSALS,
        Refusal,
        data_event,
        failure,
        note_run,
        refusal,
        refusal_of,
        reworded,
        with_ignored,
        with_run,
    )
    from jimsapi.wire.branch import Change, Listed, Replaced, StoredMessage, branch
    from jimsapi.wire.errors import error_answer, error_content
    from jimsapi.wire.files import NotAFile, file_of_base64, file_of_url, named_file
    from jimsapi.wire.history import Answered, UserSaid, file_url, history_of, text_of
    from jimsapi.wire.leaving import stop_left, watch_leaving
    from jimsapi.wire.request import read_body, read_json, reading_body, refuse_foreign_form
    from jimsapi.wire.speech import (
        AgentItem,
        Failed,
        Finished,
        MessageEnded,
        MessagePiece,
        MessageStarted,
        ModelUsed,
        PersonAsked,
        ReasoningEnded,
        ReasoningPiece,
        ReasoningStarted,
        SourceNamed,
        SpokenItem,
        ToolEnded,
        ToolStarted,
        agent_items,
        as_one_text,
        choices,
        one_text,
        spoken_items,
    )
    from jimsapi.wire.turn import ThreadNames, Turn, answer_of, begin_turn, newest_of_user

__all__ = [
    "EVENT_STREAM",
    "REFUSALS",
    "AgentItem",
    "Answered",
    "Change",
    "Failed",
    "Finished",
    "Listed",
    "MessageEnded",
    "MessagePiece",
    "MessageStarted",
    "ModelUsed",
    "NotAFile",
    "PersonAsked",
    "ReasoningEnded",
    "ReasoningPiece",
    "ReasoningStarted",
    "Refusal",
    "Replaced",
    "SourceNamed",
    "SpokenItem",
    "StoredMessage",
    "ThreadNames",
    "ToolEnded",
    "ToolStarted",
    "Turn",
    "UserSaid",
    "agent_items",
    "answer_of",
    "as_one_text",
    "begin_turn",
    "branch",
    "choices",
    "data_event",
    "error_answer",
    "error_content",
    "failure",
    "file_of_base64",
    "file_of_url",
    "file_url",
    "history_of",
    "named_file",
    "newest_of_user",
    "note_run",
    "one_text",
    "read_body",
    "read_json",
    "reading_body",
    "refusal",
    "refusal_of",
    "refuse_foreign_form",
    "reworded",
    "spoken_items",
    "stop_left",
    "text_of",
    "watch_leaving",
    "with_ignored",
    "with_run",
]

if not TYPE_CHECKING:  # a type checker would find every name
    __getattr__, __dir__ = lazy_attributes(
        __name__,
        {
            "jimsapi.wire.answer": (
                "EVENT_STREAM",
                "REFUSALS",
                "Refusal",
                "data_event",
                "failure",
                "note_run",
                "refusal",
                "refusal_of",
                "reworded",
                "with_ignored",
                "with_run",
            ),
            "jimsapi.wire.branch": ("Change", "Listed", "Replaced", "StoredMessage", "branch"),
            "jimsapi.wire.errors": ("error_answer", "error_content"),
            "jimsapi.wire.files": ("NotAFile", "file_of_base64", "file_of_url", "named_file"),
            "jimsapi.wire.history": ("Answered", "UserSaid", "file_url", "history_of", "text_of"),
            "jimsapi.wire.leaving": ("stop_left", "watch_leaving"),
            "jimsapi.wire.request": ("read_body", "read_json", "reading_body", "refuse_foreign_form"),
            "jimsapi.wire.speech": (
                "AgentItem",
                "Failed",
                "Finished",
                "MessageEnded",
                "MessagePiece",
                "MessageStarted",
                "ModelUsed",
                "PersonAsked",
                "ReasoningEnded",
                "ReasoningPiece",
                "ReasoningStarted",
                "SourceNamed",
                "SpokenItem",
                "ToolEnded",
                "ToolStarted",
                "agent_items",
                "as_one_text",
                "choices",
                "one_text",
                "spoken_items",
            ),
            "jimsapi.wire.turn": ("ThreadNames", "Turn", "answer_of", "begin_turn", "newest_of_user"),
        },
    )
