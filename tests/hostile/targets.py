"""What reads bytes or texts of strangers, each with what must be true whatever it gets.

A target is called with bytes. It lets through the errors that its subject promises, and raises for every other one, and
`AssertionError` if what was read is not as it must be. `SEEDS` are what to begin with.
"""

import json
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote
from uuid import UUID

import msgspec
import orjson

from jimsapi import Options, Secret, option
from jimsapi.asgi.app import App
from jimsapi.asgi.body import decode_json
from jimsapi.asgi.connection import Request
from jimsapi.asgi.errors import HTTPError, ValidationError
from jimsapi.asgi.fields import QueryParams
from jimsapi.asgi.nesting import MAX_NESTING
from jimsapi.asgi.response import Response
from jimsapi.asgi.validation import convert_body, convert_query
from jimsapi.client.event_stream import EventStreamReader, SentEvent
from jimsapi.plugins.errors import OptionError
from jimsapi.plugins.options import parse, specs
from jimsapi.plugins.secrets import secret_lines, secret_text
from jimsapi.runs.inbound import Inbound
from jimsapi.runs.quota import Rate
from jimsapi.server.distinguished_name import subject_name
from jimsapi.threads.storable import Unstorable, dump_storable, load_stored, storable_text

Target = Callable[[bytes], None]


class Everything(msgspec.Struct):
    """A model with a field of every kind that validation knows."""

    text: str = ""
    flag: bool = False
    whole: int = 0
    number: float = 0.0
    id: UUID | None = None
    choice: Literal["a", "b", 1] = "a"
    items: list[bool] = []
    table: dict[str, UUID] = {}
    inner: "Everything | None" = None


class EveryOption(Options, prefix="every"):
    """Options of every kind."""

    text: str | None = option(help="Text.")
    whole: int | None = option(help="A number.", minimum=0, maximum=10)
    number: float | None = option(help="A number.", minimum=0.5)
    flag: bool = option(help="A switch.")
    file: Path | None = option(help="A path.")
    key: Secret | None = option(help="A secret.")
    choice: Literal["a", "b"] = option("a", help="A choice.")


def body(data: bytes) -> None:
    """A body is read or refused with faults that can be sent, and what is read can be stored."""
    try:
        value = decode_json(data)
    except ValidationError as error:
        _check_faults(error)
        return
    assert json.loads(dump_storable(value)) == value
    for model in (Inbound, Everything):
        try:
            converted = convert_body(value, model)
        except ValidationError as error:
            _check_faults(error)
        else:
            assert msgspec.json.encode(converted)


def query(data: bytes) -> None:
    """A query string is read or refused with faults that can be sent."""
    try:
        convert_query(QueryParams(data), Everything)
    except ValidationError as error:
        _check_faults(error)
    except HTTPError as error:
        _check(error.status == 400)


def route(data: bytes) -> None:
    """Any path finds a route or none; what a parameter gets is of its kind and in the path."""
    raw = b"/" + data
    path = unquote(raw.decode("latin-1"), errors="replace")
    scope = {"type": "http", "method": "GET", "path": path, "raw_path": raw, "root_path": "", "headers": []}
    for root in ("", "/threads"):
        match = _APP.match({**scope, "root_path": root})
        if match.route is not None:
            for part in match.path_params.values():
                assert isinstance(part, UUID | int) or part in unquote(path), (match, path)
    _APP.match_websocket(scope)


def stored(data: bytes) -> None:
    """What a store takes comes back the same, whatever JSON a pipeline says."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = data.decode("latin-1")
    try:
        text = dump_storable(value)
    except Unstorable:
        pass
    else:
        assert _nesting(value) <= MAX_NESTING
        assert b"\\u0000" not in text.replace(b"\\\\", b"")
        assert load_stored(text) == json.loads(text)
        assert dump_storable(load_stored(text)) == text
    dump_storable(storable_text(data.decode("utf-16-le", "surrogatepass" if len(data) % 2 == 0 else "replace")))


def event_stream(data: bytes) -> None:
    """A stream gives the same events however it is cut."""
    whole = list(EventStreamReader().feed(data))
    for size in (1, 2, 7):
        reader = EventStreamReader()
        pieces: list[SentEvent] = []
        for at in range(0, len(data), size):
            pieces += reader.feed(data[at : at + size])
        assert pieces == whole
    for event in whole:
        assert event.name
        assert b"\r" not in event.data
        assert event.id is None or "\0" not in event.id


def distinguished_name(data: bytes) -> None:
    """A certificate has a subject that can be shown, or is none."""
    try:
        name = subject_name(data)
    except ValueError:
        return
    assert name.isprintable()


def options(data: bytes) -> None:
    """An option's text is a value of its kind or an error in one line, without the value of a secret."""
    text = data.decode("utf-8", "replace")
    for spec in specs(EveryOption):
        try:
            value = parse(spec, text, "--x")
        except OptionError as error:
            _check(len(str(error).splitlines()) == 1 and spec.type is not Secret)
        else:
            assert spec.type is not Secret or repr(value) == repr(Secret("another"))
    with suppress(ValueError):
        Rate.parse(text)
    try:
        lines = secret_lines(secret_text(data))
    except ValueError:
        return
    assert all(line == line.strip() and line for line in lines)


def token(data: bytes) -> None:
    """A bearer token is taken apart in the one way that it can be spelt, or refused. Needs jimsapi-oidc."""
    from jimsapi_oidc.refusals import TokenInvalid  # type: ignore[import-not-found, unused-ignore] # of a plugin
    from jimsapi_oidc.tokens import read_token  # type: ignore[import-not-found, unused-ignore]

    head, _, payload = data.partition(b"\n")
    plain = ".".join(urlsafe_b64encode(part).rstrip(b"=").decode() for part in (head, payload, data[:9]))
    for text in (data.decode("latin-1"), plain):
        try:
            found = read_token(text, "https://issuer.test", frozenset({"RS256"}))
        except TokenInvalid:
            continue
        if found is not None:
            assert text.encode() == found.signed + b"." + urlsafe_b64encode(found.signature).rstrip(b"=")
            assert found.claims["iss"] == "https://issuer.test"


def _check(holds: bool) -> None:
    assert holds


def _check_faults(error: ValidationError) -> None:
    assert error.status == 422
    assert error.faults
    assert len(orjson.dumps(error.faults)) < 10_000_000


def _nesting(value: Any) -> int:
    levels = 0
    layer = [value]
    while layer := [item for item in layer if isinstance(item, dict | list)]:
        levels += 1
        layer = [child for item in layer for child in (item.values() if isinstance(item, dict) else item)]
    return levels


def _app() -> App:
    app = App()

    async def handler(request: Request) -> Response:
        return Response()

    for path in (
        "/",
        "/threads",
        "/threads/{id:uuid}",
        "/threads/{id:uuid}/events",
        "/n/{n:int}",
        "/files/{rest:path}",
    ):
        app.get(path)(handler)
    app.get("/{name}/x/{other}")(handler)
    return app


_APP = _app()

TARGETS: Mapping[str, Target] = {
    "body": body,
    "query": query,
    "route": route,
    "stored": stored,
    "event_stream": event_stream,
    "distinguished_name": distinguished_name,
    "options": options,
    **({"token": token} if find_spec("jimsapi_oidc") else {}),
}


def _der(tag: int, *contents: bytes) -> bytes:
    content = b"".join(contents)
    return bytes([tag, len(content)]) + content


def _certificate() -> bytes:
    """As much of a certificate as its subject needs: CN=Ann, and an address of mail."""
    name = _der(0x30, _der(0x06, b"\x55\x04\x03"), _der(0x0C, b"Ann"))
    mail = _der(0x30, _der(0x06, b"\x2a\x86\x48\x86\xf7\x0d\x01\x09\x01"), _der(0x16, b"ann@a.test"))
    subject = _der(0x30, _der(0x31, name), _der(0x31, mail))
    before = _der(0xA0, _der(0x02, b"\x02")) + _der(0x02, b"\x01") + _der(0x30) * 3
    return _der(0x30, _der(0x30, before, subject))


SEEDS: Mapping[str, Sequence[bytes]] = {
    "body": (
        b'{"contact_id":"ann","message":"hi","thread_id":null,"thread_config":{"a":[1,2.5,true,"\\u00e9"]}}',
        b'{"flag":"yes","whole":18446744073709551616,"id":"{06b0f7e2-0000-7000-8000-000000000000}","items":[0,"no"]}',
        b"[" * 201 + b"]" * 201,
        b'{"inner":{"inner":{"table":{"a":"x"},"choice":1}}}',
    ),
    "query": (b"text=a&flag=yes&whole=+1_0&number=1e3&id=x&choice=1&items=1&items=no", b"a=%00&b=%ff&c=%ed%a0%80"),
    "route": (
        b"threads/06b0f7e2-0000-7000-8000-000000000000/events",
        b"n/-1",
        b"files/a%2fb/../c",
        b"a%2Fx/x/%00",
        b"threads/threads/",
    ),
    "stored": (b'{"a":["\\u0000","\\\\u0000"],"b":1e400}', b'{"":' * 200 + b"1" + b"}" * 200, b'"\\ud800"', b"NaN"),
    "event_stream": (b"event: a\nid: 1\ndata: x\r\ndata\r\r: c\n\ndata:y\n\n", b"\xef\xbb\xbfdata: \xff\n\n"),
    "distinguished_name": (_certificate(),),
    "options": (b" 5\n", b"60/min", b"a key\n# no\r\nother", b"true", b"\xef\xbb\xbfx", b"1e999", b"nan", b"0x1"),
    "token": (b'{"alg":"RS256","kid":"k"}\n{"iss":"https://issuer.test","exp":1}', b"a.b.c", b"eyJhIjoxfQ.eyJhIjoxfQ."),
}
