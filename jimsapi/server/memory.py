"""Memory that the process has freed, given back to the system."""

import ctypes
import sys
from contextlib import suppress

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_LARGE = 128 * 1024


def return_freed_memory() -> None:
    """Have glibc return large blocks to the system when they are freed.

    By default it raises the size of what it returns with the first large block that is freed, up to 32 MiB. After one
    burst of long answers the process would then keep their memory until `Heap` trims it, and the next burst would add
    to it: 423 MB instead of 182 for 40 unread answers of 3 MB. What `Heap` returns are small blocks: 31 MB after 600
    heads of 60 KB. Elsewhere nothing is done.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(_M_MMAP_THRESHOLD, _LARGE)
            mallopt(_M_TRIM_THRESHOLD, _LARGE)
