"""The C library's heap: large buffers go back to the system as soon as they are free.

A chunk's buffer lives for milliseconds. By default glibc raises its threshold for mapped memory after the first of them is freed, and keeps
what comes later in its heaps: an idle node would hold tens of MiB for ever. A threshold that is set stays where it is.
"""

import ctypes
from contextlib import suppress
from typing import Final

_M_MMAP_THRESHOLD: Final = -3
MAPPED_BYTES_MIN: Final = 256 * 1024
"""The smallest chunk of a file that has several."""


def give_back_large_buffers() -> None:
    """Have buffers of at least MAPPED_BYTES_MIN mapped and unmapped one by one; does nothing where the C library has no such setting."""
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, MAPPED_BYTES_MIN)
