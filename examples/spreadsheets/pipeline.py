"""The pipeline: it reads the files of the conversation, and answers a question about them."""

from collections.abc import Sequence

from jimsapi import ThreadContext
from jimsapi.threads import MessageFile, StoredFileNotFound

from .questions import answer_about_table, answer_about_text
from .table import NotATable, read_table

MOST_BYTES = 5_000_000
"""Bytes that a file may have. The pipeline reads a file whole."""


def answer(ctx: ThreadContext) -> None:
    """Answer the newest message about each file.

    This is a plain `def`, which runs in a worker thread: it may compute for a while, and the calls of the context need
    no `await`.
    """
    question = str(ctx.get_last_user_message())
    files = files_of_conversation(ctx)
    if not files:
        ctx.send_message("Send me a CSV file or a text with your question.")
    for file in files:
        ctx.source(title=file.name)
        ctx.send_message(f"{file.name}: {answer_about(file, question)}")


def files_of_conversation(ctx: ThreadContext) -> Sequence[MessageFile]:
    """Return the files of the newest message that has some, so that a person can ask about them again."""
    if ctx.files:
        return ctx.files
    return next((files for event in reversed(ctx.events) if (files := ctx.files_of(event))), [])


def answer_about(file: MessageFile, question: str) -> str:
    """Return the answer about one file, or why there is none."""
    if file.size > MOST_BYTES:
        return f"it has more than {MOST_BYTES:,} bytes."
    try:
        # The type and the ending of the name are the client's words. So the content decides whether it can be read.
        content: str = file.read().decode("utf-8-sig")
    except StoredFileNotFound:
        return "it was deleted."
    except UnicodeDecodeError:
        return "it is not a text in UTF-8."
    if not file.name.lower().endswith(".csv") and file.type != "text/csv":
        return answer_about_text(question, content)
    try:
        return answer_about_table(question, read_table(content))
    except NotATable as fault:
        return f"it is not a table: {fault}."
