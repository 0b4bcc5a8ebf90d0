"""Ports for servers of tests and measurements."""

from __future__ import annotations

import random
import socket


def free_port() -> int:
    """A port below those that the system gives to clients: theirs may be taken again before ours is bound."""
    while True:
        port = random.randrange(15000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
