"""Regular expressions in rules: compiled once, and refused when a value could keep them busy.

A rule is judged while a scanner waits, and Python's `re` lets no other thread run meanwhile. That values are short does
not help: `(a+)+b` needs centuries for 60 letters. So the ways in which a pattern can be laid over a value are counted,
generously, before it is taken; one way takes some ten nanoseconds.
"""

from __future__ import annotations

import re
from math import comb, inf
from re import _parser  # type: ignore[attr-defined]  # the only reading of a pattern that cannot differ from `re`'s
from typing import Any

MAX_VALUE_CHARS = 128
"""`gateway/dicom/part10.py` shows no more of a value."""
MAX_WAYS = 2e7
"""A third of a second for the worst value that we found. Three open repetitions fit, or four behind `^`."""
MAX_PATTERN_CHARS = 1000
_OPEN = 32
"""A repetition with so many possible counts is open: what it takes, those beside it cannot."""

Ways = tuple[int, float]
"""Open repetitions, which share the value among them, and the product of all other choices."""


def compiled(pattern: object) -> re.Pattern[str]:
    """Compile a pattern of a rule; raises ValueError with a sentence."""
    if isinstance(pattern, re.Pattern):
        return pattern
    if not isinstance(pattern, str):
        raise ValueError("must be a regular expression in quotes")
    if len(pattern) > MAX_PATTERN_CHARS:
        raise ValueError(f"is longer than {MAX_PATTERN_CHARS} characters")
    try:
        expression = re.compile(pattern)
        ways = _ways_over_a_value(_parser.parse(pattern), expression.flags)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"is not a regular expression: {error}") from None
    if ways > MAX_WAYS:
        raise ValueError("could take for ever on some values; use fewer repetitions, and none inside another")
    return expression


def _ways_over_a_value(parsed: Any, flags: int) -> float:
    """Return an upper bound of the ways in which a pattern can be laid over a value, from wherever it may begin."""
    opened, choices = _in_sequence(parsed)
    anchored = bool(len(parsed)) and str(parsed[0][0]) == "AT" and not flags & re.MULTILINE
    if not (anchored and str(parsed[0][1]) in ("AT_BEGINNING", "AT_BEGINNING_STRING")):
        opened += 1
    return inf if opened > MAX_VALUE_CHARS else choices * comb(MAX_VALUE_CHARS + opened, opened)


def _in_sequence(sequence: Any) -> Ways:
    opened, choices = 0, 1.0
    for operation, argument in sequence:
        more, factor = _in_piece(str(operation), argument)
        opened, choices = opened + more, choices * factor
    return opened, choices


def _in_piece(operation: str, argument: Any) -> Ways:
    if operation in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
        return _in_repetition(*argument)
    if operation == "BRANCH":
        return _in_either(argument[1])
    if operation == "GROUPREF_EXISTS":
        return _in_either([body for body in argument[1:] if body is not None])
    if operation in ("SUBPATTERN", "ASSERT", "ASSERT_NOT"):
        return _in_sequence(argument[-1])
    return _in_sequence(argument) if operation == "ATOMIC_GROUP" else (0, 1.0)


def _in_either(bodies: Any) -> Ways:
    each = [_in_sequence(body) for body in bodies]
    return max(opened for opened, _ in each), sum(choices for _, choices in each)


def _in_repetition(low: int, high: int, body: Any) -> Ways:
    high = min(int(high), MAX_VALUE_CHARS)
    if low > high:
        return 0, inf
    opened, choices = _in_sequence(body)
    counts = high - int(low) + 1
    if (opened, choices) == (0, 1.0):
        return (1, 1.0) if counts > _OPEN else (0, float(counts))
    try:
        return opened * high, counts * choices**high
    except OverflowError:
        return opened * high, inf
