"""Memory that was freed goes back to the system.

Objects of all sizes pass through a dozen threads for years. Left to itself the C library keeps what they freed, in as
many arenas as there are threads and between what lives on: a process that needs 15 MB of heap held 37 MB more after ten
minutes of faults, and more each hour. Another C library than glibc is left alone.
"""

from __future__ import annotations

import ctypes

_libc = ctypes.CDLL(None)

ARENAS = 2
"""Python's threads take turns anyway; what one freed the next can use."""
MAPPED_FROM_BYTES = 1024 * 1024
"""A block so large goes back when it is freed. Fixed: else the first one that is freed raises the limit to its size."""
KEPT_BYTES = 4 * MAPPED_FROM_BYTES
"""At the end of the heap, so that blocks of a transfer are not asked of the system one by one."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8


def bound() -> None:
    """Say how much freed memory is kept (mallopt(3)); before the first thread is made."""
    if hasattr(_libc, "mallopt"):
        _libc.mallopt(_M_ARENA_MAX, ARENAS)
        _libc.mallopt(_M_MMAP_THRESHOLD, MAPPED_FROM_BYTES)
        _libc.mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)


def give_back() -> None:
    """Return free pages of the heap to the system (malloc_trim(3)): a millisecond or two, nothing in use is touched."""
    if hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(0)
