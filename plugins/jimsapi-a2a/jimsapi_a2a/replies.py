"""The replies of methods, before a binding encodes them."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import msgspec

from jimsapi.runs import LiveRun


class Reply(msgspec.Struct, frozen=True):
    """The result of a method. Only one of the first three is given.

    - `value`: the result.
    - `later`: an async function that returns the result, which takes long.
    - `events`: the results of a stream.
    - `run`: the run that the method began, for the headers of the response.
    """

    value: Any = None
    later: Callable[[], Awaitable[Any]] | None = None
    events: AsyncGenerator[Any, None] | None = None
    run: LiveRun | None = None
