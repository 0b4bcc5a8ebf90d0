"""Emulated scanners of every kind and with every mistake: all is in custody, and arrives byte for byte."""

from __future__ import annotations

import hashlib
import struct
import warnings

import pytest
from pydicom.errors import InvalidDicomError

from gateway.emulator.exam import Act, Places, Scanner
from gateway.emulator.objects import Limits
from gateway.emulator.profile import load, names
from gateway.emulator.services import Peer
from tests import wire
from tests.conftest import Box, Storescp, digest, until

SMALL = Limits(images=2, frames=3, side=64)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    archive = Storescp(tmp_path_factory.mktemp("archive"), "+xa").start()
    yield archive
    archive.stop()


@pytest.fixture(scope="module")
def box(tmp_path_factory, archive):
    to = (
        f'[[destination]]\nname = "pacs"\nkind = "dimse"\nhost = "127.0.0.1"\nport = {archive.port}\nae_title = "ANY"\n'
        'compression = "off"\nretry_first_s = 0.1\nretry_ceiling_s = 0.5'
    )
    box = Box(tmp_path_factory.mktemp("scanners"), to, listener="idle_timeout_s = 2")
    yield box.start()
    box.stop()


def scans(box, name: str, limits: Limits = SMALL, rounds: int = 1, studies: int = 1, seed: int = 1, **quirks):
    """Let a scanner work against the gateway; return what it knows."""
    profile = load(name, quirks)
    places = Places(Peer("127.0.0.1", box.port, "EDGEGW"))
    act = Act(studies=studies, seed=seed, limits=limits, pace=0, rounds=rounds, retry_s=0.05, timeout_s=10)
    with warnings.catch_warnings(action="ignore"):
        return Scanner(profile, places, act).run()


def archived(archive) -> set[str]:
    """What the archive has; a file that it still writes is looked at again."""
    found = set()
    for path in archive.folder.iterdir():
        try:
            found.add(digest(path))
        except (InvalidDicomError, EOFError, struct.error, KeyError, ValueError):
            continue
    return found


def in_custody(box) -> set[str]:
    return set(wire.shelves(box.folder / "data"))


@pytest.mark.parametrize("name", names())
def test_what_a_scanner_sent_arrives_byte_for_byte(box, archive, name):
    outcome = scans(box, name)
    assert outcome.acknowledged == len(outcome.sent) > 0
    sent = {digest for _, digest in outcome.sent}
    assert sent <= in_custody(box)
    assert until(lambda: sent <= archived(archive)), "not all is with the archive"


MENDED_BY_ROUNDS = {"Q10": 2, "Q26": 3, "Q30": 2}
"""What breaks an association on purpose needs another."""


TOLD_BELOW = (16, 27)
OF_ITS_SERVICES = (20, 21, 25, 28, 29)
"""Not of storing: test_whole_exam.py."""
MISTAKES = [f"Q{n}" for n in range(1, 31) if n not in (*TOLD_BELOW, *OF_ITS_SERVICES)]


@pytest.mark.parametrize("quirk", [*MISTAKES, "held", "dies", "same-uid"])
def test_a_scanner_with_this_mistake_loses_nothing(box, quirk):
    outcome = scans(
        box,
        "ct",
        rounds=MENDED_BY_ROUNDS.get(quirk, 1),
        seed=int(hashlib.sha256(quirk.encode()).hexdigest()[:6], 16),
        **{quirk: True},
    )
    assert {sent.status for sent in outcome.sent.values()} == {0}
    assert {digest for _, digest in outcome.sent} <= in_custody(box)


@pytest.mark.parametrize("form", ["odd", "two-nul", "zeros"])
def test_uids_of_every_wrong_form_are_kept(box, form):
    outcome = scans(box, "cr", seed=len(form), Q5={"uid_form": form})
    assert outcome.complete and {digest for _, digest in outcome.sent} <= in_custody(box)


@pytest.mark.parametrize("end", ["abort", "close", "leave"])
def test_however_a_scanner_ends_its_association_nothing_is_lost(box, end):
    outcome = scans(box, "cr", seed=100 + len(end), Q15={"end": end, "leave_s": 4})
    assert outcome.complete and outcome.console.aborted == 0


def test_a_scanner_that_takes_an_abort_for_a_failure_is_released(box):
    """Q16: when the gateway is tired of it, it asks for release."""
    outcome = scans(box, "cr", seed=77, rounds=2, Q16={"leave_s": 5})
    assert outcome.complete and outcome.console.aborted == 0


def test_an_association_that_is_held_open_is_released_when_idle_and_opened_again(box):
    """The pause between the studies is longer than the gateway's patience, and costs the scanner nothing."""
    places = Places(Peer("127.0.0.1", box.port, "EDGEGW"))
    act = Act(studies=2, seed=90, limits=Limits(images=1, side=32), pace=1 / 60)
    outcome = Scanner(load("cr", {"held": True}), places, act).run()
    assert outcome.complete and len(outcome.sent) == 2 and outcome.console.broken == {}


def test_old_tls_is_refused_and_the_listener_goes_on(box):
    """Q27: this listener speaks none at all."""
    outcome = scans(box, "cr", seed=78, Q27=True)
    assert outcome.acknowledged == 0 and outcome.console.broken
    assert scans(box, "cr", seed=79).complete


def test_many_tiny_images_on_an_association_each(box):
    outcome = scans(box, "cr", Limits(images=60), seed=80, tiny=True)
    assert outcome.acknowledged == len(outcome.sent) == 60


def test_an_emergency_comes_first_and_a_retake_is_another_object(box):
    places = Places(Peer("127.0.0.1", box.port, "EDGEGW"))
    act = Act(seed=81, limits=SMALL, pace=0, emergency=1.0, retake=1.0)
    outcome = Scanner(load("mg"), places, act).run()
    assert outcome.complete and len(outcome.stat) == 1 and len(outcome.sent) == 6
    act = Act(seed=82, limits=SMALL, pace=0, retake=1.0, delete=1.0)
    outcome = Scanner(load("mg"), places, act).run()
    assert outcome.complete and outcome.deleted == 2 and len(outcome.sent) == 4
