"""A port for callers by HTTP: accepts them until stopped; a port that is taken is tried again."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable

PULSE_S = 0.25
BACKLOG = 64
AGAIN_S = 5.0


def accept_callers(
    name: str,
    address: tuple[str, int],
    welcome: Callable[[socket.socket], None],
    stop: threading.Event,
    beat: Callable[[], None],
    log: logging.Logger,
) -> None:
    """Hand each caller to `welcome`, which closes it and raises nothing; `name` stands in the log."""
    while not stop.is_set():
        beat()
        try:
            with socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET) as door:
                door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                door.bind(address)
                door.listen(BACKLOG)
                door.settimeout(PULSE_S)
                log.info("%s_open address=%s port=%d", name, *address)
                while not stop.is_set():
                    beat()
                    try:
                        caller, _ = door.accept()
                    except TimeoutError:
                        continue
                    welcome(caller)
        except OSError as error:
            log.warning("%s_unavailable port=%d reason=%s", name, address[1], error.strerror)
            stop.wait(AGAIN_S)
