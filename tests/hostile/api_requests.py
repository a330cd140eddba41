"""Requests as an attacker of the API would send them: good ones for every route, with one or more things damaged.

The routes are those of the server's own OpenAPI document, so that a plugin's are attacked as soon as it is installed.
"""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, NamedTuple

from tests.hostile.http_strings import http_string

KEY = "the-key"
"""The API key of the attacked server."""

RAW, WEBSOCKET, API = "bytes", "websocket", "api"

_A2A = b'{"messageId":"m1","role":"ROLE_USER","parts":[{"text":"hi"}],"contextId":"c1"}'
_MCP = b'{"name":"chat","arguments":{"message":"hi","thread":"t1"},"_meta":{"progressToken":1}}'

_GOOD: Mapping[str, Mapping[str, bytes]] = {
    "/a2a": {"jsonrpc": b'"2.0"', "id": b"1", "method": b'"SendMessage"', "params": b'{"message":%s}' % _A2A},
    "/a2a/message:send": {"message": _A2A, "configuration": b'{"historyLength":1}', "metadata": b"{}"},
    "/a2a/message:stream": {"message": _A2A, "configuration": b"{}"},
    "/ag-ui": {"threadId": b'"t1"', "runId": b'"r1"', "messages": b'[{"id":"1","role":"user","content":"hi"}]'},
    "/mcp": {"jsonrpc": b'"2.0"', "id": b"1", "method": b'"tools/call"', "params": _MCP},
    "/v1/chat/completions": {"messages": b'[{"role":"user","content":"hi"}]', "stream": b"true", "user": b'"ann"'},
    "/deep-chat": {"messages": b'[{"role":"user","text":"hi"}]', "contact_id": b'"ann"', "chat_id": b'"c1"'},
    "/ai-sdk/chat": {"id": b'"c1"', "messages": b'[{"role":"user","parts":[{"type":"text","text":"hi"}]}]'},
}
"""Bodies of the protocols that plugins bring; every other route has the one of /api/v1/chat."""

_GOOD_CHAT: Mapping[str, bytes] = {"contact_id": b'"ann"', "message": b'"hi"'}


def _nested(depth: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    return opening * depth + b"1" + closing * depth


_VALUES = (
    b"null", b"true", b"0", b"1", b"-1", b'""', b"[]", b"{}", b'"hi"', b"[1,2]", b'{"a":1}', b"NaN", b"Infinity", b"-0",
    b"18446744073709551615", b"18446744073709551616", b"-9223372036854775809", b"9" * 5000, b"1e309", b"1e-400", b"0.1",
    b"1.7976931348623157e308", b"01", b"0x10", b"+1", b".5", b"1.", b"- 1", b'"\\u0000"', b'"a\\u0000b"', b'"\\ud800"',
    b'"\\udfff\\ud800"', b'"\\ud83d\\ude00"', b'"\\u2028\\u2029"', b'"\\uffff"', b'"\xff"', b'"\xc0\xaf"',
    b'"\xed\xa0\x80"', b'"\xf4\x90\x80\x80"', b'"\xef\xbb\xbf"', b'"\x00"', b'"\x1f"', b'"\t"', b'"\n"', b'"\\x41"',
    b'"\\u00"', b"'hi'", b"hi", b'"' + b"a" * 2001 + b'"', b'"' + b"a" * 256 + b'"', b'"' + b"\xc3\xa9" * 1001 + b'"',
    b'"' + b"a" * 70_000 + b'"', _nested(199), _nested(200), _nested(201), _nested(254), _nested(255), _nested(1024),
    _nested(1025), _nested(50_000), _nested(199, b'{"a":', b"}"), _nested(200, b'{"a":', b"}"),
    _nested(201, b'{"a":', b"}"), _nested(2000, b'{"a":', b"}"), b"[" * 100_000, b'{"a":' * 5000,
    b"[" + b"1," * 20_000 + b"1]", b'{"a":1,"a":2}', b'{"":1}', b'{"\\u0000":1}', b'{"__proto__":1}',
    b'"06b0f7e2-0000-7000-8000-000000000000"', b'"00000000000000000000000000000000"',
    b'"{06b0f7e2-0000-7000-8000-000000000000}"', b'"urn:uuid:06b0f7e2-0000-7000-8000-000000000000"', b'"06b0f7e2"',
    b'"null"', b'"http://127.0.0.1:1/"', b'"file:///etc/passwd"', b'"\' OR 1=1 --"', b'"%s%n%x"', b'"{0.__class__}"',
    b'"${jndi:x}"', b'"../../etc/passwd"', b'"comm.user_message"', b'"jims.lifecycle"', b'"state.set.x"', b'"comm."',
    b'"."', b'"a..b"', b'"\xe2\x80\xae"', b"//", b"/* */ 1", b"[1,]", b'{"a":1,}', b"{1:2}", b"",
)  # fmt: skip

_BODIES = (
    b"", b"null", b"[]", b"1", b'"hi"', b"{", b"}", b"{}", b"[" * 1_000, b"\xef\xbb\xbf{}", b"\xff\xfe{\x00}\x00",
    b"{}{}", b"{} x", b"\x00", b"contact_id=ann&message=hi", b'{"contact_id":"ann","message":"hi"', b"\x1f\x8b\x08\x00",
    b"NaN", b" " * 70_000, b"-", b'"', b"--x\r\ncontent-disposition: form-data; name=a\r\n\r\n1\r\n--x--\r\n",
)  # fmt: skip

_METHODS = (
    b"GET", b"POST", b"PUT", b"PATCH", b"DELETE", b"HEAD", b"OPTIONS", b"TRACE", b"PROPFIND", b"QUERY", b"get",
)  # fmt: skip

_HEADERS = (
    b"authorization: Bearer the-key", b"authorization: Bearer wrong", b"authorization: bearer the-key",
    b"authorization: the-key", b"authorization:", b"authorization: Bearer", b"authorization: Bearer  the-key",
    b"authorization: Basic \xff\xfe", b"authorization: Bearer \xe4\xf6", b"authorization: Bearer " + b"a" * 9000,
    b"authorization: Bearer a.b.c", b"authorization: Bearer eyJhbGciOiJub25lIn0.e30.", b"authorization: Negotiate x",
    b"Authorization: Bearer the-key, Bearer x", b"idempotency-key: k1", b"idempotency-key: k2",
    b'idempotency-key: "k1"', b"idempotency-key:", b"idempotency-key: \xff", b"idempotency-key: " + b"k" * 256,
    b"idempotency-key: a b", b"prefer: respond-async", b"prefer: wait=0", b"prefer: wait=-1",
    b"prefer: wait=99999999999999999999", b"prefer: wait=nan", b"prefer: respond-async, wait=1; x=\"",
    b"prefer: ,,,;;=", b"prefer: respond-async\r\nprefer: wait=x", b"last-event-id: 1", b"last-event-id: -1",
    b"last-event-id: 999999999999999999", b"last-event-id: 99999999999999999999999", b"last-event-id: \xd9\xa1",
    b"last-event-id: end", b"last-event-id: 1e3", b"last-event-id: 0x1", b"content-type: text/plain",
    b"content-type: application/json; charset=utf-16", b"content-type:", b"content-type: application/problem+json",
    b"content-type: \xff/\xff", b"content-type: multipart/form-data; boundary=x", b"content-type: multipart/form-data",
    b"content-type: application/x-www-form-urlencoded", b"content-encoding: gzip", b"content-encoding: identity",
    b"content-encoding: br, gzip", b"accept: application/problem+json", b"accept: text/event-stream", b"accept: \xff",
    b"accept: " + b"a/b;q=0.1," * 900, b"accept: */*;q=nan", b"accept-encoding: gzip", b"origin: null",
    b"origin: http://evil.test", b"cookie: " + b"a=b; " * 2000, b"cookie: =;=;;\xff", b"x-request-id: abc",
    b"x-request-id: \xff\xfe", b"x-request-id: " + b"a" * 129, b"x-request-id: a b", b"x-forwarded-for: 1.2.3.4, \xff",
    b"x-forwarded-proto: \xff", b"x-forwarded-host: evil.test", b"x-http-method-override: DELETE", b"range: bytes=0-",
    b"if-none-match: *", b"expect: 100-continue", b"traceparent: 00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01",
    b"traceparent: \xff", b"connection: close", b"te: trailers", b"connection: upgrade\r\nupgrade: websocket",
    b"connection: upgrade\r\nupgrade: h2c", b"x-openwebui-user-name: \xff", b"x-openwebui-chat-id: ..%2F",
    b"x-long: " + b"a" * 70_000, b"content-length: 3", b"transfer-encoding: chunked", b"host: other", b"x-nul: a\x00b",
    b"sec-websocket-protocol: \xff", b"accept-language: " + b"x" * 10_000,
)  # fmt: skip

_SEGMENTS = (
    b"06b0f7e2-0000-7000-8000-000000000000", b"00000000-0000-0000-0000-000000000000",
    b"FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF", b"1", b"-1", b"%2F", b"%2f..%2f..%2fetc%2fpasswd", b"%00", b"a%00b", b"..",
    b".", b"%2e%2e", b"%c0%ae%c0%ae", b"%c0%af", b"%ff", b"%ed%a0%80", b"%u0041", b"%", b"%zz",
    b"%0d%0ax-injected:%201", b"%0a", b"a" * 9000, b"%e2%80%ae", b"{id}", b"*", b"%5c", b"\\", b";a=b", b"%3f", b"%23",
    b"a%20b", b"null", b"~", b"06b0f7e2-0000-7000-8000-00000000000g", b"%F0%9F%A6%94",
    b"06b0f7e200007000800000000000000000",
)  # fmt: skip

_QUERIES = (
    b"contact_id=ann", b"contact_id=", b"contact_id=%00", b"contact_id=%ff", b"contact_id=a&contact_id=b", b"limit=1",
    b"limit=0", b"limit=-1", b"limit=99999999999999999999", b"limit=" + b"9" * 5000, b"limit=1e3", b"limit=%D9%A1",
    b"limit=nan", b"limit=1.0", b"after=x", b"after=", b"after=%00", b"after=1", b"after=-1",
    b"after=999999999999999999", b"after=" + b"A" * 3000, b"after=AAAA", b"after=end", b"x=%", b"&&&=", b"=" * 300,
    b"a&" * 1001, b"%0d%0ax-injected:%201", b"?", b"contact_id=" + b"a" * 5000, b"contact_id=%ED%A0%80",
    b"contact_id=ann&limit=1&after=eyJhIjoxfQ==", b"limit=+1", b"limit=%201", b"limit=1_0", b"after=\xff",
)  # fmt: skip

_FRAMES = (
    b'{"type":"chat","contact_id":"ann","message":"hi"}', b'{"type":"cancel","run_id":"x"}',
    b'{"type":"auth","authorization":"Bearer x"}', b'{"type":"auth"}', b'{"type":null}', b"{}", b"[]", b"null", b"{",
    b"", b"\xff", b'{"type":"chat"}', b'{"type":"chat","message":"\\ud800"}',
    b'{"type":"chat","contact_id":1,"message":[]}', b"[" * 3000, b"hi", b'"hi"',
    b'{"messages":[{"role":"user","text":"hi"}]}', b'{"messages":0}',
)  # fmt: skip


class Route(NamedTuple):
    """A route of the server: a template such as `/api/v1/runs/{id}`, and the names of its body's fields."""

    method: str
    path: str
    fields: Sequence[str]


class Attack(NamedTuple):
    """What is sent on a connection; `kind` says how it was made."""

    kind: str
    data: bytes


def routes_of(document: dict[str, Any]) -> list[Route]:
    """The routes of an OpenAPI document."""
    return [
        Route(method.upper(), path, _fields_of(document, operation))
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    ]


def attack(seed: int, number: int, routes: Sequence[Route], ids: Sequence[str]) -> Attack:
    """The attack of this number. `ids` are the identifiers of a thread and of a run that are there."""
    random = Random(seed << 40 | number)
    kind = random.random()
    if kind < 0.1:
        return Attack(RAW, http_string(seed, number))
    if kind < 0.15:
        paths = [route.path for route in routes if route.method == "GET" and route.path.endswith(("/ws", "/deep-chat"))]
        return Attack(WEBSOCKET, _websocket(random, random.choice(paths).encode()))
    return Attack(API, _request(random, random.choice(routes), ids))


def request(method: bytes, target: bytes, headers: Sequence[bytes], body: bytes | None = None) -> bytes:
    """The bytes of a request; a body gets its length."""
    lines = [b"%b %b HTTP/1.1" % (method, target), b"host: test", *headers]
    if body is not None:
        lines.append(b"content-length: %d" % len(body))
    return b"\r\n".join((*lines, b"", body or b""))


def good_chat(number: int) -> bytes:
    """A request that has to succeed, whatever came before it."""
    body = b'{"contact_id":"control-%d","message":"control %d"}' % (number, number)
    headers = (b"authorization: Bearer %b" % KEY.encode(), b"content-type: application/json", b"connection: close")
    return request(b"POST", b"/api/v1/chat", headers, body)


def _fields_of(document: dict[str, Any], operation: dict[str, Any]) -> Sequence[str]:
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    name = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
    return sorted(document["components"]["schemas"].get(name, {}).get("properties", {}))


def _request(random: Random, route: Route, ids: Sequence[str]) -> bytes:
    method = random.choice(_METHODS) if random.random() < 0.08 else route.method.encode()
    headers = [] if random.random() < 0.05 else [b"authorization: Bearer %b" % KEY.encode()]
    if route.path.startswith("/a2a") and random.random() < 0.9:
        headers.append(b"a2a-version: 1.0")
    body: bytes | None = None
    if route.fields or random.random() < 0.05:
        body = _body(random, route)
        if random.random() < 0.95:
            headers.append(b"content-type: application/json")
    headers += random.choices(_HEADERS, k=random.choice((0, 0, 1, 1, 2, 5)))
    random.shuffle(headers)
    target = _path(random, route.path, ids)
    if random.random() < (0.5 if method in (b"GET", b"DELETE") else 0.1):
        target += b"?" + b"&".join(random.choices(_QUERIES, k=random.choice((1, 1, 2, 4))))
    data = request(method, target, headers, body)
    return _damaged(random, data) if random.random() < 0.05 else data


def _path(random: Random, template: str, ids: Sequence[str]) -> bytes:
    segments = []
    for segment in template.encode().split(b"/")[1:]:
        if segment.startswith(b"{"):
            segment = random.choice(ids).encode() if random.random() < 0.5 else random.choice(_SEGMENTS)
        elif random.random() < 0.02:
            segment = random.choice(_SEGMENTS)
        segments.append(segment)
    if random.random() < 0.03:
        segments.insert(random.randrange(len(segments) + 1), random.choice(_SEGMENTS))
    path = b"/" + b"/".join(segments)
    return path + random.choice((b"/", b"//", b"/.", b"%2F")) if random.random() < 0.03 else path


def _body(random: Random, route: Route) -> bytes:
    if random.random() < 0.1:
        return random.choice(_BODIES)
    pairs = list(_GOOD.get(route.path, _GOOD_CHAT).items())
    names = [*route.fields, "type", "\\u0000", "x"]
    for _ in range(random.choice((0, 1, 1, 2, 4))):
        name, value = random.choice(names), random.choice(_VALUES)
        at = random.randrange(len(pairs) + 1)
        if at < len(pairs) and random.random() < 0.5:
            pairs[at] = (pairs[at][0], value)
        else:
            pairs.insert(at, (name, value))
    if random.random() < 0.1:
        pairs.pop(random.randrange(len(pairs)))
    body = b"{" + b",".join(b'"%b":%b' % (name.encode(), value) for name, value in pairs) + b"}"
    return _damaged(random, body) if random.random() < 0.1 else body


def _damaged(random: Random, data: bytes) -> bytes:
    damaged = bytearray(data)
    for _ in range(random.choice((1, 1, 3))):
        at = random.randrange(len(damaged) + 1)
        if random.random() < 0.5:
            damaged[at : at + random.choice((1, 1, 20))] = b""
        else:
            damaged[at:at] = random.choice(
                (b"\x00", b"\xff", b"\r\n", b"{", b"}", b'"', b"\\", b",", random.randbytes(3))
            )
    return bytes(damaged)


def _websocket(random: Random, path: bytes) -> bytes:
    """A handshake, mostly a good one, and frames behind it, mostly faulty ones."""
    fields = {
        b"connection": b"Upgrade",
        b"upgrade": b"websocket",
        b"sec-websocket-version": random.choice((b"13", b"13", b"13", b"8", b"")),
        b"sec-websocket-key": b64encode(random.randbytes(random.choice((16, 16, 16, 4)))),
        b"sec-websocket-protocol": random.choice((b"jims.chat", b"jims.chat, bearer.the-key", b"\xff", b",,", b"x")),
    }
    headers = [b"%b: %b" % pair for pair in fields.items() if random.random() < 0.97]
    if random.random() < 0.7:
        headers.append(b"authorization: Bearer %b" % KEY.encode())
    if random.random() < 0.3:
        headers.append(random.choice(_HEADERS))
    frames = [_frame(random, random.choice(_FRAMES)) for _ in range(random.choice((0, 1, 3)))]
    return request(b"GET", path, headers) + b"".join(frames)


def _frame(random: Random, payload: bytes) -> bytes:
    """A client's frame (RFC 6455, 5.2), of any kind, now and then against the rules."""
    first = random.choice((0x81, 0x81, 0x81, 0x82, 0x01, 0x80, 0x00, 0x89, 0x8A, 0x88, 0x83, 0x8F, 0xC1, 0xF1))
    masked = random.random() < 0.9
    size = len(payload) if random.random() < 0.9 else random.choice((0, 1, 126, 70_000))
    mask = random.randbytes(4) if masked else b""
    head = bytes([first, masked << 7 | (size if size < 126 else 126 if size < 65_536 else 127)])
    if size >= 126:
        head += size.to_bytes(2 if size < 65_536 else 8, "big")
    if masked:
        payload = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    return head + mask + payload
