"""Worker processes, one piece of work at a time each: what becomes of a worker is the affair of its own work alone.

Not `ProcessPoolExecutor`: there one dead process takes every other's work with it, one that is late cannot be ended,
and answers are unpickled, by which a worker that hostile pixels have taken over would take over the gateway.
"""

from __future__ import annotations

import errno
import json
import logging
import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from gateway.model.errors import PrepareError, PrepareLater, SpoolError
from gateway.prepare.confine import allow_cpu, confine

log = logging.getLogger("gateway.prepare")

START_S = 60.0
"""A worker that has not confined itself by then will not."""
BEAT_S = 1.0
MAX_ANSWER_BYTES = 64 * 1024
DISK_FAULTS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})
"""What says something about our disk, and of the instance at most that it needs much room."""


class WorkerLost(Exception):
    """A worker died, was too slow, or answered nonsense; it is gone."""


def _serve(pieces: Connection, answers: Connection) -> None:
    """The life of a worker. Anything but PrepareError and DISK_FAULTS ends it."""
    unconfined = confine(frozenset((pieces.fileno(), answers.fileno())))
    _answer(answers, {"unconfined": unconfined})
    while True:
        try:
            cpu_s, work, arguments = pieces.recv()
        except EOFError:
            return
        allow_cpu(cpu_s)
        try:
            _answer(answers, {"made": work(*arguments)})
        except PrepareError as error:
            _answer(answers, {"refused": error.detail, "later": isinstance(error, PrepareLater)})
        except OSError as error:
            if error.errno not in DISK_FAULTS:
                raise
            _answer(answers, {"unable": str(error.strerror)})


def _answer(answers: Connection, answer: dict[str, Any]) -> None:
    os.write(answers.fileno(), json.dumps(answer).encode() + b"\n")


class _Worker:
    """One process, seen from the gateway."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("forkserver")
        theirs_in, self._pieces = context.Pipe(duplex=False)
        self._answers, theirs_out = context.Pipe(duplex=False)
        self._process = context.Process(target=_serve, args=(theirs_in, theirs_out), daemon=True)
        try:
            self._process.start()
        except (OSError, EOFError) as error:
            self._pieces.close()
            self._answers.close()
            raise WorkerLost("no worker could be started") from error
        finally:
            theirs_in.close()
            theirs_out.close()

    def ask(self, piece: tuple[Any, ...] | None, deadline_s: float, beat: Callable[[], None]) -> dict[str, Any]:
        """Hand over a piece of work and return the answer; None: only listen. Raises WorkerLost."""
        until, line = time.monotonic() + deadline_s, b""
        try:
            if piece is not None:
                self._pieces.send(piece)
            while not line.endswith(b"\n"):
                beat()
                left = until - time.monotonic()
                if left <= 0:
                    raise WorkerLost(f"no answer after {deadline_s:.0f} s")
                if self._answers.poll(min(left, BEAT_S)):
                    block = os.read(self._answers.fileno(), MAX_ANSWER_BYTES)
                    line += block
                    if not block:
                        self._process.join(BEAT_S)
                        raise WorkerLost(f"it ended, exit code {self._process.exitcode}")
                    if len(line) > MAX_ANSWER_BYTES:
                        raise WorkerLost("its answer has no end")
            answer = json.loads(line)
        except (OSError, ValueError, RecursionError) as error:
            raise WorkerLost(f"it cannot be understood: {type(error).__name__}") from error
        if not isinstance(answer, dict):
            raise WorkerLost("its answer is none")
        return answer

    @property
    def alive(self) -> bool:
        return self._process.is_alive()

    def kill(self) -> None:
        """End the process; it may hang in a codec, so that nothing milder would do."""
        self._process.kill()
        self._process.join(START_S)
        self._pieces.close()
        self._answers.close()


class WorkerPool:
    """At most so many workers, each started when it is first wanted."""

    def __init__(self, size: int) -> None:
        self._places = threading.Semaphore(size)
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._closed = False
        self._warned = False
        self.lost = 0
        """Workers that ended without being asked to."""

    def run(
        self,
        work: Callable[..., Any],
        *arguments: Any,
        cpu_s: float,
        deadline_s: float,
        beat: Callable[[], None] = lambda: None,
    ) -> Any:
        """Have a worker call `work`, and return its answer, which has been through JSON; raises PrepareError, or
        SpoolError when it is the disk that does not let the worker do it.

        The worker may use `cpu_s` of processor time and must answer in `deadline_s`, else WorkerLost; then as when it
        dies, only this piece of work has failed. `beat` is called every second while waiting.
        """
        while not self._places.acquire(timeout=BEAT_S):
            beat()
        try:
            worker = self._borrow(beat)
            try:
                answer = worker.ask((cpu_s, work, arguments), deadline_s, beat)
            except WorkerLost:
                self._bury(worker)
                raise
            self._give_back(worker)
        finally:
            self._places.release()
        if "made" in answer:
            return answer["made"]
        if "unable" in answer:
            raise SpoolError(f"no rendition can be written: {answer['unable']}")
        raise (PrepareLater if answer.get("later") else PrepareError)(str(answer.get("refused", "")))

    def _borrow(self, beat: Callable[[], None]) -> _Worker:
        with self._lock:
            worker = self._idle.pop() if self._idle else None
        if worker is not None and worker.alive:
            return worker
        if worker is not None:  # it died with nothing to do, and no work is to blame
            self._bury(worker)
            return self._borrow(beat)
        try:
            with self._lock:
                worker = _Worker()
        except WorkerLost:
            self.lost += 1
            raise
        try:
            unconfined = worker.ask(None, START_S, beat).get("unconfined")
        except WorkerLost:
            self._bury(worker)
            raise
        if unconfined and not self._warned:
            self._warned = True
            log.warning("worker_unconfined reason=%r", str(unconfined))
        return worker

    def _give_back(self, worker: _Worker) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(worker)
                return
        worker.kill()

    def _bury(self, worker: _Worker) -> None:
        worker.kill()
        with self._lock:
            self.lost += 1

    def close(self) -> None:
        """End the workers; one that is busy ends with its work, or with this process."""
        with self._lock:
            self._closed, idle, self._idle = True, self._idle, []
        for worker in idle:
            worker.kill()
