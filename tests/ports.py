"""Ports for servers of tests and measurements."""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
from pathlib import Path

OURS = range(10000, 15000)
"""Below those that the system gives to clients, which may be taken again before ours is bound, and apart from those on
which emulated archives listen (`gateway.emulator.acceptor`)."""
NEXT = Path(tempfile.gettempdir()) / f"dicom-gateway-test-ports-{os.getuid()}"


def free_port() -> int:
    """A port that is free, and was given to nobody else of the last few thousand who asked, in whatever process: many
    bind theirs seconds later, or never."""
    with open(NEXT, "a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        first = int(file.read() or 0)
        number = next(number for number in range(first, first + len(OURS)) if _is_free(OURS[number % len(OURS)]))
        file.truncate(0)
        file.write(str(number + 1))
        return OURS[number % len(OURS)]


def listens(port: int) -> bool:
    """Whether somebody takes connections there."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def hang_up(listener: socket.socket) -> None:
    """Close a port so that who waits in accept() hears of it: such a thread keeps the port, and a signal lets it accept
    again, by a descriptor that may be somebody else's port by then."""
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
