"""How clients name threads and runs."""

import re
from uuid import UUID

THREAD_URI = "jims://threads/"
"""The beginning of the URI of a thread."""
FILE_URI = "jims://files/"
"""The beginning of the URI of a file."""

_ID = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}")


def run_of(text: str) -> UUID | None:
    """Return the identifier of a run; None if the text is none."""
    return UUID(text) if _ID.fullmatch(text) else None


def thread_of(text: str) -> UUID | None:
    """Return the identifier of a thread, by itself or in a URI; None if the text is another name."""
    return run_of(text.removeprefix(THREAD_URI))


def thread_in_uri(uri: str) -> UUID | None:
    """Return the identifier of the thread that a URI names; None if it names none."""
    return thread_of(uri) if uri.startswith(THREAD_URI) else None
