"""What a lane knows about its line and its peer, and which Transfer Syntax it therefore wants for an instance."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from gateway.model.transfer_syntax import COMPRESSION, NATIVE
from gateway.prepare.choice import Choice, CodecRate, choose
from gateway.prepare.worker import WORKERS

AUTO = ("jpeg-ls", "jpeg-2000", "rle")
"""What `auto` chooses from: the codecs that most archives read."""
MEASURE_S = 2.0
"""The line is judged by what it carried in so many busy seconds."""
MEASURE_BYTES = 256 * 1024
"""Less says more about round trips than about the line."""
FRESH_LOOK_S = 30.0
"""So often an instance goes as it came although a codec looks better: the line may have become fast."""
FRESH_TRIAL_S = 300.0
"""So long a codec is not tried again after it brought less than it promised."""
TRIAL_COUNT = 8
"""Instances before a codec is judged by what it brought."""


class Meter:
    """Bytes a second while anything is on its way, all couriers of the lane together."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._active = 0
        self._busy_since = 0.0
        self._busy_s = 0.0
        self._bytes = 0
        self.count = 0
        self.bytes_per_s: float | None = None
        """None until enough was carried."""

    def begin(self, now: float) -> None:
        """A courier starts to carry; `now` is monotonic."""
        with self._lock:
            if not self._active:
                self._busy_since = now
            self._active += 1

    def end(self, now: float, carried: int) -> None:
        """A courier has been answered; `carried` bytes arrived, 0 when it failed: waiting for nobody is no measure."""
        with self._lock:
            self._active -= 1
            span_s, self._busy_since = now - self._busy_since, now
            if not carried:
                return
            self.count += 1
            self._bytes += carried
            self._busy_s += span_s
            if self._bytes >= MEASURE_BYTES and self._busy_s > 0:
                self.bytes_per_s = self._bytes / self._busy_s
            if self._busy_s > MEASURE_S:
                self._busy_s, self._bytes = self._busy_s / 2, self._bytes // 2


class Shaper:
    """One lane's choice of Transfer Syntaxes."""

    def __init__(self, compression: str, rates: Mapping[str, CodecRate]) -> None:
        self._compression = compression
        self._rates = rates
        self._accepted: dict[str, frozenset[str]] = {}
        self._refused: set[tuple[str, str]] = set()
        self._looked_at = 0.0
        self._given_up: dict[str, float] = {}
        self.line = Meter()
        """Bytes as they are on the wire."""
        self.through: defaultdict[str | None, Meter] = defaultdict(Meter)
        """Bytes of the instances as they came, coding included, by the Transfer Syntax that was wanted."""
        self.renditions = 0
        self.passed_on = 0
        """Instances that could not be coded exactly, or not shorter: they went as they came."""
        self.saved_bytes = 0
        self.by_codec: dict[str, tuple[int, int, int]] = {}
        """Name of a codec -> renditions that were delivered, their bytes as they came, as they were sent."""
        self.choice = Choice(None, "nothing was sent yet")

    def candidates(self) -> list[str]:
        """Return the Transfer Syntaxes that we may want, to be proposed to the peer."""
        names = AUTO if self._compression == "auto" else (self._compression,)
        return [COMPRESSION[name] for name in names if name != "off"]

    def learn(self, sop_class_uid: str, accepted: frozenset[str] | None) -> None:
        """Remember what the peer takes for a SOP class; None: it did not say."""
        if accepted is not None:
            self._accepted[sop_class_uid] = accepted

    def count(self, transfer_syntax_uid: str, came_bytes: int, sent_bytes: int) -> None:
        """Note a rendition that was delivered."""
        self.renditions += 1
        self.saved_bytes += came_bytes - sent_bytes
        codec = next((name for name, uid in COMPRESSION.items() if uid == transfer_syntax_uid), "other")
        objects, came, sent = self.by_codec.get(codec, (0, 0, 0))
        self.by_codec[codec] = (objects + 1, came + came_bytes, sent + sent_bytes)

    def refuse(self, sop_class_uid: str, transfer_syntax_uid: str) -> None:
        """Remember that the peer refused an instance in this syntax, whatever it says it takes."""
        self._refused.add((sop_class_uid, transfer_syntax_uid))

    def wanted(self, sop_class_uid: str, transfer_syntax_uid: str, now: float) -> str | None:
        """Return the Transfer Syntax to send a native instance in; None: as it came. `now` is monotonic."""
        if self._compression == "off" or transfer_syntax_uid not in NATIVE:
            return None
        accepted = self._accepted.get(sop_class_uid, frozenset())
        usable = [
            syntax
            for syntax in self.candidates()
            if syntax in accepted and (sop_class_uid, syntax) not in self._refused and syntax != transfer_syntax_uid
        ]
        if not usable:
            self.choice = Choice(None, "the peer has not said yet that it takes a codec of ours")
        elif self._compression != "auto":
            self.choice = Choice(usable[0], "configured")
        else:
            rates = {
                syntax: rate
                for syntax, rate in self._rates.items()
                if syntax in usable and now - self._given_up.get(syntax, -FRESH_TRIAL_S) >= FRESH_TRIAL_S
            }
            self.choice = self._kept_its_promise(choose(self.line.bytes_per_s, rates, WORKERS), now)
            if self.choice.transfer_syntax_uid is None:
                self._looked_at = now
            elif now - self._looked_at > FRESH_LOOK_S:
                self._looked_at = now
                return None
        return self.choice.transfer_syntax_uid

    def _kept_its_promise(self, choice: Choice, now: float) -> Choice:
        """Return the choice, unless it was tried and got no more through: a slow archive is not a slow line."""
        syntax = choice.transfer_syntax_uid
        bare, coded = self.through[None].bytes_per_s, self.through[syntax]
        if syntax is None or bare is None or coded.bytes_per_s is None or coded.count < TRIAL_COUNT:
            return choice
        if coded.bytes_per_s > bare:
            return choice
        self._given_up[syntax] = now
        self.through[syntax] = Meter()
        return Choice(None, f"{coded.bytes_per_s / 1e6:.1f} MB/s with a codec, {bare / 1e6:.1f} without")

    def report(self) -> dict[str, Any]:
        """Return the choice, why, and what came of it."""
        rate = self.line.bytes_per_s
        chosen = next((n for n, uid in COMPRESSION.items() if uid == self.choice.transfer_syntax_uid), "as it came")
        return {
            "configured": self._compression,
            "choice": chosen,
            "why": self.choice.why,
            "line_bytes_per_s": None if rate is None else round(rate),
            "renditions": self.renditions,
            "passed_on": self.passed_on,
            "saved_bytes": self.saved_bytes,
        }
