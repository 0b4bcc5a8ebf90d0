"""What an HTTP status of a STOW-RS service means for us: one table (PS3.18 table 10.5.3-1, RFC 9110)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from gateway.model.verdict import Blame, Outcome, Verdict

D, R = Outcome.DEFERRED, Outcome.REFUSED

STATUS: dict[int, tuple[Outcome, Blame, str]] = {
    400: (R, Blame.INSTANCE, "the service says the request is malformed"),
    401: (D, Blame.DESTINATION, "the service does not know us: check credentials or client certificate"),
    403: (D, Blame.DESTINATION, "the service does not authorise us"),
    404: (D, Blame.DESTINATION, "no such resource: check the url of the destination"),
    405: (D, Blame.DESTINATION, "the resource takes no POST: check the url of the destination"),
    407: (D, Blame.DESTINATION, "a proxy asks for credentials"),
    408: (D, Blame.DESTINATION, "the service waited too long for us"),
    409: (R, Blame.INSTANCE, "the service refused the instance"),
    413: (R, Blame.INSTANCE, "the instance is too large for the service"),
    415: (R, Blame.INSTANCE, "the service does not take this media type or Transfer Syntax"),
    421: (D, Blame.DESTINATION, "the request reached a server that is not responsible"),
    422: (R, Blame.INSTANCE, "the service cannot process the instance"),
    429: (D, Blame.DESTINATION, "the service asks for patience"),
    507: (D, Blame.DESTINATION, "the service is out of storage"),
}


def verdict_of_http(status: int) -> Verdict:
    """Return what a status other than success means; server errors and what we do not know wait."""
    outcome, blame, text = STATUS.get(status, (D, Blame.DESTINATION, "the service failed"))
    return Verdict(outcome, blame, status, f"{text} (HTTP {status})", syntax_refused=status == 415)


def heeded(verdict: Verdict, wait_s: float) -> Verdict:
    """Return the verdict of a status with how long the service asks to be left alone, where it may have the instance
    later. Who says when to come again with what is too large means: too large for now (RFC 9110 15.5.14). Pure."""
    if verdict.code == 413 and wait_s:
        return replace(verdict, outcome=D, wait_s=wait_s)
    if verdict.outcome is D and verdict.blame is Blame.DESTINATION:
        return replace(verdict, wait_s=wait_s)
    return verdict


def asked_wait_s(retry_after: str, date: str, now: datetime) -> float:
    """Return how many seconds a service asks to be left alone (RFC 9110 10.2.3); 0 when it does not say, or not so
    that it can be understood. May be infinite: whoever waits knows his own ceiling. Pure.

    A date is taken against the service's own `date` where there is one: our clock may be wrong (contract D10).
    """
    asked = retry_after.strip()
    if asked.isascii() and asked.isdigit():
        return float(asked)
    until = _moment(asked)
    return 0.0 if until is None else max(0.0, (until - (_moment(date) or now)).total_seconds())


def _moment(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
