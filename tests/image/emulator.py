"""The emulated PC: QEMU of the image's own Debian release, kept between runs, whatever this machine has installed.

One version for every machine, so that what is measured can be compared. Debian 12's takes a quarter longer for the same
start and, with a thread for each processor, meets now and then the breakpoint by which Linux patches itself.
"""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

from image.board import BOARDS, SUITE
from image.tree import CACHE, debian

PACKAGE = "qemu-system-x86"
LIBRARIES = Path("usr/lib/x86_64-linux-gnu")


@functools.cache
def pc() -> tuple[str, ...]:
    """Return the words that start the emulator of a PC; the program is fetched when none is kept."""
    kept = CACHE / f"{PACKAGE}-{SUITE}"
    if not kept.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
            tree = Path(scratch, "tree")
            debian(BOARDS["amd64"], "extract", [PACKAGE], tree)  # unpacked; nothing of it is set up
            try:
                tree.rename(kept)
            except OSError:  # another process was first
                if not kept.exists():
                    raise
    libraries = kept / LIBRARIES
    shares = [word for name in ("qemu", "seabios") for word in ("-L", str(kept / "usr/share" / name))]
    return (
        *("env", f"QEMU_MODULE_DIR={libraries}/qemu"),
        *(str(libraries / "ld-linux-x86-64.so.2"), "--library-path", str(libraries)),
        *(str(kept / "usr/bin/qemu-system-x86_64"), *shares),
    )
