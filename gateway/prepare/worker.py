"""Renditions are made in processes of their own, with limits: they see hostile input, and hold the interpreter long."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

from gateway.dicom.part10 import read_meta
from gateway.model.errors import PrepareError, SpoolError
from gateway.prepare.choice import FIRST_GUESS, CodecRate
from gateway.prepare.pool import WorkerLost, WorkerPool
from gateway.prepare.recipe import Rendition, target_syntax
from gateway.prepare.strikes import Attempt, Strikes
from gateway.spool.rows import Held
from gateway.spool.store import unreadable

log = logging.getLogger("gateway.prepare")

WORKERS = 2
FLOOR_S = 60.0
SLOWEST_BYTES_PER_S = 1e6
"""A worker may take `FLOOR_S` and the time that its object would take at this rate, of processor time."""
DEADLINE_FACTOR = 3.0
"""So much longer by the clock: it comes last in the queue for the processor."""


def _no_beat() -> None:
    """For who is not watched."""


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
        self._pool = WorkerPool(WORKERS)
        self._strikes = Strikes()
        self.rates: dict[str, CodecRate] = dict(FIRST_GUESS)
        """By Transfer Syntax UID: what a worker does in this box, with the objects that come here."""

    @property
    def workers_lost(self) -> int:
        """How many workers died or had to be ended."""
        return self._pool.lost

    def render(
        self,
        held: Held,
        accepted: frozenset[str],
        beat: Callable[[], None] = _no_beat,
        *,
        allow_decompress: bool = False,
    ) -> Rendition | None:
        """Make the instance in one of the accepted Transfer Syntaxes; None when none serves; raises PrepareError.

        `allow_decompress`: pixels that were compressed with loss may be decoded.
        """
        target = target_syntax(held.instance.transfer_syntax_uid, accepted, allow_decompress=allow_decompress)
        return None if target is None else self.render_in(held, target, beat)

    def render_in(self, held: Held, target: str, beat: Callable[[], None] = _no_beat) -> Rendition:
        """Make the instance in the Transfer Syntax `target`; raises PrepareError when that cannot be done exactly,
        SpoolError when the disk does not let us."""
        path, source = self._path_of(held), held.instance.transfer_syntax_uid
        out = self._folder / f"{held.instance.object_id}.{uuid4().hex[:8]}"
        attempt = Attempt(held.instance.object_id, held.instance.sop_class_uid, source, target)
        why_not = self._strikes.why_not(attempt, time.monotonic())
        if why_not is not None:
            raise PrepareError(why_not)
        try:
            with open(path, "rb") as file:
                offset = read_meta(file).dataset_offset
        except (OSError, ValueError) as error:
            raise unreadable(error) from error
        try:
            out.touch(mode=0o640)
        except OSError as error:  # the instance has had no part in this
            raise SpoolError(f"no rendition can be written: {error.strerror}") from error
        cpu_s = FLOOR_S + held.instance.length / SLOWEST_BYTES_PER_S
        try:
            sha256, length, seconds = self._pool.run(
                _transcode,
                *(path, offset, source, target, out),
                cpu_s=cpu_s,
                deadline_s=DEADLINE_FACTOR * cpu_s,
                beat=beat,
            )
        except PrepareError:
            self.clear(out)
            self._strikes.refused(attempt)
            raise
        except SpoolError:  # a bomb must not fill the disk again and again, so the instance gets a strike all the same
            self.clear(out)
            self._strikes.refused(attempt)
            raise
        except WorkerLost as lost:
            self.clear(out)
            self._strikes.lost(attempt, time.monotonic())
            log.error("worker_lost object=%s reason=%r", held.instance.object_id, str(lost))
            raise PrepareError("the worker did not finish") from lost
        self._strikes.made(attempt)
        rate = self.rates.get(target)
        if rate is not None:
            self.rates[target] = rate.after(held.instance.length, length, seconds)
        return Rendition(out, target, sha256, length)

    @staticmethod
    def clear(out: Path) -> None:
        """Remove a rendition, and what a worker left beside it: one that was ended cleaned up nothing."""
        for path in out.parent.glob(f"{out.name}*"):
            try:
                path.unlink(missing_ok=True)
            except OSError:
                pass  # the next start removes it

    def close(self) -> None:
        """End the worker processes."""
        self._pool.close()
