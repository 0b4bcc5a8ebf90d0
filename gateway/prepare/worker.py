"""Renditions are made in processes of their own, with limits: they see hostile input, and hold the interpreter long."""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import resource
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from uuid import uuid4

from gateway.dicom.part10 import read_meta
from gateway.model.errors import CustodyRot, PrepareError
from gateway.prepare.choice import FIRST_GUESS, CodecRate
from gateway.prepare.recipe import Rendition, target_syntax
from gateway.spool.rows import Held

log = logging.getLogger("gateway.prepare")

WORKERS = 2
MEMORY_BYTES = 1 << 30
DEADLINE_S = 600.0
_PR_SET_PDEATHSIG = 1


def _confine() -> None:
    """Limit this worker; it dies with its parent, and leaves Ctrl-C to it."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _transcode(path: Path, offset: int, source_syntax: str, target_syntax: str, out: Path) -> tuple[str, int, float]:
    """Do the work in a worker, which alone pays for numpy and the codecs; return also the seconds it took."""
    from gateway.prepare.transcode import transcode

    started = time.perf_counter()
    sha256, length = transcode(path, offset, source_syntax, target_syntax, out)
    return sha256, length, time.perf_counter() - started


class Renderer:
    """Makes renditions; its processes are started when the first is wanted."""

    def __init__(self, folder: Path, path_of: Callable[[Held], Path]) -> None:
        self._folder = folder
        self._path_of = path_of
        self._lock = threading.Lock()
        self._pool: ProcessPoolExecutor | None = None
        self.rates: dict[str, CodecRate] = dict(FIRST_GUESS)
        """By Transfer Syntax UID: what a worker does in this box, with the objects that come here."""
        self.workers_lost = 0

    def _workers(self) -> ProcessPoolExecutor:
        with self._lock:
            if self._pool is None:
                context = multiprocessing.get_context("forkserver")
                self._pool = ProcessPoolExecutor(WORKERS, mp_context=context, initializer=_confine)
            return self._pool

    def render(self, held: Held, accepted: frozenset[str]) -> Rendition | None:
        """Make the instance in one of the accepted Transfer Syntaxes; None when none serves; raises PrepareError."""
        target = target_syntax(held.instance.transfer_syntax_uid, accepted)
        return None if target is None else self.render_in(held, target)

    def render_in(self, held: Held, target: str) -> Rendition:
        """Make the instance in the Transfer Syntax `target`; raises PrepareError when that cannot be done exactly."""
        path, source = self._path_of(held), held.instance.transfer_syntax_uid
        out = self._folder / f"{held.instance.object_id}.{uuid4().hex[:8]}"
        try:
            with open(path, "rb") as file:
                offset = read_meta(file).dataset_offset
        except (OSError, ValueError) as error:
            raise CustodyRot("the object cannot be read") from error
        workers = self._workers()
        try:
            future = workers.submit(_transcode, path, offset, source, target, out)
            sha256, length, seconds = future.result(DEADLINE_S)
        except PrepareError:
            out.unlink(missing_ok=True)
            raise
        except (BrokenProcessPool, TimeoutError, MemoryError, RuntimeError, ValueError) as error:
            self.close()
            out.unlink(missing_ok=True)
            self.workers_lost += 1
            log.error("worker_lost object=%s reason=%s", held.instance.object_id, type(error).__name__)
            raise PrepareError("the worker did not finish") from error
        rate = self.rates.get(target)
        if rate is not None:
            self.rates[target] = rate.after(held.instance.length, length, seconds)
        return Rendition(out, target, sha256, length)

    def close(self) -> None:
        """End the worker processes."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)
