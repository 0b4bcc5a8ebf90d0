"""One thread that owns sockets: it waits for them and for the clock, and runs what others ask of it."""

from __future__ import annotations

import heapq
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from math import inf

Touched = Callable[[int], None]
"""What to do when a socket is ready; the argument is the mask of selectors.EVENT_READ and EVENT_WRITE."""


class Loop:
    """Call `step` after everything that happens and when it asked to be called; `end` is the thread's last act."""

    def __init__(self, name: str, step: Callable[[], float], end: Callable[[], None]) -> None:
        self._step = step
        """Returns when it wants to be called next, by the monotonic clock; infinity for never."""
        self._end = end
        self.stopping = False
        self._asked: deque[tuple[Callable[[], None], threading.Event]] = deque()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._timer_number = 0
        self._selector = selectors.DefaultSelector()
        self._bell, self._ringer = socket.socketpair()
        self._bell.setblocking(False)
        self._ringer.setblocking(False)
        self._selector.register(self._bell, selectors.EVENT_READ, lambda _: self._bell.recv(4096))
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End the thread and wait for it; nothing of it is left on return."""
        self.stopping = True
        if self._thread.is_alive():
            self._ring()
            self._thread.join()

    def ask(self, what: Callable[[], None]) -> None:
        """Run something in the thread and return when it was done. Raises RuntimeError when the thread has ended."""
        done = threading.Event()
        self._asked.append((what, done))
        while not done.is_set():
            if not self._thread.is_alive():
                raise RuntimeError(f"{self._thread.name} is not running")
            self._ring()
            done.wait(1.0)

    def _ring(self) -> None:
        try:
            self._ringer.send(b"!")
        except OSError:  # closed, or so full that it surely wakes
            pass

    def at(self, when_s: float, what: Callable[[], None]) -> None:
        """Run something in the thread at a moment of the monotonic clock; at infinity, never."""
        self._timer_number += 1
        if when_s < inf:
            heapq.heappush(self._timers, (when_s, self._timer_number, what))

    def wait_for(self, sock: socket.socket, before: int, mask: int, touched: Touched) -> None:
        """Wait for `mask` on a socket from now on, for nothing when it is 0; `before` is what was waited for so far."""
        if before == 0 and mask:
            self._selector.register(sock, mask, touched)
        elif before and mask == 0:
            self._selector.unregister(sock)
        elif before != mask:
            self._selector.modify(sock, mask, touched)

    def _run(self) -> None:
        try:
            next_step_s = time.monotonic()
            while not self.stopping:
                when_s = min(next_step_s, self._timers[0][0] if self._timers else inf)
                patience_s = None if when_s == inf else max(0.0, when_s - time.monotonic())
                for key, mask in self._selector.select(patience_s):
                    key.data(mask)
                while self._asked:
                    what, done = self._asked.popleft()
                    what()
                    done.set()
                now_s = time.monotonic()
                while self._timers and self._timers[0][0] <= now_s:
                    heapq.heappop(self._timers)[2]()
                next_step_s = self._step()
        finally:
            self.stopping = True
            self._end()
            self._selector.close()
            self._bell.close()
            self._ringer.close()
