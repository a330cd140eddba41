"""How deep JSON nests. It is read from the text, because no parser can be asked: it fails at some depth, or exhausts
Python's stack."""

import re
from itertools import accumulate

MAX_NESTING = 200
"""Levels of arrays and objects that a body or a stored value may have. orjson reads 1,024 levels but writes 254."""

_NOT_MARKS = bytes(byte for byte in range(256) if byte not in b'[]{}"')
_STRING = re.compile(rb'"[^"]*+"?')
# Opening brackets become 1, closing ones -1 (read as a signed byte); the running sum is the depth.
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")


def nesting(text: bytes) -> int:
    """Count the levels of arrays and objects, also in a text that is no valid JSON. Brackets in strings do not count.

    All loops are C's, so a megabyte is no matter. A caller that counts the opening brackets first spares most texts
    the call.
    """
    # Only quotes and brackets matter, once escaped quotes are gone. Of a string without brackets two quotes are left,
    # and a search for them is faster than a regular expression for every string. Two quotes may also be the end of a
    # string and the start of the next one: without them the two are one string, with the same brackets in it.
    marks = text.replace(rb"\\", b"").replace(rb"\"", b"").translate(None, _NOT_MARKS).replace(b'""', b"")
    brackets = _STRING.sub(b"", marks).translate(_STEPS)
    return max(accumulate(memoryview(brackets).cast("b"), initial=0))
