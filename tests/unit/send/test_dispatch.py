"""No delivery is left in nobody's hand, whatever happens at the same moment."""

from __future__ import annotations

import time

import pytest

from gateway.config.destinations import DimseDestination
from gateway.model.errors import SpoolError
from gateway.model.instance import Door, Header, Origin, Priority
from gateway.model.verdict import Blame, Outcome, Verdict
from gateway.model.way import Way
from gateway.prepare.worker import Renderer
from gateway.send.dispatch import Lane
from gateway.spool.spool import Spool

CT = "1.2.840.10008.5.1.4.1.1.2"
IDENTITY = (CT, "1.2.3", "1.2.840.10008.1.2")


@pytest.fixture
def spool(tmp_path):
    spool = Spool(tmp_path, 0, 100, lambda *_: {"pacs": Way()})
    part = spool.new_part(IDENTITY)
    part.write(b"x" * 100)
    spool.take(part, Header(CT, "1.2.3", "1.2.3", "1.2.3", "CT"), Origin(Door.IMPORT), IDENTITY)
    yield spool
    spool.close()


@pytest.fixture
def lane(spool):
    settings = DimseDestination(name="pacs", kind="dimse", host="localhost", port=1, ae_title="ANY", retry_first_s=1e-9)
    renderer = Renderer(spool.store.renditions, spool.path_of)
    yield Lane(settings, spool, lambda: None, renderer)
    renderer.close()


def test_an_instance_that_is_due_again_as_soon_as_its_verdict_is_written_down_is_carried_again(lane, spool):
    """Nobody of the lane has looked at the verdict: the claim must not be thrown away as one that is in hand still."""
    lane._record(lane._next(0), Verdict.deferred(Blame.DESTINATION, text="busy"), 0.0)
    spool.committer.change(lambda ledger: None)
    lane._refill(Priority.NORMAL, 8)
    assert lane._next(0) is not None


def test_claims_that_cannot_be_given_back_are_kept_and_carried_later(lane, spool, monkeypatch):
    lane._refill(Priority.NORMAL, 8)
    with monkeypatch.context() as fault:
        fault.setattr(spool, "change", lambda apply: (_ for _ in ()).throw(SpoolError("the disk is full")))
        lane._fall_ill(Verdict.deferred(Blame.DESTINATION, text="silent"))
    lane._well()
    assert lane._next(0) is not None


@pytest.mark.parametrize(("asked_s", "least_s"), [(40.0, 40.0), (float("inf"), 300.0), (0.0, 0.0)])
def test_a_lane_is_patient_for_as_long_as_it_is_asked_and_for_no_longer_than_its_ceiling(lane, asked_s, least_s):
    before = time.monotonic()
    delay_s = lane._fall_ill(Verdict(Outcome.DEFERRED, Blame.DESTINATION, 429, "busy", wait_s=asked_s))
    rounding_s = 1e-6  # a sum with the clock is not exact
    assert least_s - rounding_s <= lane.health.retry_at - before
    assert delay_s <= lane.settings.retry_ceiling_s + rounding_s == 300.0 + rounding_s


@pytest.mark.parametrize(("asked_s", "least_s"), [(40.0, 40.0), (float("inf"), 300.0), (0.0, 0.0)])
def test_an_instance_waits_for_as_long_as_is_asked_for_it_alone(lane, asked_s, least_s):
    lane._refill(Priority.NORMAL, 8)
    too_large = Verdict(Outcome.DEFERRED, Blame.INSTANCE, 413, "too large for now", wait_s=asked_s)
    assert least_s <= lane._delay_after(lane._next(0), too_large) <= lane.settings.retry_ceiling_s == 300.0
    assert not lane.health.ill


def test_another_couriers_failure_does_not_shorten_what_was_asked(lane):
    lane._fall_ill(Verdict.deferred(Blame.DESTINATION, text="reset"))
    lane._fall_ill(Verdict(Outcome.DEFERRED, Blame.DESTINATION, 503, "busy", wait_s=40.0))
    asked = lane.health.retry_at
    lane._fall_ill(Verdict.deferred(Blame.DESTINATION, text="reset"))
    assert lane.health.retry_at == asked >= time.monotonic() + 30


def test_couriers_that_fail_together_are_one_failure_and_the_longest_wait_that_is_asked_counts(lane):
    lane.settings = lane.settings.model_copy(update={"retry_first_s": 60.0})  # at least 3 s, before which all fail
    reset = Verdict.deferred(Blame.DESTINATION, text="reset")
    lane._fall_ill(reset)
    soon = lane.health.retry_at
    lane._fall_ill(reset)
    assert (lane.health.attempts, lane.health.retry_at) == (1, soon)
    for asked_s in (200.0, 1.0):
        lane._fall_ill(Verdict(Outcome.DEFERRED, Blame.DESTINATION, 503, "busy", wait_s=asked_s))
        assert lane.health.retry_at >= time.monotonic() + 190
    assert lane.health.attempts == 1
