"""Byte strings for an HTTP/1.1 parser: requests made by grammar, some of them damaged afterwards.

A string depends on nothing but the seed and its number, so that each can be made again alone.
"""

from collections.abc import Callable, Sequence
from random import Random

CANARY = b"GET /canary HTTP/1.1\r\nhost: test\r\n\r\n"
"""A request that ends many strings: a parser that has lost the place shows it here."""

MAX_PIECES = 6

_METHODS = (
    b"GET", b"POST", b"PUT", b"PATCH", b"DELETE", b"HEAD", b"OPTIONS",
)  # fmt: skip
_ODD_METHODS = (
    b"get", b"TRACE", b"CONNECT", b"PRI", b"SMUGGLE", b"M-SEARCH", b"G\tET", b"QUERY", b"SOURCE", b"",
)  # fmt: skip
_TARGETS = (
    b"/", b"/a", b"/a/b?c=d&e=%20", b"/%C3%A4%2Fb", b"/?", b"//host/path", b"*", b"http://test/a?b", b"/a;b=c",
)  # fmt: skip
_ODD_TARGETS = (
    b"a", b"/a b", b"/a#b", b"/a?b#c?d", b"/\xc3\xa4", b"/a\x00b", b"/a\x7fb", b"/a\tb", b"test:443", b"http://", b"",
    b"http://u:p@test:99999/", b"/%", b"/%zz", b"/%00", b"?", b"#", b"/../..//a", b"/\\a", b"/|\"<>^`{}", b"http:/a",
)  # fmt: skip
_VERSIONS = (
    b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"HTTP/0.9", b"RTSP/1.0", b"ICE/1.0", b"http/1.1", b"HTTP/1.1 ",
    b" HTTP/1.1", b"HTTP/1", b"HTTP/01.1", b"HTTP/1.10", b"HTTP/11", b"HTTP/1,1", b"HTTPS/1.1", b"",
)  # fmt: skip
_HOSTS = (
    b"host: other\r\nhost: test", b"x: no-host", b"host:", b"host: a b", b"host: a, b", b"host: user@test",
    b"host: test:80:80", b"host: [::1]:80", b"host: te/st", b"Host:\ttest", b"host: \xc3\xa4", b"host: 'a'",
)  # fmt: skip
_LENGTHS = (
    b"+%d", b"-%d", b" %d ", b"0%d", b"0x%d", b"%d,%d", b"%d, %d", b"%d 0", b"%d.0", b"%d;a", b"%d\x0b", b"\t%d",
    b"1844674407370955161%d", b"9223372036854775808%d", b"%d_0", b"\xd9\xa5%d", b"", b"%d\r\n ", b"1e%d", b"%d\x00",
)  # fmt: skip
_CODINGS = (
    b"Chunked", b"chunked ", b"\tchunked", b"chunked, chunked", b"gzip, chunked", b"chunked, gzip", b"chunked,",
    b",chunked", b"identity", b"identity, chunked", b"xchunked", b"chunked;q=1", b'"chunked"', b"\x0bchunked",
    b"chunked\x0b", b"\xa0chunked", b"chunked\r\n ", b"\r\n chunked", b"", b"gzip", b"chunke", b"chunkedx",
    b"chunked\x00", b"trailers, chunked",
)  # fmt: skip
_FIELDS = (
    b"connection: keep-alive", b"connection: close", b"Connection: Keep-Alive, Close", b"connection: content-length",
    b"connection: upgrade\r\nupgrade: h2c",
    b"connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: a2V5a2V5a2V5a2V5a2V5ag==", b"upgrade: h2c",
    b"connection: upgrade", b"connection: upgrade\r\nupgrade: foo/2, websocket", b"expect: 100-continue",
    b"expect: 200-maybe", b"te: trailers", b"trailer: x-sum", b"x-long: " + b"a" * 300, b"x-obs: \xe4\xf6\xfc",
    b"x-empty:", b"x-tabs:\t a\tb \t", b"cookie: a=b; c=d", b"accept: */*\r\naccept: text/html",
    b"proxy-connection: close", b"keep-alive: timeout=5", b"x_under: 1", b"x.dot: 1", b"!#$%&'*+-.^_`|~09: 1",
    b"connection: close, upgrade\r\nupgrade: h2c",
)  # fmt: skip
_ODD_FIELDS = (
    b"x : 1", b" x: 1", b"\tx: 1", b": 1", b"x", b"x: a\r\n b", b"x: a\r\n\tb", b"x: a\rb", b"x: a\nb: c", b"x: a\x00b",
    b"x\x00: 1", b"x(: 1", b"x: \x01", b"\xe4: 1", b"x: a\x7f", b"content-length\x00: 5", b"content_length: 5",
    b"Content-Length : 5", b"transfer-encoding\t: chunked", b"transfer-encoding:chunked\rcontent-length: 1", b"x: 1\r",
    b"x: 1\r\r", b"x:\r\n 1",
)  # fmt: skip
_CHUNK_SIZES = (
    b"0x%x", b"+%x", b"-%x", b" %x", b"%x ", b"00000%x", b"%x\t", b"%xg", b"fffffffffffffff%x", b"1000000000000000%x",
    b"%x,", b"%x\x00", b"0%x", b"\x0b%x", b"",
)  # fmt: skip
_EXTENSIONS = (
    b";a", b";a=b", b';a="b;c"', b' ;a=b', b";a = b", b";", b";\x80", b";a=\"b\r\nc\"", b";a\rb", b";a\nb", b";a\x00",
    b";" + b"e" * 200, b'; a="', b"\t;a", b";=", b";a=\x01",
)  # fmt: skip
_TRAILERS = (
    b"", b"", b"x-sum: 1\r\n", b"content-length: 5\r\n", b"transfer-encoding: chunked\r\n", b"host: b\r\n",
    b"x : 1\r\n", b" x: 1\r\n", b"x\r\n", b"x: 1\n", b"x: a\r\n b\r\n", b"x: \x00\r\n", b"connection: close\r\n",
    b"upgrade: h2c\r\n",
)  # fmt: skip
_INSERTS = (
    b"\r", b"\n", b"\r\n", b"\n\n", b"\r\r\n", b"\r\n\r\n", b"\x00", b"\x80", b"\xff", b" ", b"\t", b":", b",", b";",
    b"\x0b", b"\x0c", b"\x85", b"\xa0", b"\xe2\x80\xa8", b"0", b"5", b"a", b"-", b"+", b"%", b'"', b"0\r\n\r\n",
    b"5\r\n", b"content-length: 5\r\n", b"content-length: 0\r\n", b"transfer-encoding: chunked\r\n",
    b"GET /smuggled HTTP/1.1\r\nhost: test\r\n\r\n", b"x: ", b"HTTP/1.1", b"connection: close\r\n",
    b"connection: upgrade\r\nupgrade: h2c\r\n", b"\r\n ", b"host: test\r\n", b"\x7f", b"chunked",
)  # fmt: skip

Damage = Callable[[Random, bytearray], None]


def http_string(seed: int, number: int) -> bytes:
    """The string of this number: one to four requests, in two of three cases damaged."""
    random = Random(seed << 40 | number)
    oddness = random.choice((0.0, 0.02, 0.1))
    data = bytearray()
    for _ in range(random.choice((1, 1, 2, 3))):
        data += _request(random, oddness)
    if random.random() < 0.7:
        data += CANARY
    if random.random() < 0.66:
        for _ in range(random.choice((1, 1, 2, 4))):
            random.choice(_DAMAGES)(random, data)
    return bytes(data)


def split(random: Random, data: bytes) -> list[bytes]:
    """`data` in up to `MAX_PIECES` pieces, as a network may deliver it."""
    cuts = sorted(random.randrange(len(data) + 1) for _ in range(random.randrange(MAX_PIECES)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True) if start < end]


def _request(random: Random, oddness: float) -> bytes:
    def odd() -> bool:
        return random.random() < oddness

    method = random.choice(_ODD_METHODS if odd() else _METHODS)
    target = random.choice(_ODD_TARGETS if odd() else _TARGETS)
    version = random.choice(_VERSIONS) if odd() or random.random() < 0.05 else b"HTTP/1.1"
    lines = [b"%b %b %b" % (method, target, version), random.choice(_HOSTS) if odd() else b"host: test"]
    lines += [random.choice(_FIELDS) for _ in range(random.choice((0, 0, 1, 3)))]
    if odd():
        lines.append(random.choice(_ODD_FIELDS))
    body = bytes(random.choices(b"aGET /0\r\n5", k=random.choice((0, 1, 5, 40))))
    framing = random.random()
    if framing < 0.35:
        value = random.choice(_LENGTHS) if odd() else b"%d"
        lines.append(_name(random, b"content-length") + b": " + value.replace(b"%d", b"%d" % len(body)))
    elif framing < 0.75:
        coding = random.choice(_CODINGS) if odd() else b"chunked"
        lines.append(_name(random, b"transfer-encoding") + b": " + coding)
        if odd():
            lines.append(b"content-length: %d" % len(body))
        body = _chunks(random, body, oddness)
    elif framing < 0.95 or not odd():
        body = b""
    if odd():
        random.shuffle(lines)
    return b"\r\n".join((*lines, b"", body))


def _name(random: Random, name: bytes) -> bytes:
    return random.choice((name, name.title(), name.upper()))


def _chunks(random: Random, body: bytes, oddness: float) -> bytes:
    parts = []
    while body:
        size = random.randrange(1, len(body) + 1)
        parts.append(_chunk(random, body[:size], oddness))
        body = body[size:]
    parts.append(random.choice((b"0", b"0", b"0", b"00", b"0;last")) + b"\r\n")
    parts.append(random.choice(_TRAILERS) if random.random() < max(oddness * 3, 0.05) else b"")
    return b"".join((*parts, b"\r\n"))


def _chunk(random: Random, data: bytes, oddness: float) -> bytes:
    size = random.choice(_CHUNK_SIZES) if random.random() < oddness else random.choice((b"%x", b"%X"))
    size = size.replace(b"%x", b"%x" % len(data)).replace(b"%X", b"%X" % len(data))
    extension = random.choice(_EXTENSIONS) if random.random() < max(oddness, 0.1) else b""
    end = random.choice((b"\n", b"\r", b"", b"\r\r\n", b"x\r\n")) if random.random() < oddness / 2 else b"\r\n"
    return size + extension + b"\r\n" + data + end


def _flip(random: Random, data: bytearray) -> None:
    if data:
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def _replace(random: Random, data: bytearray) -> None:
    if data:
        data[random.randrange(len(data))] = random.randrange(256)


def _insert(random: Random, data: bytearray) -> None:
    at = random.randrange(len(data) + 1)
    data[at:at] = random.choice(_INSERTS)


def _insert_at_line(random: Random, data: bytearray) -> None:
    """Beside a line break, where most parsers decide something."""
    breaks = _positions(data, b"\n")
    if breaks:
        at = random.choice(breaks) + random.choice((-1, 0, 1))
        data[at:at] = random.choice(_INSERTS)


def _delete(random: Random, data: bytearray) -> None:
    at = random.randrange(len(data) + 1)
    del data[at : at + random.choice((1, 1, 2, 8, 60))]


def _repeat(random: Random, data: bytearray) -> None:
    at = random.randrange(len(data) + 1)
    data[at:at] = data[at : at + random.choice((1, 2, 8, 60))]


def _repeat_line(random: Random, data: bytearray) -> None:
    breaks = _positions(data, b"\n")
    if len(breaks) > 1:
        place = random.randrange(len(breaks) - 1)
        line = data[breaks[place] + 1 : breaks[place + 1] + 1]
        at = random.choice(breaks) + 1
        data[at:at] = line


def _lose_carriage_returns(random: Random, data: bytearray) -> None:
    if random.random() < 0.3:
        data[:] = data.replace(b"\r\n", b"\n")
    elif breaks := _positions(data, b"\r\n"):
        del data[random.choice(breaks)]


def _change_digit(random: Random, data: bytearray) -> None:
    digits = [at for at, byte in enumerate(data) if 0x30 <= byte <= 0x39]
    if digits:
        data[random.choice(digits)] = random.choice(b"0123456789af")


def _truncate(random: Random, data: bytearray) -> None:
    del data[random.randrange(len(data) + 1) :]


def _positions(data: bytearray, part: bytes) -> list[int]:
    found, at = [], data.find(part)
    while at >= 0:
        found.append(at)
        at = data.find(part, at + 1)
    return found


_DAMAGES: Sequence[Damage] = (
    _flip, _replace, _insert, _insert, _insert_at_line, _insert_at_line, _delete, _repeat, _repeat_line,
    _lose_carriage_returns, _change_digit, _change_digit, _truncate,
)  # fmt: skip
