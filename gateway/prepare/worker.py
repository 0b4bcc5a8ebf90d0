"""Renditions are made in processes of their own, with limits: they see hostile input, and hold the interpreter long."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from gateway.config.schema import Settings
from gateway.dicom.part10 import read_meta
from gateway.model.errors import PrepareError, PrepareLater, SpoolError
from gateway.prepare.choice import FIRST_GUESS, CodecRate
from gateway.prepare.pool import WorkerLost, WorkerPool
from gateway.prepare.recipe import Occasion, Rendition, Stage, occasion_of, stages_of, target_syntax
from gateway.prepare.strikes import RECIPE, Attempt, Strikes
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


def _edit(
    path: Path, offset: int, transfer_syntax_uid: str, out: Path, stages: Sequence[Stage], occasion: Occasion
) -> tuple[str, int, str, str, str]:
    """Apply a recipe in a worker; return also the new SOP Instance and Study Instance UID, empty where they stay, and
    the Transfer Syntax."""
    from gateway.prepare.burned_in import blackened, rules_of
    from gateway.prepare.edit import edit
    from gateway.prepare.stages import steps_of

    clean = out.with_name(f"{out.name}.clean")
    try:
        if rules := rules_of(stages):
            path, offset, transfer_syntax_uid = blackened(path, offset, transfer_syntax_uid, clean, rules)
        made = edit(path, offset, transfer_syntax_uid, out, steps_of(stages, occasion))
    except OSError as error:
        raise PrepareLater(f"the recipe could not be applied: {error.strerror}") from error
    finally:
        clean.unlink(missing_ok=True)
    return made.sha256, made.length, made.sop_instance_uid, made.study_instance_uid, transfer_syntax_uid


class Renderer:
    """Makes renditions; its processes are started when the first is wanted."""

    def __init__(
        self, folder: Path, path_of: Callable[[Held], Path], settings: Callable[[], Settings] = Settings
    ) -> None:
        """`settings` are those in force: a recipe is looked up when it is applied."""
        self._folder = folder
        self._path_of = path_of
        self._settings = settings
        self._pool = WorkerPool(WORKERS)
        self._strikes = Strikes()
        self.rates: dict[str, CodecRate] = dict(FIRST_GUESS)
        """By Transfer Syntax UID: what a worker does in this box, with the objects that come here."""

    @property
    def workers_lost(self) -> int:
        """How many workers died or had to be ended."""
        return self._pool.lost

    def apply(self, held: Held, recipe: Sequence[str], beat: Callable[[], None] = _no_beat) -> Rendition:
        """Make what the recipe asks of the instance, in its own Transfer Syntax, or native where pixels change.

        Raises PrepareError when that cannot be, PrepareLater when it may be another time.
        """
        settings, instance = self._settings(), held.instance
        stages, occasion = stages_of(settings, recipe), occasion_of(settings, instance)
        syntax, out = instance.transfer_syntax_uid, self._out(held)
        attempt = Attempt(instance.object_id, instance.sop_class_uid, syntax, RECIPE)
        path, offset = self._place_of(held)
        sha256, length, sop_uid, study_uid, syntax = self._work(
            attempt, held.instance.length, out, beat, _edit, path, offset, syntax, out, stages, occasion
        )
        uids = (sop_uid or instance.sop_instance_uid, study_uid or instance.header.study_instance_uid)
        return Rendition(out, syntax, sha256, length, *uids)

    def render(
        self,
        held: Held,
        accepted: frozenset[str],
        beat: Callable[[], None] = _no_beat,
        *,
        allow_decompress: bool = False,
        made: Rendition | None = None,
    ) -> Rendition | None:
        """Make the instance in one of the accepted Transfer Syntaxes; None when none serves; raises PrepareError.

        `allow_decompress`: pixels that were compressed with loss may be decoded. `made`: what its recipe made of it.
        """
        source = made.transfer_syntax_uid if made else held.instance.transfer_syntax_uid
        target = target_syntax(source, accepted, allow_decompress=allow_decompress)
        return None if target is None else self.render_in(held, target, beat, made)

    def render_in(
        self, held: Held, target: str, beat: Callable[[], None] = _no_beat, made: Rendition | None = None
    ) -> Rendition:
        """Make the instance, or what its recipe made of it, in the Transfer Syntax `target`; raises PrepareError when
        that cannot be done exactly, SpoolError when the disk does not let us."""
        instance, out = held.instance, self._out(held)
        source = made.transfer_syntax_uid if made else instance.transfer_syntax_uid
        before = made.length if made else instance.length
        path, offset = (made.path, 0) if made else self._place_of(held)
        attempt = Attempt(instance.object_id, instance.sop_class_uid, source, target)
        sha256, length, seconds = self._work(attempt, before, out, beat, _transcode, path, offset, source, target, out)
        rate = self.rates.get(target)
        if rate is not None:
            self.rates[target] = rate.after(before, length, seconds)
        uids = (instance.sop_instance_uid, instance.header.study_instance_uid)
        if made:
            uids = (made.sop_instance_uid, made.study_instance_uid)
        return Rendition(out, target, sha256, length, *uids)

    def _out(self, held: Held) -> Path:
        return self._folder / f"{held.instance.object_id}.{uuid4().hex[:8]}"

    def _place_of(self, held: Held) -> tuple[Path, int]:
        """Return where the instance's data set is; raises SpoolError."""
        path = self._path_of(held)
        try:
            with open(path, "rb") as file:
                return path, read_meta(file).dataset_offset
        except (OSError, ValueError) as error:
            raise unreadable(error) from error

    def _work(
        self,
        attempt: Attempt,
        length: int,
        out: Path,
        beat: Callable[[], None],
        work: Callable[..., Any],
        *arguments: Any,
    ) -> Any:
        """Have a worker do it, unless it has cost too many; nothing of `out` is left when it fails.

        Raises PrepareError, SpoolError when the disk does not let us.
        """
        why_not = self._strikes.why_not(attempt, time.monotonic())
        if why_not is not None:
            raise PrepareError(why_not)
        cpu_s = FLOOR_S + length / SLOWEST_BYTES_PER_S
        try:
            out.touch(mode=0o640)
        except OSError as error:  # the instance has had no part in this
            raise SpoolError(f"no rendition can be written: {error.strerror}") from error
        try:
            answer = self._pool.run(work, *arguments, cpu_s=cpu_s, deadline_s=DEADLINE_FACTOR * cpu_s, beat=beat)
        except (
            PrepareError,
            SpoolError,
        ):  # a bomb, too, must not fill the disk again and again
            self.clear(out)
            if attempt.target != RECIPE:  # what a recipe could not do it may do when it has been mended
                self._strikes.refused(attempt)
            raise
        except WorkerLost as lost:
            self.clear(out)
            self._strikes.lost(attempt, time.monotonic())
            log.error("worker_lost object=%s reason=%r", attempt.object_id, str(lost))
            raise PrepareLater("the worker did not finish") from lost
        self._strikes.made(attempt)
        return answer

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
