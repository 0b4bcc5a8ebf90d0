"""Days left of certificates."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest
import trustme

from gateway.identity.expiry import days_left


def test_the_first_to_end_counts(tmp_path):
    ca, path = trustme.CA(), tmp_path / "chain.pem"
    for days in (40, 10):
        cert = ca.issue_cert("a.test", not_after=datetime.now(UTC) + timedelta(days=days))
        cert.cert_chain_pems[0].write_to_path(path, append=True)
    assert days_left(path, time.time()) == pytest.approx(10, abs=0.1)
    assert days_left(path, time.time() + 20 * 86400) == pytest.approx(-10, abs=0.1)


def test_what_cannot_be_read_is_unknown(tmp_path):
    assert days_left(tmp_path / "absent.pem", 0.0) is None
    (tmp_path / "bad.pem").write_text("nonsense")
    assert days_left(tmp_path / "bad.pem", 0.0) is None
