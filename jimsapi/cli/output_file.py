"""A file that a command writes: it gets its name when it is complete, and only its owner may read it."""

import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO, NoReturn

from jimsapi.plugins.errors import StartError


@contextmanager
def new_file(output: Path, *, force: bool) -> Iterator[IO[bytes]]:
    """Open a file beside `output`, and rename it when the block has ended without an error.

    Raises `StartError` if that is not possible, or if `output` exists and `force` is false. If a signal ends the
    command, it raises `SystemExit`, since a file with people's data must not stay behind under a hidden name.
    """
    ending = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is signal.SIG_DFL]
    name = ""
    try:
        for number in ending:
            signal.signal(number, _exit)
        descriptor, name = tempfile.mkstemp(prefix=f".{output.name}.", dir=output.parent)
        with os.fdopen(descriptor, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        refuse_existing(output, force=force)  # it may have come into being meanwhile
        os.replace(name, output)
    except OSError as error:
        raise _unwritable(output, error) from error
    finally:
        with suppress(FileNotFoundError):
            os.unlink(name)
        for number in ending:
            signal.signal(number, signal.SIG_DFL)


def refuse_existing(output: Path, *, force: bool) -> None:
    """Raise `StartError` if a file exists that may not be replaced."""
    try:
        exists = output.exists()
    except OSError as error:  # the user may not enter its folder
        raise _unwritable(output, error) from error
    if exists and not force:
        raise StartError(f"{output} exists; name another file with --output, or replace it with --force")


def _exit(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)  # as shells report a process that a signal has ended


def _unwritable(output: Path, error: OSError) -> StartError:
    return StartError(f"{output} cannot be written: {error.strerror}; name another file with --output")
