"""What `status` says of a destination, in words."""

from __future__ import annotations

import pytest

from gateway.cli.status_cmd import _pace

BOX = {"limit_bytes_per_s": 1_250_000}
QUIET = {
    "backlog_objects": 0,
    "rate": {"bytes_per_s": 0, "objects_per_s": 0},
    "limited_by": None,
    "bandwidth": {"limit_bytes_per_s": 625_000},
    "compression": {
        "configured": "auto",
        "choice": "jpeg-ls",
        "why": "line 0.6 MB/s",
        "renditions": 0,
        "passed_on": 0,
        "saved_bytes": 0,
    },
}


def waiting(age_s: float) -> dict:
    return {"backlog_objects": 41, "backlog_bytes": 21_600_000, "oldest_age_s": age_s}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (QUIET, ""),
        (waiting(119), "41 wait (21.6 MB), the oldest for 119 s"),
        (QUIET | waiting(12 * 60), "41 wait (21.6 MB), the oldest for 12 min"),
        (QUIET | waiting(5 * 3600), "41 wait (21.6 MB), the oldest for 5 h"),
        (QUIET | waiting(3 * 86400), "41 wait (21.6 MB), the oldest for 3 d"),
        (QUIET | {"limited_by": "destination"}, "held to 5 Mbit/s by the bandwidth of the destination"),
        (QUIET | {"limited_by": "box"}, "held to 10 Mbit/s by the bandwidth of the box"),
        (
            QUIET | {"limited_by": "destination", "bandwidth": {"limit_bytes_per_s": 0}},
            "closed at this hour by the bandwidth of the destination",
        ),
        (
            QUIET | {"rate": {"bytes_per_s": 600_000, "objects_per_s": 1.2}},
            "0.6 MB/s, 1.2 objects/s, codec now: jpeg-ls (line 0.6 MB/s)",
        ),
        (
            QUIET | {"compression": QUIET["compression"] | {"renditions": 9, "passed_on": 2, "saved_bytes": 3_000_000}},
            "9 went compressed, 3.0 MB saved, 2 could not be compressed",
        ),
    ],
)
def test_a_destination_is_told_in_words(row, said):
    assert ", ".join(_pace(row, BOX)) == said
