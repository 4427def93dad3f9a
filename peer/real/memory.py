"""The C library's heap: fast while chunks stream, small once they have passed.

Chunks are buffers of up to a few MiB that live for milliseconds. Mapped one by one they would cost a page fault for every 4 KiB, about as
much as their encryption; kept in the heap they cost nothing, but an idle node would hold tens of MiB for ever. So they stay in
the heap, and what is free goes back to the system every few seconds.
"""

import asyncio
import ctypes
from contextlib import suppress
from typing import Final

TRIM_SECONDS: Final = 5.0
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_KEPT_BYTES_MAX: Final = 32 * 1024 * 1024
"""Free memory at the top of the heap beyond which the library gives some back at once; buffers larger than that are mapped."""
_ARENAS_MAX: Final = 2


async def keep_heap_small() -> None:
    """Give free memory back every TRIM_SECONDS, for ever; returns at once where the C library has no such function."""
    with suppress(OSError, AttributeError, TypeError):
        library = ctypes.CDLL(None)
        for parameter, value in ((_M_MMAP_THRESHOLD, _KEPT_BYTES_MAX), (_M_TRIM_THRESHOLD, _KEPT_BYTES_MAX), (_M_ARENA_MAX, _ARENAS_MAX)):
            library.mallopt(parameter, value)
        trim = library.malloc_trim
        while True:
            await asyncio.sleep(TRIM_SECONDS)
            trim(0)
