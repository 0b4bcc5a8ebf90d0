"""When certificates end."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509


def days_left(cert_file: Path, now: float) -> float | None:
    """Return how many days the first to end of a PEM file's certificates still has; negative: it ended.

    `now` is the wall clock. None: the file cannot be read or holds no certificate.
    """
    try:
        ends = [c.not_valid_after_utc.timestamp() for c in x509.load_pem_x509_certificates(cert_file.read_bytes())]
    except (OSError, ValueError):
        return None
    return round((min(ends) - now) / 86400, 1)
