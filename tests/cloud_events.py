"""Reads CloudEvents as a receiver does: with the project's own library, and by the rules that it does not check."""

import re
import unicodedata
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import orjson
from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings.http import HTTPMessage, from_http
from cloudevents.core.formats.json import JSONFormat

_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


def read_cloud_event(body: bytes, content_type: str = "application/cloudevents+json") -> BaseCloudEvent:
    """The event of a message in the structured mode. Fails if it breaks a rule of CloudEvents 1.0.2."""
    event = from_http(HTTPMessage({"content-type": content_type}, body), JSONFormat())
    members: dict[str, Any] = orjson.loads(body)
    assert content_type.partition(";")[0] == "application/cloudevents+json"
    assert event.get_specversion() == "1.0"
    for name, value in members.items():
        if name != "data":
            assert re.fullmatch("[a-z0-9]+", name)
            assert isinstance(value, str)
            assert value
            assert not [character for character in value if is_forbidden(character)]
    assert _RFC_3339.fullmatch(members["time"])
    assert datetime.fromisoformat(members["time"]) == event.get_time()
    assert urlsplit(event.get_source()).path
    assert " " not in event.get_source()
    return event


def is_forbidden(character: str) -> bool:
    """Whether the section "Type System" of the specification forbids a character in the text of an attribute."""
    code = ord(character)
    is_noncharacter = 0xFDD0 <= code <= 0xFDEF or code & 0xFFFE == 0xFFFE
    return unicodedata.category(character) in ("Cc", "Cs") or is_noncharacter
