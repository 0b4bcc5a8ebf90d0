"""Whether we stand in for an instance, as a table: PS3.3 C.14.1.1 has the reasons."""

from __future__ import annotations

import pytest

from gateway.admit.commitment import outcome_of
from gateway.spool.promises import Standing


@pytest.mark.parametrize(
    ("standing", "local", "central", "central_late"),
    [
        pytest.param((0, 0, 0, 0, 0, 0), 0x0112, 0x0112, 0x0112, id="not here"),
        pytest.param((0, 0, 0, 0, 0, 1), 0, 0, 0, id="confirmed by all and given up"),
        pytest.param((1, 0, 0, 0, 0, 0), 0x0119, 0x0119, 0x0119, id="of another class"),
        pytest.param((1, 1, 1, 1, 0, 0), 0x0110, 0x0110, 0x0110, id="in quarantine"),
        pytest.param((1, 1, 0, 1, 0, 0), 0, -1, 0x0110, id="under way"),
        pytest.param((2, 2, 0, 1, 0, 0), 0, -1, 0x0110, id="one of two with this UID under way"),
        pytest.param((1, 1, 0, 0, 1, 0), 0, -1, 0x0110, id="no route"),
        pytest.param((1, 1, 0, 0, 0, 0), 0, 0, 0, id="confirmed"),
    ],
)
def test_outcomes(standing, local, central, central_late):
    one = Standing(0, *standing)
    assert outcome_of(one, "local", late=False) == local
    assert outcome_of(one, "local", late=True) == local
    assert outcome_of(one, "central", late=False) == central
    assert outcome_of(one, "central", late=True) == central_late
