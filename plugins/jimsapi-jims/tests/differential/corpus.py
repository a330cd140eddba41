"""The requests that both servers get, in this order; each name is what `differences.py` knows a request by.

In a body, `<thread of NAME>` stands for the thread that the request NAME was answered from, and `<n>` for the number of
a copy. The messages that begin with `!` are explained in `bot.py`.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

CHAT = "/api/v1/chat"
STREAM = "/api/v1/chat/stream"
Headers = tuple[tuple[str, str], ...]
JSON: Headers = (("content-type", "application/json"),)


@dataclass(frozen=True)
class Exchange:
    """A request, sent `copies` times at once. `server` says how the server that gets it is configured:

    `public` has no auth, `locked` has a key and Authentik, `half` has an application of Authentik without its URL,
    `empty` an empty key, and `twice` two options `--api-key`. With `leaves` the client hangs up as soon as a stream has
    told it a first status.
    """

    name: str
    method: str = "POST"
    path: str = CHAT
    headers: Headers = JSON
    body: bytes | None = None
    server: str = "public"
    copies: int = 1
    chunked: bool = False
    leaves: bool = False


def chat(name: str, message: str | None = None, **fields: Any) -> Exchange:
    """A good chat, of a contact of its own unless `contact_id` is among the fields."""
    body = {"contact_id": name, "message": name if message is None else message, **fields}
    return Exchange(name, body=json.dumps(body, ensure_ascii=False).encode())


def stream(name: str, message: str | None = None, **fields: Any) -> Exchange:
    """A good chat, of a contact of its own, whose answer is a stream."""
    return streamed(chat(name, message, **{"contact_id": f"stream: {name}", **fields}))


def streamed(exchange: Exchange) -> Exchange:
    """The same request, but for a stream."""
    return replace(exchange, name=f"stream: {exchange.name}", path=STREAM)


def body(name: str, sent: bytes | str | dict[str, Any] | list[Any], **more: Any) -> Exchange:
    """A chat whose body is these bytes, this text, or this value as JSON."""
    if isinstance(sent, dict | list):
        sent = json.dumps(sent)
    return Exchange(name, body=sent.encode() if isinstance(sent, str) else sent, **more)


def with_field(field: str, values: dict[str, Any]) -> list[Exchange]:
    """A chat for each value, which that field has in it; they are named by the field and the value's name."""
    good = {"contact_id": "fields", "message": "hi"}
    return [body(f"{field}: {name}", {**good, field: value}) for name, value in values.items()]


def typed(name: str, content_type: str | None) -> Exchange:
    """A good chat with this content type; None sends none."""
    headers = () if content_type is None else (("content-type", content_type),)
    return replace(chat(name), headers=headers)


def authorized(name: str, *values: str, sent: bytes | None = None, server: str = "locked") -> Exchange:
    """A chat with these `Authorization` headers."""
    headers = (*JSON, *(("authorization", value) for value in values))
    return replace(chat(name) if sent is None else body(name, sent), headers=headers, server=server)


def at(method: str, path: str, headers: Headers = (), sent: bytes | None = None) -> Exchange:
    """A request to a path; its name is both."""
    return Exchange(f"{method} {path}", method, path, headers, sent)


def of_each_kind(names: str) -> Iterable[Exchange]:
    """A chat that asks the pipeline for each of these, separated by commas."""
    return [chat(name.strip(), f"!{name.strip()}") for name in names.split(",")]


def nested(levels: int) -> Any:
    """Lists within each other."""
    return json.loads("[" * levels + "]" * levels)


GOOD = [
    chat("the first message", contact_id="ann"),
    chat("the second, of the same contact", contact_id="ann"),
    chat("by thread", contact_id="ann", thread_id="<thread of the first message>"),
    chat("another contact"),
    chat("by the thread of another contact", contact_id="somebody", thread_id="<thread of the first message>"),
    chat("by thread without dashes", thread_id="<thread of the first message, without dashes>"),
    chat("by thread in capitals", thread_id="<thread of the first message, in capitals>"),
    chat("by thread in braces", thread_id="{<thread of the first message>}"),
    chat("by thread as a URN", thread_id="urn:uuid:<thread of the first message>"),
    chat("all that a pipeline saw of these", "!look", contact_id="ann"),
    chat("thread_id null", thread_id=None),
    chat(
        "all fields",
        thread_config={"interface": "x", "n": {"m": [1, None, 1.5]}},
        event_type="comm.user_message.b",
        run_conversation_start_on_new_thread=True,
        thread_id=None,
    ),
    chat("all fields, looked at", "!look", contact_id="all fields"),
    chat("a conversation start", "!look", run_conversation_start_on_new_thread=True),
    chat(
        "no second conversation start",
        "!look",
        contact_id="a conversation start",
        run_conversation_start_on_new_thread=True,
    ),
    chat("the default configuration", "!look"),
    chat("an empty configuration", "!look", thread_config={}),
    chat("a configuration of an old thread", "!look", contact_id="an empty configuration", thread_config={"a": 1}),
    chat("an event type of its own", "!look", event_type="comm.user_button_click"),
    chat("an event type outside comm", "!look", event_type="app.note"),
    chat("an event type of one word", "!look", event_type="hello"),
    chat("an empty event type", "!look", event_type=""),
    chat("an event type of 255 characters", event_type="c" * 255),
    chat("an unknown field", unknown=1, id=None),
    chat("an empty contact", contact_id=""),
    chat("an empty contact again", "!look", contact_id=""),
    chat("an empty message", ""),
    chat("spaces", "  \t\n ", contact_id=" "),
    chat("all that a pipeline may say", "!talk"),
    chat("and what it sees of that", "!look", contact_id="all that a pipeline may say"),
    chat("events by hand", "!by hand"),
    chat("and what it sees of those", "!silent", contact_id="events by hand"),
    chat("after a failed turn: fail", "!half", contact_id="failing"),
    chat("after a failed turn: look", "!look", contact_id="failing"),
    body("a key twice", '{"contact_id": "a", "contact_id": "b", "message": "x", "message": "y"}'),
    body("spaces around a body", ' \r\n\t{"contact_id" : "c" ,\n"message" : "m"} \n'),
    body("fields in another order", '{"message": "m", "thread_config": {}, "contact_id": "d"}'),
    Exchange("a chunked body", body=b'{"contact_id": "e", "message": "m"}', chunked=True),
    replace(chat("a query that nobody reads"), path=f"{CHAT}?message=other&x=%00"),
]

ACCEPTED: list[Any] = [True, 1, 0, 1.0, "yes", "no", "TRUE", "off", "t", "1"]
REFUSED: list[Any] = [2, -1, 0.5, "", "maybe", " yes", None, [], {}]
BOOLEANS = with_field("run_conversation_start_on_new_thread", {repr(value): value for value in [*ACCEPTED, *REFUSED]})

UNICODE = [
    chat("emoji and combining characters", "e\u0301 👩\u200d👩\u200d👧 \u202eabc", contact_id="👩\u200d👧"),
    chat("escapes of JSON", '" \\ / \b\f\n\r\t \u2028 \u2029 \x7f \x1f'),
    chat("</script> and SQL", "</script>'; DROP TABLE threads; --", contact_id="%_' OR 1=1"),
    chat("right to left", "שלום مرحبا"),
    chat("not characters", "\ufffe \uffff \U0010ffff"),
    body("escaped in the body", r'{"contact_id": "\u00fc", "message": "\ud83d\ude00 \u00e9 \/"}'),
    chat("the same contact unescaped", "!look", contact_id="ü"),
    chat("another normal form is another contact", "!look", contact_id="u\u0308"),
    chat("a BOM within the message", "\ufeffx"),
]

BIG = [
    chat("a message of 1 MB", "ü" * 500_000),
    chat("an answer of 1 MB", "!big"),
    chat("a contact of 2,000 bytes", contact_id="c" * 2000),
    chat("a configuration of 1,000 keys", "!look", thread_config={f"k{n}": n for n in range(1000)}),
    chat("nesting of 150", "!look", thread_config={"a": nested(150)}),
    chat("a message of 3 MB", "x" * 3_000_000),
    chat("a contact over 2,000 bytes", contact_id="ü" * 1001),
    chat("nesting of 300", thread_config={"a": nested(300)}),
    replace(chat("a header of 9 kB"), headers=(*JSON, ("x-long", "x" * 9000))),
]

TEXTS: dict[str, Any] = {"a number": 1, "null": None, "a list": [], "an object": {}, "true": True, "a float": 1.5}

WRONG_FIELDS = [
    *with_field("contact_id", TEXTS),
    *with_field("message", TEXTS),
    *with_field("event_type", TEXTS),
    *with_field("thread_config", {"a list": [], "text": "x", "a number": 1, "null": None, "true": False}),
    *with_field(
        "thread_id",
        {
            "empty": "",
            "text": "x",
            "a number": 5,
            "true": True,
            "a list": [],
            "an object": {},
            "a float": 0.5,
            "too short": "0192b5f2-2c03-7b91-9c6c-9a123456789",
            "too long": "0192b5f2-2c03-7b91-9c6c-9a12345678901",
            "a digit that is none": "0192b5f2-2c03-7b91-9c6c-9a123456789g",
            "dashes misplaced": "0192b5f22-c03-7b91-9c6c-9a1234567890",
            "spaces around": " 0192b5f2-2c03-7b91-9c6c-9a1234567890 ",
            "half braces": "{0192b5f2-2c03-7b91-9c6c-9a1234567890",
            "braces, too short": "{0192b5f2-2c03-7b91-9c6c-9a12345678}",
            "braces, a digit that is none": "{0192b5f2-2c03-7b91-9c6c-9a123456789g}",
            "URN, a digit that is none": "urn:uuid:0192b5f2-2c03-7b91-9c6c-9a123456789g",
            "without dashes, short": "0192b5f22c037b919c6c9a123456789",
            "unknown": "0192b5f2-2c03-7b91-9c6c-9a1234567890",
            "unknown, in capitals": "0192B5F22C037B919C6C9A1234567890",
            "nil": "00000000-0000-0000-0000-000000000000",
            "unicode": "ü192b5f2-2c03-7b91-9c6c-9a1234567890",
        },
    ),
    body("no fields", {}),
    body("only a contact", {"contact_id": "a"}),
    body("only a message", {"message": "m"}),
    body("names in capitals", {"CONTACT_ID": "a", "Message": "m"}),
    body(
        "every field wrong",
        {
            "contact_id": 1,
            "message": [],
            "thread_id": "x",
            "thread_config": 1,
            "event_type": {},
            "run_conversation_start_on_new_thread": "maybe",
        },
    ),
    body("missing and wrong", {"thread_id": 7, "event_type": None}),
    body("a fault with unicode in it", {"contact_id": {"ü": "😀"}, "message": "m"}),
]

BROKEN = {
    "[]": b"[]",
    "text": b'"text"',
    "a number": b"5",
    "null": b"null",
    "true": b"true",
    "a list with a chat": b'[{"contact_id": "a"}]',
    "empty": b"",
    "spaces": b"   ",
    "a word": b"hello",
    "an open object": b"{",
    "an open text": b'{"contact_id": "a',
    "an open list": b"[1, 2",
    "a closed object too many": b'{"contact_id": "a", "message": "m"}}',
    "two bodies": b"{} {}",
    "a comma too many": b'{"contact_id": "a", "message": "m",}',
    "a colon missing": b'{"contact_id" "a"}',
    "a value missing": b'{"contact_id": }',
    "single quotes": b"{'contact_id': 'a'}",
    "no quotes": b"{contact_id: 1}",
    "a comment": b'{"contact_id": "a" /* x */}',
    "an unknown escape": b'{"contact_id": "\\x"}',
    "half an escape": b'{"contact_id": "\\u12"}',
    "a line end in a text": b'{"contact_id": "a\nb"}',
    "a leading zero": b'{"contact_id": 01}',
    "a bare minus": b'{"contact_id": -}',
    "a fraction without digits": b'{"contact_id": 1.}',
    "a form": b"contact_id=a&message=m",
    "broken after unicode": '{"ü😀": 1,,}'.encode(),
    "broken in the third line": b'{\n"a": 1,\n"b" 2}',
    "a NUL byte": b"\x00",
}

BROKEN_BODIES = [
    *(body(f"broken: {name}", sent) for name, sent in BROKEN.items()),
    Exchange("no body at all"),
    body("broken: no UTF-8", b'{"contact_id": "\xff", "message": "m"}'),
    body("broken: UTF-16", '{"contact_id": "utf-16", "message": "m"}'.encode("utf-16")),
    body("broken: a BOM first", b'\xef\xbb\xbf{"contact_id": "bom", "message": "m"}'),
]

NOT_STORABLE = [
    body("a NUL in the contact", r'{"contact_id": "a\u0000b", "message": "m"}'),
    body("a NUL in the message", r'{"contact_id": "nul in message", "message": "m\u0000"}'),
    body(
        "a NUL in the configuration",
        r'{"contact_id": "nul in config", "message": "m", "thread_config": {"a": "\u0000"}}',
    ),
    body("half a surrogate pair in the contact", r'{"contact_id": "\ud800", "message": "m"}'),
    body("half a surrogate pair in the message", r'{"contact_id": "a", "message": "\udc00"}'),
    body("NaN in the configuration", '{"contact_id": "nan", "message": "m", "thread_config": {"a": NaN}}'),
    body("NaN for a field", '{"contact_id": NaN, "message": "m"}'),
    body("Infinity for a field", '{"contact_id": "a", "message": -Infinity}'),
    chat("an integer of 64 bits", "!look", thread_config={"a": 2**63 - 1, "b": -(2**63)}),
    chat("an integer over 64 bits", "!look", thread_config={"a": 2**70}),
    chat("an integer over 64 bits for a field", thread_id=2**70),
    chat("an integer over 64 bits for an unknown field", unknown=2**70),
    chat("a NUL for an unknown field", unknown="\0"),
    body("NaN for an unknown field", '{"contact_id": "a", "message": "m", "unknown": NaN}'),
    body("1e400 in the configuration", '{"contact_id": "1e400", "message": "m", "thread_config": {"a": 1e400}}'),
    body("1e400 for a field", '{"contact_id": 1e400, "message": "m"}'),
    body(
        "an integer of 5,000 digits", f'{{"contact_id": "a", "message": "m", "thread_config": {{"a": {"9" * 5000}}}}}'
    ),
    chat("an event type of 256 characters", event_type="c" * 256),
    chat("a forged state", event_type="state.set.mood"),
    chat("a forged life cycle", event_type="jims.lifecycle.thread_created"),
    chat("a forged answer to a question", event_type="question.answered"),
    chat("forged files of a message", event_type="message.files"),
]

CONTENT_TYPES = [
    *(
        typed(f"content type {value}", value)
        for value in (
            "application/json; charset=utf-8",
            "APPLICATION/JSON",
            "application/vnd.api+json",
            "application/problem+json;q=1",
            "application/json;",
            "text/plain",
            "text/json",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "application/jsonp",
            "json",
            "",
        )
    ),
    typed("no content type", None),
    Exchange(
        "a form", headers=(("content-type", "application/x-www-form-urlencoded"),), body=b"contact_id=a&message=m"
    ),
    replace(body("a broken body of another type", b"{"), headers=(("content-type", "text/plain"),)),
    replace(chat("accept: only HTML"), headers=(*JSON, ("accept", "text/html"))),
    replace(chat("accept-encoding: gzip"), headers=(*JSON, ("accept-encoding", "gzip, br"))),
    replace(chat("content-encoding: identity"), headers=(*JSON, ("content-encoding", "identity"))),
    replace(chat("content-encoding: gzip"), headers=(*JSON, ("content-encoding", "gzip"))),
    typed("content type text/x+json", "text/x+json"),
    replace(chat("two content types, the first JSON"), headers=(*JSON, ("content-type", "text/plain"))),
    replace(chat("two content types, the second JSON"), headers=(("content-type", "text/plain"), *JSON)),
    replace(chat("prefer: respond-async"), headers=(*JSON, ("prefer", "respond-async"))),
    replace(chat("an idempotency key"), headers=(*JSON, ("idempotency-key", "one"))),
    replace(
        chat("an idempotency key again", "an idempotency key", contact_id="an idempotency key"),
        headers=(*JSON, ("idempotency-key", "one")),
    ),
    replace(
        chat("an idempotency key with another message", contact_id="an idempotency key"),
        headers=(*JSON, ("idempotency-key", "one")),
    ),
    replace(chat("an empty idempotency key"), headers=(*JSON, ("idempotency-key", ""))),
]

AUTH = [
    authorized("no token"),
    authorized("the key", "Bearer the-key"),
    authorized("bearer in small letters", "bearer the-key"),
    authorized("BEARER in capitals", "BEARER the-key"),
    authorized("a wrong key", "Bearer wrong"),
    authorized("the key in capitals", "Bearer THE-KEY"),
    authorized("a beginning of the key", "Bearer the-ke"),
    authorized("the key and more", "Bearer the-key2"),
    authorized("an empty header", ""),
    authorized("Bearer alone", "Bearer"),
    authorized("Bearer and a space", "Bearer "),
    authorized("basic credentials", "Basic dGhlLWtleTo="),
    authorized("another scheme", "Token the-key"),
    authorized("the key without Bearer", "the-key"),
    authorized("the key after two spaces", "Bearer  the-key"),
    authorized("the key in quotes", 'Bearer "the-key"'),
    authorized("a key beyond ASCII", "Bearer ÿþ"),
    authorized("a wrong header, then the key", "Bearer wrong", "Bearer the-key"),
    authorized("the key, then a wrong header", "Bearer the-key", "Bearer wrong"),
    authorized("a user of Authentik", "Bearer user"),
    authorized("Authentik: no access", "Bearer stranger"),
    authorized("Authentik: expired", "Bearer expired"),
    authorized("Authentik: out of order", "Bearer down"),
    authorized("Authentik: no JSON", "Bearer page"),
    authorized("Authentik: hangs up", "Bearer gone"),
    authorized("a body that lacks a field, with the key", "Bearer the-key", sent=b'{"contact_id": "a"}'),
    authorized("a body that lacks a field, without a token", sent=b'{"contact_id": "a"}'),
    authorized("broken JSON, with the key", "Bearer the-key", sent=b"{"),
    authorized("broken JSON, without a token", sent=b"{"),
    authorized("no thread's id, without a token", sent=b'{"contact_id": "a", "message": "m", "thread_id": "00"}'),
    authorized("half of Authentik, no token", server="half"),
    authorized("half of Authentik, a token", "Bearer user", server="half"),
    authorized("two keys, the first", "Bearer old-key", server="twice"),
    authorized("two keys, the last", "Bearer the-key", server="twice"),
    authorized("two keys, no token", server="twice"),
    authorized("an empty key, no token", server="empty"),
    authorized("an empty key, an empty header", "", server="empty"),
    authorized("an empty key, a token", "Bearer user", server="empty"),
    replace(at("GET", "/healthz"), name="healthz of a locked server", server="locked"),
    replace(at("GET", CHAT), name="GET of a locked chat", server="locked"),
    replace(at("GET", "/nowhere"), name="an unknown path of a locked server", server="locked"),
]

PATHS = [
    at("GET", "/healthz"),
    at("GET", "/healthz?x=1"),
    at("HEAD", "/healthz"),
    at("POST", "/healthz", JSON, b"{}"),
    at("DELETE", "/healthz"),
    at("OPTIONS", "/healthz"),
    at("GET", CHAT),
    at("HEAD", CHAT),
    at("PUT", CHAT, JSON, b"{}"),
    at("PATCH", CHAT, JSON, b"{}"),
    at("DELETE", CHAT),
    at("OPTIONS", CHAT),
    at("TRACE", CHAT),
    at("BREW", CHAT),
    at("POST", "/nowhere", JSON, b"{}"),
    at("GET", "/"),
    at("GET", "/api"),
    at("GET", "/api/v1"),
    at("GET", "/api/v1/"),
    at("GET", "/API/V1/CHAT"),
    at("POST", "/api/v2/chat", JSON, b"{}"),
    at("POST", "/api/v1/chats", JSON, b"{}"),
    at("POST", "//api/v1/chat", JSON, b"{}"),
    at("GET", "/healthz/"),
    at("GET", "/health"),
    at("GET", "/metrics"),
    at("GET", "/favicon.ico"),
    at("GET", "/%00"),
    at("GET", "/%E2%82%AC"),
    at("GET", "/api/v1/../../healthz"),
    at("GET", "/docs"),
    at("GET", "/redoc"),
    at("GET", "/openapi.json"),
    at("POST", "/openapi.json", JSON, b"{}"),
    at("GET", "/api/v1/threads"),
    at("GET", "/readyz"),
    replace(chat("a chat with a slash at the end"), path=f"{CHAT}/"),
    replace(chat("a path in percent signs"), path="/api/v1/%63hat"),
    replace(chat("a path with %2F for its slashes"), path="/api%2Fv1%2Fchat"),
    replace(chat("the server's address before the path"), path=f"http://localhost{CHAT}"),
]

SAID = [
    *of_each_kind("silent, plain data, number keys, tuple, empty data, not a number, nested 100, 64 bits, odd texts"),
    *of_each_kind("no object"),
    *of_each_kind("datetime, date, uuid, enum, object"),
    *of_each_kind("decimal, set, bytes"),
    *of_each_kind("over 64 bits, nul, long type, twice, surrogate, nested 300"),
]

FAILED = [
    *of_each_kind("fail, fail without a word, fail in unicode, fail by key, fail by os, fail by timeout"),
    *of_each_kind("fail as a group, half"),
    *of_each_kind("fail with a surrogate, exit, cancel"),
    chat("a conversation start that fails", thread_config={"start": "fail"}, run_conversation_start_on_new_thread=True),
    chat("a start that would fail and is not asked for", thread_config={"start": "fail"}),
]

AT_ONCE = [
    replace(chat("contacts at once", "!moment", contact_id="at once <n>"), copies=16),
    replace(chat("faults at once", thread_id="<n>"), copies=8),
    replace(chat("probes at once"), method="GET", path="/healthz", headers=(), body=None, copies=16),
    chat("a thread to be used at once", "!moment", contact_id="crowd"),
    replace(chat("messages at once in one thread", "!slowly", contact_id="crowd"), copies=4),
    replace(chat("first messages of one contact at once", "!moment", contact_id="a new crowd"), copies=12),
]

STREAMS = [
    replace(stream("a client that leaves", "!report and wait"), leaves=True),
    stream("the first message"),
    stream("the second message", contact_id="stream: the first message"),
    stream("by thread", thread_id="<thread of stream: the first message>"),
    stream(
        "by the thread of another contact", contact_id="somebody", thread_id="<thread of stream: the first message>"
    ),
    stream("by thread in capitals", thread_id="<thread of the first message, in capitals>"),
    stream("all that a pipeline saw of these", "!look", contact_id="stream: the first message"),
    chat("a chat after streams", "!look", contact_id="stream: the first message"),
    stream(
        "all fields",
        thread_config={"interface": "x", "n": {"m": [1, None, 1.5]}},
        event_type="comm.user_message.b",
        run_conversation_start_on_new_thread=True,
        thread_id=None,
    ),
    stream("all fields, looked at", "!look", contact_id="stream: all fields"),
    stream("a conversation start says nothing", "!report", run_conversation_start_on_new_thread=True),
    stream("emoji and combining characters", "e\u0301 👩\u200d👩\u200d👧 \u202eabc", contact_id="👩\u200d👧"),
    stream("what ends a line for some", 'a\nb\r\nc\rd \u2028 \u2029 \x85 \x0b\x0c\x1c\x1d\x1e "\\'),
    stream("a frame in a message", "\n\nevent: error\ndata: {}\n\n"),
    stream("a message of 1 MB", "ü" * 500_000),
    stream("an answer of 1 MB", "!big"),
    stream("statuses", "!report"),
    stream("a status that is a text", "!report in text"),
    stream("all that a pipeline may say", "!talk"),
    stream("a status of numbers", "!report no text"),
    stream("a status that is none", "!report nothing"),
    stream("a status with half a surrogate pair", "!report half a pair"),
    stream("300 statuses, and one of 100 kB", "!report much"),
    stream("silent", "!silent"),
    stream("plain data", "!plain data"),
    stream("odd texts", "!odd texts"),
    stream("events by hand", "!by hand"),
    stream("no object", "!no object"),
    stream("not a number", "!not a number"),
    stream("number keys", "!number keys"),
    stream("datetime", "!datetime"),
    stream("decimal", "!decimal"),
    stream("over 64 bits", "!over 64 bits"),
    stream("twice", "!twice"),
    stream("surrogate", "!surrogate"),
    stream("a key that nobody reads", unknown=1),
    replace(stream("an answer in HTML is all that I accept"), headers=(*JSON, ("accept", "text/html"))),
    replace(stream("a chunked body"), chunked=True),
    replace(stream("contacts at once", "!report and wait", contact_id="streamed at once <n>"), copies=8),
    stream("a thread to be used at once", "!moment", contact_id="a streamed crowd"),
    replace(stream("messages at once in one thread", "!slowly", contact_id="a streamed crowd"), copies=4),
    stream("a failure", "!fail"),
    stream("a failure after a status", "!report and fail"),
    stream("and what is left of it", "!look", contact_id="stream: a failure after a status"),
    stream("a failure without a word", "!fail without a word"),
    stream("a failure in unicode", "!fail in unicode"),
    stream("a failure with a surrogate", "!fail with a surrogate"),
    stream("a cancellation", "!cancel"),
    stream(
        "a conversation start that fails", thread_config={"start": "fail"}, run_conversation_start_on_new_thread=True
    ),
    chat("what a client that left finds later", "!look", contact_id="stream: a client that leaves"),
]

REFUSED_CHATS = {one.name: one for one in (*BIG, *WRONG_FIELDS, *BROKEN_BODIES, *NOT_STORABLE, *CONTENT_TYPES, *AUTH)}
REFUSED_STREAMS = [
    *(
        streamed(REFUSED_CHATS[name])
        for name in (
            "a message of 3 MB",
            "contact_id: a number",
            "thread_id: text",
            "thread_id: unknown",
            "no fields",
            "every field wrong",
            "missing and wrong",
            "broken: []",
            "broken: empty",
            "broken: an open object",
            "broken: a comma too many",
            "broken: no UTF-8",
            "no body at all",
            "a NUL in the message",
            "NaN in the configuration",
            "a forged state",
            "content type application/json; charset=utf-8",
            "content type text/plain",
            "no content type",
            "no token",
            "the key",
            "a wrong key",
            "the key without Bearer",
            "a user of Authentik",
            "Authentik: no access",
            "Authentik: out of order",
            "broken JSON, with the key",
            "broken JSON, without a token",
        )
    ),
    at("GET", STREAM),
    at("HEAD", STREAM),
    at("PUT", STREAM, JSON, b"{}"),
    at("DELETE", STREAM),
    at("OPTIONS", STREAM),
    replace(stream("a path with a slash at the end"), path=f"{STREAM}/"),
    replace(at("GET", STREAM), name="GET of a locked stream", server="locked"),
]

CORPUS: list[Exchange] = [
    *GOOD,
    *BOOLEANS,
    *UNICODE,
    *BIG,
    *WRONG_FIELDS,
    *BROKEN_BODIES,
    *NOT_STORABLE,
    *CONTENT_TYPES,
    *AUTH,
    *PATHS,
    *SAID,
    *AT_ONCE,
    *STREAMS,
    *REFUSED_STREAMS,
    *FAILED,
    stream("an exit", "!exit"),
]
"""Failures come last: some of them could end a server, and the last one ends jims-api."""
