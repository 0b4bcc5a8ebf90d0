"""The oracle is believed only because each violation was shown to be noticed, and an honest run is not accused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.crash.oracle import Evidence, violations

A, B, C = (("1.2.1", "aa"), ("1.2.2", "bb"), ("1.2.3", "cc"))
ALTERED = ("1.2.1", "ff")
HONEST = Evidence(
    sent={A, B, C},
    acknowledged={A, B},
    held={B},
    delivered={"pacs": {A}, "cloud": {A, C}},
    status={"sums_agree": True, "alarms": [], "accepted": 2},
)


def test_an_honest_run_is_not_accused():
    assert violations(HONEST) == []
    quiet = replace(HONEST, held=set(), delivered={"pacs": {A, B}, "cloud": {A, B, C}}, quiet=True)
    assert violations(quiet) == []


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"held": set()}, "lost: acknowledged, neither held nor at pacs: 1, such as 1.2.2"),
        ({"held": {ALTERED, B}, "delivered": {"pacs": set()}}, "lost: acknowledged, neither held nor at pacs"),
        ({"held": set(), "delivered": {}}, "lost: acknowledged and not held: 2"),
        ({"delivered": {"pacs": {A, B}, "cloud": {B}}}, "lost: acknowledged, neither held nor at cloud"),
        ({"delivered": {"pacs": {A, ALTERED}}}, "altered or made up: pacs has what nobody sent"),
        ({"held": {B, ALTERED}}, "altered or made up: held, and nobody sent it"),
        ({"acknowledged": {A, ("1.2.9", "99")}, "held": {("1.2.9", "99")}}, "the campaign itself is wrong"),
        ({"quiet": True}, "never arrived: acknowledged, said to be delivered, not at pacs: 1, such as 1.2.2"),
        ({"status": {"sums_agree": False}}, "the gateway's own sums disagree"),
        ({"status": {"alarms": ["custody_loss"], "accepted": 2}}, "the gateway raises custody_loss"),
        ({"status": {"alarms": ["quarantined"], "accepted": 2}}, "the gateway raises quarantined"),
        ({"status": {"alarms": ["uid_conflict"], "accepted": 2}}, "the gateway raises uid_conflict"),
        ({"status": {"sums_agree": True, "accepted": 0}}, "1 objects acknowledged and on the shelves, 0 in the sums"),
    ],
)
def test_each_violation_is_noticed_by_its_name(change, word):
    assert any(word in fault for fault in violations(replace(HONEST, **change))), violations(replace(HONEST, **change))


def test_what_the_campaign_damaged_itself_must_be_in_quarantine_and_nothing_else_may():
    seen = replace(
        HONEST, held={B, ALTERED}, rot={ALTERED}, status={"sums_agree": True, "alarms": ["quarantined"], "accepted": 2}
    )
    assert violations(seen) == []
    assert violations(replace(seen, rot=set())) != []
    assert violations(replace(seen, status={"alarms": ["custody_loss"], "accepted": 2})) != []
