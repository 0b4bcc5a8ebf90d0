"""Rules strike when they say, and say what is wrong with them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.emulator.rules import Rule, RuleError, Rules, parse


@given(after=st.integers(0, 20), count=st.integers(0, 5), every=st.integers(1, 4))
def test_a_rule_by_number_strikes_as_often_as_it_says(after, count, every):
    rule = Rule(do="busy", after=after, count=count, every=every)
    struck = [number for number in range(1, 101) if rule.meets(number, 0.0)]
    assert struck == list(range(after + 1, 101, every))[: count or None]


@pytest.mark.parametrize(("now_s", "meets"), [(0, False), (4.9, False), (5, True), (7.9, True), (8, False)])
def test_a_rule_by_time_strikes_between_its_times(now_s, meets):
    assert Rule(do="slow", from_s=5, for_s=3).meets(1, now_s) == meets


def test_rules_count_each_kind_of_event_by_itself():
    rules = Rules([Rule(on="store", do="busy", after=1, count=1), Rule(on="echo", do="hang")], clock=lambda: 0.0)
    assert [len(rules.strike("store")) for _ in range(3)] == [0, 1, 0]
    assert [rule.do for rule in rules.strike("echo")] == ["hang"]
    assert rules.strike("commit") == [] and rules.met == 2


def test_a_rule_is_read_from_a_line():
    assert parse("on=commit do=slow seconds=2.5, count=3") == Rule(on="commit", do="slow", seconds=2.5, count=3)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has the form"),
        ("busy", "has the form"),
        ("do=nosuch", "do:"),
        ("do=busy after=-1", "after"),
        ("x=1 do=busy", "x:"),
    ],
)
def test_what_is_no_rule_is_refused(text, said):
    with pytest.raises(RuleError, match=said):
        parse(text)
