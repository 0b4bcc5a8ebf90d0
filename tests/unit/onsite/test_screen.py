"""The box's own screen: fits, says in words what it says in colour, and shows nothing of a patient."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.cli import cli
from gateway.config.load import parse
from gateway.onsite.screen import BLUE, GREEN, HEIGHT, RED, WIDTH, YELLOW, Facts, page, paint, state

SETTINGS = parse(
    '[gateway]\nid = "ct1-gateway"\nae_title = "EDGE1"\n[[listener]]\nport = 104\n', Path("/c.toml")
).settings
NOW = 1_800_000_000.0


def status(**changes):
    return {
        "ledger_fault": None,
        "sums_agree": True,
        "accepted": 1024,
        "held": 3,
        "alarms": {},
        "disk": {"room": "open", "used_percent": 71.6, "free_bytes": 74e9},
        "mqtt": {"configured": True, "connected": True},
        "destinations": {"pacs": {"well": True, "queued": 3, "sending": 0, "held": 0, "oldest_age_s": 300.0}},
        **changes,
    }


STUDY = {
    "study_uid": "1.2.3.4",
    "last_at": NOW - 180,
    "received": 512,
    "expected": 512,
    "missing": 0,
    "complete": True,
    "quarantined": 0,
}
WELL = Facts(SETTINGS, True, status(), STUDY, {"eth0": "192.0.2.5", "eth1": "198.51.100.7"}, "", NOW)


def text_of(facts: Facts) -> str:
    return "\n".join(text for _, text in page(facts))


def test_it_says_what_to_type_into_the_scanner_and_what_came_last():
    shown = text_of(WELL)
    for words in ("EDGE1", "192.0.2.5", "port 104", "3 minutes ago, 512 objects of 512", "pacs", "72 % used"):
        assert words in shown
    assert "1.2.3.4" not in shown


@pytest.mark.parametrize(
    ("facts", "colour", "words"),
    [
        (WELL, GREEN, "WELL"),
        (replace(WELL, configured=False, settings=None, status=None), BLUE, "NO CONFIGURATION YET"),
        (replace(WELL, settings=None, status=None), RED, "BAD CONFIGURATION"),
        (replace(WELL, status=None), RED, "NOT RUNNING"),
        (replace(WELL, status=status(ledger_fault="EIO")), RED, "THE DISK FAILS"),
        (replace(WELL, status=status(disk={**status()["disk"], "room": "full"})), RED, "FULL"),
        (replace(WELL, status=status(alarms={"custody_rot": 1})), RED, "call for help"),
        (replace(WELL, status=status(alarms={"ledger_rot": 1})), RED, "call for help"),
        (replace(WELL, status=status(sums_agree=False)), RED, "call for help"),
        (replace(WELL, status=status(alarms={"study_short": 1})), YELLOW, "study_short"),
        (replace(WELL, status=status(destinations={"pacs": {"well": False}})), YELLOW, "WAITING FOR pacs"),
        (replace(WELL, status=status(destinations={"pacs": {"held": 2}})), YELLOW, "HELD"),
    ],
)
def test_each_state_has_its_colour_and_its_words(facts, colour, words):
    assert state(facts)[0] == colour
    assert words in state(facts)[1]
    assert words in text_of(facts)


def test_it_fits_whatever_there_is_to_say():
    many = {
        f"destination-with-a-long-name-{n}": {"well": False, "queued": 10**9, "oldest_age_s": 1e9} for n in range(50)
    }
    listeners = "".join(
        f"[[listener]]\nport = {n}\naddress = '2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff'\n" for n in range(1, 30)
    )
    facts = replace(
        WELL,
        settings=parse(f"[gateway]\nid = '{'x' * 63}'\n{listeners}", Path("/c.toml")).settings,
        status=status(destinations=many),
        addresses={f"eth{n}": "192.0.2.123" for n in range(40)},
        answer="NOT TAKEN.\n" + "a long line of a reason " * 30 + "\nmore\n" * 40,
    )
    rows = page(facts)
    assert len(rows) == HEIGHT - 1
    assert all(len(text) <= WIDTH for _, text in rows)
    bare = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", paint(rows))
    assert len(bare.split("\r\n")) == HEIGHT - 1
    assert bare.isprintable() or set(filter(lambda c: not c.isprintable(), bare)) == {"\r", "\n"}


def test_a_peers_words_are_not_shown():
    said = status(destinations={"pacs": {"well": False, "reason": "PATIENT^CANARY unknown", "unanswered": "CANARY"}})
    assert "CANARY" not in text_of(replace(WELL, status=said))


def test_what_is_wrong_with_a_configuration_that_was_brought_is_shown():
    answer = "NOT TAKEN. The box waits.\n\nhead\n\nWhat must be mended:\n\n  line 4: listener[0].port: is bad\n"
    assert "line 4: listener[0].port" in text_of(replace(WELL, answer=answer))


def test_the_command_shows_a_running_box(make_box):
    box = make_box().start()
    shown = CliRunner().invoke(cli, ["--config", str(box.config), "screen", "--once"])
    assert shown.exit_code == 0
    assert "WELL" in shown.output
    assert str(box.port) in shown.output
