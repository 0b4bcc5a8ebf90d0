"""What a box is asked to do: every scanner, every mistake. What goes wrong around the box is in `trouble.py`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from gateway.emulator import services
from gateway.emulator.exam import Places
from gateway.emulator.link import Over
from gateway.emulator.objects import Limits
from gateway.emulator.profile import load, names, quirks
from tests.hil.stage import Stage
from tests.hil.verdict import Failed, NotApplicable


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that is tried; `play` raises Failed or NotApplicable."""

    name: str
    title: str
    group: str
    play: Callable[[Stage], None]
    short: bool = True
    """Belongs to the short form."""
    plotted: bool = False
    """Its course is worth a picture."""


def _stored(stage: Stage, profile: str) -> None:
    outcome = stage.scan(profile)
    stage.all_acknowledged([outcome])
    stage.all_arrive()


TINY = Limits(images=3, side=32)
REPEATED: dict[str, dict[str, Any]] = {"Q10": {"rounds": 2}, "Q26": {"rounds": 3}, "Q30": {"rounds": 3}}
"""What breaks an association on purpose needs another."""
FORMS: dict[str, list[dict[str, Any]]] = {
    "Q4": [{"uid_form": form} for form in ("space", "two-nul", "odd")],
    "Q5": [{"uid_form": form} for form in ("long", "zeros")],
    "Q15": [{"end": end} for end in ("half-close", "abort", "close")],
    "Q30": [{"killed_after": 2}],
}
"""A mistake with several faces; else it is as its own settings have it."""


def _mistaken(stage: Stage, quirk: str) -> None:
    """A scanner with this mistake is served, and what it sent arrives."""
    for form in FORMS.get(quirk, [{}]):
        outcome = stage.scan("ct", limits=TINY, quirks={quirk: form or True}, **REPEATED.get(quirk, {}))
        stage.all_acknowledged([outcome])
    stage.all_arrive()


def _left_open(stage: Stage, quirk: str) -> None:
    """The box releases an association that is left open; an A-ABORT would be taken for a failed study."""
    told = {quirk: {"leave_s": stage.rig.box.idle_timeout_s * 2 + 2}}
    outcome = stage.scan("cr", limits=TINY, quirks=told, rounds=2)
    if outcome.console.aborted:
        raise Failed("the box aborted an association that was left open")
    stage.all_acknowledged([outcome])
    stage.all_arrive()


def _committed(stage: Stage, quirk: str) -> None:
    """The report comes on the association of the request, whatever the scanner calls itself."""
    stage.needs("commitment")
    outcome = stage.scan("ct", limits=TINY, quirks={"Q20": True, quirk: True}, commitment=True)
    stage.all_acknowledged([outcome])
    if outcome.commitments.kept != {uid for uid, _ in outcome.sent}:
        raise Failed("the box did not commit to all that it acknowledged")
    stage.all_arrive()


def _asked(stage: Stage, quirk: str) -> None:
    """A worklist or procedure step that is asked for wrongly is answered; images are taken whatever comes of it."""
    place = stage.target.place
    sop_class = services.WORKLIST if quirk == "Q25" else services.MPPS
    try:
        services.Desk(place, load("ct"), sop_class, 10.0).link.release()
    except Over as over:
        raise NotApplicable(f"the box offers no {'worklist' if quirk == 'Q25' else 'MPPS'}: {over}") from over
    places = Places(place, worklist=place if quirk == "Q25" else None, mpps=place if quirk == "Q28" else None)
    outcome = stage.scan("ct", limits=TINY, quirks={quirk: True}, places=places)
    stage.all_acknowledged([outcome])
    stage.all_arrive()


def _old_tls(stage: Stage, quirk: str) -> None:
    """A scanner that knows only TLS 1.0 is refused, and the box goes on."""
    outcome = stage.scan("cr", limits=TINY, quirks={quirk: True})
    if outcome.acknowledged or not outcome.console.broken:
        raise Failed("a scanner with TLS 1.0 was served")
    stage.scan("cr", limits=TINY)
    stage.all_arrive()
    if not stage.acknowledged:
        raise Failed("after a scanner with TLS 1.0 nobody is served")


def _dropped(stage: Stage, quirk: str) -> None:
    """Files without preamble, that grow, beside a DICOMDIR."""
    stage.needs("folder")
    stage.scan("ct", limits=TINY, quirks={quirk: {"grow_s": 30}}, pace=0.01, folder=stage.rig.box.folder)
    stage.all_arrive()


def _many(stage: Stage, quirk: str) -> None:
    outcome = stage.scan("cr", limits=Limits(images=40 if stage.short else 5000), quirks={quirk: True})
    stage.all_acknowledged([outcome])
    stage.all_arrive()


def _endless(stage: Stage, quirk: str) -> None:
    stop = threading.Event()
    seconds = 2.0 if stage.short else 60.0
    alarm = threading.Timer(seconds, stop.set)
    alarm.start()
    outcome = stage.scan("ct", limits=Limits(side=128), quirks={quirk: True}, stop=stop)
    alarm.cancel()
    stage.figures["objects_per_s"] = round(len(stage.acknowledged) / seconds, 1)
    stage.all_acknowledged([outcome])
    stage.all_arrive()


SPECIAL: dict[str, Callable[[Stage, str], None]] = {
    "Q16": _left_open,
    "Q20": _committed,
    "Q21": _committed,
    "Q25": _asked,
    "Q27": _old_tls,
    "Q28": _asked,
    "Q29": _dropped,
    "tiny": _many,
    "endless": _endless,
}


def scanners() -> list[Case]:
    """Return a case for each profile."""
    found = []
    for name in names():
        about = load(name).about
        found.append(Case(f"profile-{name}", about, "Scanners", partial(_stored, profile=name)))
    return found


def mistakes() -> list[Case]:
    """Return a case for each quirk."""
    return [
        Case(f"quirk-{name}", one.title, "Mistakes", partial(SPECIAL.get(name, _mistaken), quirk=name))
        for name, one in quirks().items()
    ]
