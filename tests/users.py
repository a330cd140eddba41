"""The user that a test runs as."""

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_root() -> Iterator[None]:
    """Be a user whom the modes of files concern. Root becomes somebody else; anybody else is one already."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(12345)
    try:
        yield
    finally:
        os.seteuid(before)
