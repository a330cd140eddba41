"""Events as CloudEvents 1.0.2, in the JSON format and the structured mode.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md and `formats/json-format.md` beside it. The objects
are payloads of Standard Webhooks, too, which have `type`, `timestamp` and `data`.
"""

import re
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from jimsapi.threads.event import SinkEvent, sink_event_id

CLOUD_EVENTS_TYPE = "application/cloudevents+json"
"""The content type of one CloudEvent in JSON."""

_UNTYPED = "untyped"
"""The type of an event without one, since the attribute must not be empty."""

_NAME = re.compile(r"[a-z0-9]+")
# Section "Type System": a text has no control characters, no surrogates, and none of Unicode's noncharacters.
_NONCHARACTERS = "\ufdd0-\ufdef" + "".join(chr(plane << 16 | last) for plane in range(17) for last in (0xFFFE, 0xFFFF))
_ENCODED = re.compile(f"[%\x00-\x1f\x7f-\x9f\ud800-\udfff{_NONCHARACTERS}]")


def cloud_event(
    event_id: str, source: str, event_type: str, time: datetime | None, data: Any, **extensions: object
) -> dict[str, Any]:
    """Return a CloudEvent as an object that can be encoded as JSON.

    - `event_id` identifies the event within its `source`, which is a URI reference.
    - `time` has a time zone. It is None if the time is not known.
    - `extensions` are further attributes, which become text. Those that are None are left out. Their names have only
      lower-case letters and digits; otherwise the function raises `ValueError`.

    Texts of the attributes are percent-encoded where CloudEvents does not allow the character, and at each `%`, so that
    `urllib.parse.unquote` returns the original text. `data` is not changed; None is an event without data.
    """
    for name in extensions:
        if not _NAME.fullmatch(name):
            raise ValueError(f"invalid name of an extension {name!r}: it must have only a-z and 0-9")
    event: dict[str, Any] = {
        "specversion": "1.0",
        "id": _attribute(event_id),
        "source": source,
        "type": _attribute(event_type) or _UNTYPED,
        "time": time,
        "timestamp": time,  # Standard Webhooks has this name for it
        "datacontenttype": "application/json",
        **{name: None if value is None else _attribute(str(value)) for name, value in extensions.items()},
        "data": data,
    }
    return {name: value for name, value in event.items() if value is not None}


def cloud_event_of(event: SinkEvent) -> dict[str, Any]:
    """Return a stored event as a CloudEvent, whose `id` is the same whenever it is sent.

    `data` is the data of the event. The extensions are `contactid` and `runid`.
    """
    return cloud_event(
        sink_event_id(event),
        "/threads" if event.thread_id is None else f"/threads/{event.thread_id}",
        event.event_type,
        event.created_at.replace(tzinfo=UTC),
        event.event_data,
        contactid=event.contact_id,
        runid=event.run_id,
    )


def _attribute(text: str) -> str:
    return _ENCODED.sub(lambda found: quote(found[0], safe="", errors="surrogatepass"), text)
