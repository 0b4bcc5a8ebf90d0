"""What gets most through: pure judgement, with the line and the clock as numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model.instance import Door, Header, Origin, SOPInstance
from gateway.model.transfer_syntax import EXPLICIT_LE, JPEG_2000_LOSSLESS, JPEG_LS_LOSSLESS
from gateway.prepare.choice import FIRST_GUESS, WORTH, CodecRate, choose
from gateway.send.shaping import FRESH_LOOK_S, TRIAL_COUNT, Shaper

CT = "1.2.840.10008.5.1.4.1.1.2"
rates = st.dictionaries(
    st.sampled_from(sorted(FIRST_GUESS)),
    st.builds(CodecRate, st.floats(0.5, 20), st.floats(1e4, 1e9)),
)


@given(st.floats(1e3, 1e10), rates, st.integers(1, 8))
def test_a_codec_is_chosen_only_when_it_promises_more_than_the_line(line, known, workers):
    choice = choose(line, known, workers)
    if choice.transfer_syntax_uid is not None:
        rate = known[choice.transfer_syntax_uid]
        assert min(rate.bytes_per_s * workers, rate.ratio * line) > WORTH * line
        assert all(
            min(r.bytes_per_s * workers, r.ratio * line) <= min(rate.bytes_per_s * workers, rate.ratio * line)
            for r in known.values()
        )


@given(rates, st.integers(1, 8))
def test_nothing_is_coded_for_a_line_that_nobody_measured(known, workers):
    assert choose(None, known, workers).transfer_syntax_uid is None


def test_a_slow_line_gets_the_densest_and_a_fast_one_none():
    assert choose(100e3, FIRST_GUESS, 2).transfer_syntax_uid in (JPEG_LS_LOSSLESS, JPEG_2000_LOSSLESS)
    assert choose(2.5e6, FIRST_GUESS, 2).transfer_syntax_uid == JPEG_LS_LOSSLESS
    assert choose(500e6, FIRST_GUESS, 2).transfer_syntax_uid is None


@given(st.floats(0.1, 50), st.floats(1e5, 1e9))
def test_measurements_replace_the_guess(ratio, speed):
    rate = FIRST_GUESS[JPEG_LS_LOSSLESS]
    for _ in range(100):
        rate = rate.after(10**6, max(1, round(10**6 / ratio)), 10**6 / speed)
    assert abs(rate.bytes_per_s - speed) < 0.01 * speed
    assert abs(rate.ratio - ratio) < 0.05 * ratio


def ct(syntax=EXPLICIT_LE):
    return SOPInstance("0" * 32, CT, "1.2", syntax, "", 500_000, Header(), Origin(Door.DIMSE), 0.0)


def carried(meter, seconds, count=1, size=500_000):
    for number in range(count):
        meter.begin(number * seconds)
        meter.end((number + 1) * seconds, size)


def test_an_outage_does_not_make_the_line_slow():
    meter = on_a_slow_line().line
    before = meter.bytes_per_s
    meter.begin(10.0)
    meter.end(100.0, 0)
    meter.begin(100.0)
    meter.end(100.2, 500_000)
    assert meter.bytes_per_s == pytest.approx(before)


def on_a_slow_line() -> Shaper:
    shaper = Shaper("auto", FIRST_GUESS)
    shaper.learn(CT, frozenset({EXPLICIT_LE, JPEG_LS_LOSSLESS}))
    carried(shaper.line, 0.2)
    return shaper


def test_nothing_is_coded_before_the_peer_said_that_it_takes_it():
    shaper = Shaper("jpeg-ls", FIRST_GUESS)
    assert shaper.wanted(CT, EXPLICIT_LE, 0.0) is None
    shaper.learn(CT, frozenset({EXPLICIT_LE}))
    assert shaper.wanted(CT, EXPLICIT_LE, 0.0) is None
    shaper.learn(CT, frozenset({EXPLICIT_LE, JPEG_LS_LOSSLESS}))
    assert shaper.wanted(CT, EXPLICIT_LE, 0.0) == JPEG_LS_LOSSLESS
    assert shaper.wanted(CT, JPEG_2000_LOSSLESS, 0.0) is None
    shaper.refuse(CT, JPEG_LS_LOSSLESS)
    assert shaper.wanted(CT, EXPLICIT_LE, 0.0) is None


def test_now_and_then_the_line_is_looked_at_without_a_codec():
    shaper = on_a_slow_line()
    now = FRESH_LOOK_S + 1
    assert shaper.wanted(CT, EXPLICIT_LE, now) is None
    assert shaper.wanted(CT, EXPLICIT_LE, now + 1) == JPEG_LS_LOSSLESS
    assert shaper.wanted(CT, EXPLICIT_LE, now + 2 * FRESH_LOOK_S) is None
    assert shaper.report()["choice"] == "jpeg-ls"


def test_a_codec_that_brings_nothing_is_given_up_and_tried_again_later():
    shaper = on_a_slow_line()
    carried(shaper.through[None], 0.2, 10)
    carried(shaper.through[JPEG_LS_LOSSLESS], 0.3, TRIAL_COUNT)
    assert shaper.wanted(CT, EXPLICIT_LE, 20.0) is None
    assert "with a codec" in shaper.report()["why"]
    assert shaper.wanted(CT, EXPLICIT_LE, 21.0) is None
    assert shaper.wanted(CT, EXPLICIT_LE, 400.0) is None  # a look at the line
    assert shaper.wanted(CT, EXPLICIT_LE, 401.0) == JPEG_LS_LOSSLESS
