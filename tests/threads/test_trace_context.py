"""The trace of a caller by W3C Trace Context: what is valid is kept, and anything else is no trace."""

from typing import Any

import pytest

from jimsapi.threads import TraceContext

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize("parent", [PARENT, f"00-{TRACE}-{SPAN}-00", f"00-{TRACE}-{SPAN}-ff"])
def test_a_valid_parent_is_kept(parent: str) -> None:
    assert TraceContext.parse(parent) == TraceContext(parent, "")


@pytest.mark.parametrize("more", ["", "-", "-anything, " + "x" * 1_000_000])
def test_a_later_version_is_read_by_its_beginning(more: str) -> None:
    assert TraceContext.parse(f"cc-{TRACE}-{SPAN}-01{more}") == TraceContext(PARENT)


@pytest.mark.parametrize(
    "parent",
    [
        None, 5, True, b"00", [PARENT], {"traceparent": PARENT}, "", PARENT.upper(), f"{PARENT}-", f"{PARENT}-more",
        f"{PARENT}\n", f" {PARENT}", f"{PARENT}\0", f"ff{PARENT[2:]}", f"cc{PARENT[2:]}more",
        f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}", f"00-{TRACE[1:]}-{SPAN}-01", f"00-{TRACE}g-{SPAN}-01",
        f"00_{TRACE}_{SPAN}_01", "\ud800" * 55, PARENT.replace("0", "٠"), "0" * 1_000_000,
    ],
    ids=lambda parent: repr(parent)[:40],
)  # fmt: skip
def test_anything_else_is_no_trace(parent: Any) -> None:
    assert TraceContext.parse(parent, "vendor=7") is None


@pytest.mark.parametrize(
    ("state", "kept"),
    [
        ("vendor=7", "vendor=7"),
        (" vendor=7 ,\tother@x=a b ,, ", "vendor=7,other@x=a b"),
        ("", ""),
        ("0vendor/a*b=!", "0vendor/a*b=!"),
        (f"{'k' * 256}={'v' * 256}", f"{'k' * 256}={'v' * 256}"),
        (",".join(f"k{n}=v" for n in range(32)), ",".join(f"k{n}=v" for n in range(32))),
    ],
)
def test_a_valid_state_is_kept(state: str, kept: str) -> None:
    assert TraceContext.parse(PARENT, state) == TraceContext(PARENT, kept)


@pytest.mark.parametrize(
    "state",
    [
        None, 7, ["vendor=7"], "vendor", "vendor=", "Vendor=7", "vendor=7=8", "vendor=7,vendor=8", "vendor=ü",
        "vendor=\0", "=7", f"{'k' * 257}=7", f"k={'v' * 257}", ",".join(f"k{n}=v" for n in range(33)),
        "k=v," * 1_000_000, "k=\ud800",
    ],
    ids=lambda state: repr(state)[:40],
)  # fmt: skip
def test_an_invalid_state_is_dropped_and_the_trace_continues(state: Any) -> None:
    assert TraceContext.parse(PARENT, state) == TraceContext(PARENT, "")
