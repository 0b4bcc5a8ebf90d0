"""What a scanner usually does: studies per weekday and hour, learned, so that its silence can be noticed.

Kept in one JSON file beside the spool, written whole under another name first: it is a habit, not custody.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.model.health import Arrivals, ModalityReport
from gateway.spool.files import replace_file

HOURS = 24 * 7
FORGET = 0.25
"""Weight of the newest week in the average."""
ENOUGH_WEEKS = 2
"""Before so many weeks of an hour were seen, nothing is expected of it."""
EXPECTED = 2.0
"""An hour in which fewer studies are usual says nothing by its silence."""
SILENT_AFTER_S = 3600.0


@dataclass(slots=True)
class Habit:
    """One scanner's week."""

    usual: list[float] = field(default_factory=lambda: [0.0] * HOURS)
    weeks: list[int] = field(default_factory=lambda: [0] * HOURS)
    hour: int = -1
    """Hours since 1970, local: the one that is counted now."""
    count: int = 0
    today: int = 0
    last_at: float | None = None
    unlearned: list[list[int]] = field(default_factory=list)
    """Hours that are over and what they brought, of today."""

    def turn(self, hour: int) -> None:
        """Let time go on to `hour`; hours in which the box was off are not learned from."""
        if hour == self.hour:
            return
        if self.hour >= 0 and hour == self.hour + 1:
            self.unlearned.append([self.hour, self.count])
        if hour // 24 != self.hour // 24:
            self._learn()
            self.today = 0
        self.hour, self.count = hour, 0

    def _learn(self) -> None:
        """Take a day into the averages when it is over, so that its silence does not lower what it is measured by."""
        for hour, count in self.unlearned:
            slot = hour % HOURS
            self.usual[slot] += (FORGET if self.weeks[slot] else 1.0) * (count - self.usual[slot])
            self.weeks[slot] += 1
        self.unlearned.clear()

    def usual_by_now(self, second_of_hour: float) -> float | None:
        """Return how many studies this weekday brings until now; None: not learned yet."""
        slot = self.hour % HOURS
        first = slot - slot % 24
        if any(weeks < ENOUGH_WEEKS for weeks in self.weeks[first : slot + 1]):
            return None
        return sum(self.usual[first:slot]) + self.usual[slot] * second_of_hour / 3600

    def silent(self, now: float) -> bool:
        """True when nothing came for an hour in which something usually does, and in the hour before it."""
        slot = self.hour % HOURS
        learned = min(self.weeks[slot], self.weeks[slot - 1]) >= ENOUGH_WEEKS
        busy = min(self.usual[slot], self.usual[slot - 1]) >= EXPECTED
        return learned and busy and (self.last_at is None or now - self.last_at > SILENT_AFTER_S)


class Schedule:
    """The habits of all configured senders; used by one thread."""

    def __init__(self, path: Path, local_offset_s: float | None = None) -> None:
        """`local_offset_s`: local time less UTC; absent: as the system has it."""
        self._path = path
        self._offset_s = local_offset_s
        self._habits = self._read()
        self._saved_hour = -1

    def _read(self) -> dict[str, Habit]:
        try:
            found: dict[str, Any] = json.loads(self._path.read_bytes())
            habits = {name: Habit(**facts) for name, facts in found.items()}
            good = all(len(habit.usual) == HOURS == len(habit.weeks) for habit in habits.values())
        except (OSError, ValueError, TypeError, AttributeError):
            return {}
        return habits if good else {}

    def look(self, names: Iterable[str], arrivals: Iterable[Arrivals], wall: float) -> tuple[ModalityReport, ...]:
        """Count what came since the last look; return a report of each sender in `names`."""
        offset_s = time.localtime(wall).tm_gmtoff if self._offset_s is None else self._offset_s
        # 1970 began on a Thursday; any fixed start of the week will do.
        hour, second = divmod(wall + offset_s, 3600)
        came = {arrival.modality: arrival for arrival in arrivals}
        reports = []
        for name in names:
            habit = self._habits.setdefault(name, Habit())
            habit.turn(int(hour))
            if name in came:
                habit.count += came[name].studies
                habit.today += came[name].studies
                habit.last_at = max(came[name].last_at, habit.last_at or 0.0)
            usual = habit.usual_by_now(second)
            reports.append(
                ModalityReport(
                    name, habit.last_at, habit.today, None if usual is None else round(usual, 1), habit.silent(wall)
                )
            )
        if int(hour) != self._saved_hour:
            self._save()
            self._saved_hour = int(hour)
        return tuple(reports)

    def _save(self) -> None:
        facts = {name: {key: getattr(habit, key) for key in Habit.__slots__} for name, habit in self._habits.items()}
        try:
            replace_file(self._path, json.dumps(facts))
        except OSError:
            return  # next hour again
