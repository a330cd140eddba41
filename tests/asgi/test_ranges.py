"""Which bytes of a content answer a request. tests/asgi/test_static_files.py has all cases over HTTP."""

import pytest

from jimsapi.asgi import HTTPError, Request, same_origin
from jimsapi.asgi.ranges import Selection, select_range

from .driver import http_scope

TAG, TIME = '"v1"', 1_700_000_000.5
ALWAYS = {"etag": TAG, "last-modified": "Tue, 14 Nov 2023 22:13:20 GMT", "accept-ranges": "bytes"}


async def nothing() -> dict[str, object]:
    raise AssertionError("nothing is received")


def asked(method: str = "GET", scheme: str = "http", **headers: str) -> Request:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({**http_scope(method=method), "headers": pairs, "scheme": scheme}, nothing)


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (asked(), Selection(200, 0, 10, ALWAYS)),
        (asked(range="bytes=2-3"), Selection(206, 2, 4, {**ALWAYS, "content-range": "bytes 2-3/10"})),
        (asked(range="bytes=-3"), Selection(206, 7, 10, {**ALWAYS, "content-range": "bytes 7-9/10"})),
        (asked("HEAD", range="bytes=2-3"), Selection(200, 0, 10, ALWAYS)),
        (asked(range="bytes=2-3", if_range='"v0"'), Selection(200, 0, 10, ALWAYS)),
        (asked(if_none_match=TAG, range="bytes=2-3"), Selection(304, 0, 0, ALWAYS)),
        (asked(if_modified_since="Tue, 14 Nov 2023 22:13:20 GMT"), Selection(304, 0, 0, ALWAYS)),
    ],
)
def test_a_part_is_selected_with_its_headers(request_: Request, expected: Selection) -> None:
    assert select_range(request_, tag=TAG, modified=TIME, size=10) == expected


def test_a_range_after_the_end_is_416() -> None:
    with pytest.raises(HTTPError) as raised:
        select_range(asked(range="bytes=10-"), tag=TAG, modified=TIME, size=10)
    assert (raised.value.status, raised.value.headers) == (416, {"content-range": "bytes */10"})


@pytest.mark.parametrize(
    ("request_", "allowed", "is_own"),
    [
        (asked(host="shop.example"), (), True),
        (asked(host="shop.example", origin="https://shop.example"), (), True),
        (asked(host="shop.example", origin="https://evil.example"), (), False),
        (asked(host="shop.example", origin="https://evil.example"), ("https://evil.example/",), True),
        (asked(host="shop.example", origin="https://evil.example"), ("*",), True),
        (asked(host="shop.example", origin="null"), (), False),
        (asked(scheme="https", host="shop.example", origin="http://shop.example"), (), False),
    ],
)
def test_a_page_of_the_same_host_is_of_the_same_origin(
    request_: Request, allowed: tuple[str, ...], is_own: bool
) -> None:
    assert same_origin(request_, allowed) is is_own
