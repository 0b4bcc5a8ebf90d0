"""STAT overtakes a study that is on its way, and objects leave no faster than they may; `status` says so in words.

Times have lower bounds only, which a slow machine cannot break.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from gateway.send.bandwidth import burst_bytes
from tests.conftest import dataset_bytes

AS_IT_CAME = 'compression = "off"\n'


def scan(box, *files, options=()):
    command = ["storescu", *options, "127.0.0.1", str(box.port), *map(str, files)]
    assert subprocess.run(command, env={**os.environ, "TCP_NODELAY": "1"}).returncode == 0


def status_words(box) -> str:
    command = [sys.executable, "-m", "gateway", "--config", str(box.config), "status"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("whose", ["destination", "box"])
def test_no_more_leaves_in_a_second_than_the_bandwidth_allows(
    make_box, make_archive, dimse, ct_files, digest_of, wait_until, whose
):
    bytes_per_s, files = 1_000_000, ct_files[:4]
    archives = [make_archive().start() for _ in range(2)]
    own = f"bandwidth = {{ bytes_per_s = {bytes_per_s} }}\n" if whose == "destination" else ""
    shared = f"[bandwidth]\nbytes_per_s = {bytes_per_s}\n" if whose == "box" else ""
    tables = [dimse(archive.port, f"pacs{n}", AS_IT_CAME + own) for n, archive in enumerate(archives)]
    box = make_box("".join(tables), more=shared).start()
    each = sum(len(dataset_bytes(path)) for path in files)
    through_one_limit = each if whose == "destination" else len(archives) * each

    started = time.monotonic()
    scan(box, *files)
    assert wait_until(box.delivered_all), box.log()
    took_s = time.monotonic() - started

    assert took_s >= (through_one_limit - burst_bytes(bytes_per_s)) / bytes_per_s
    for archive in archives:
        assert archive.digests() == {digest_of(path) for path in files}
    answer = box.ask("status")
    row = answer["destinations"]["pacs0"]
    assert (row["bandwidth"]["waited_bytes"] > 0, answer["bandwidth"]["waited_bytes"] > 0) == (
        whose == "destination",
        whose == "box",
    )
    assert (row["backlog_objects"], row["backlog_bytes"], row["oldest_age_s"]) == (0, 0, None)
    assert row["limited_by"] is None, "nothing waits any more"
    assert row["rate"]["bytes_per_s"] <= bytes_per_s


def test_stat_overtakes_a_study_that_is_on_its_way_and_may_pass_the_limit(
    make_box, make_archive, dimse, ct_files, digest_of, wait_until
):
    archive = make_archive().start()
    limit = "associations = 1\nbandwidth = { bytes_per_s = 100_000, stat_passes = true }\n"
    routes = (
        '[[route]]\nto = ["pacs"]\n[[route]]\nto = ["pacs"]\npriority = "stat"\nwhen = { calling_ae_title = ["ER"] }\n'
    )
    box = make_box(dimse(archive.port, more=AS_IT_CAME + limit) + routes).start()
    scan(box, *ct_files[:11])  # the last of them is due in about a minute
    assert wait_until(lambda: box.ask("status")["destinations"]["pacs"]["rate"]["bytes_per_s"] > 0)

    scan(box, ct_files[11], options=("-aet", "ER"))
    urgent = digest_of(ct_files[11])
    assert wait_until(lambda: urgent in {row["sha256"] for row in box.ask("queue_list", states=["confirmed"])}), (
        box.log()
    )
    row = box.ask("status")["destinations"]["pacs"]
    assert row["backlog_objects"] >= 1
    assert row["backlog_bytes"] >= row["backlog_objects"] * min(len(dataset_bytes(path)) for path in ct_files)
    assert row["oldest_age_s"] > 0
    said = status_words(box)
    assert re.search(r"^pacs: \d+ wait \(\d+\.\d MB\), the oldest for ", said, re.MULTILINE)
    assert "held to 0.8 Mbit/s by the bandwidth of the destination" in said
    assert box.stop() == 0, "a stop does not wait for the bandwidth"


def test_a_new_bandwidth_counts_when_the_file_is_read_again(make_box, make_archive, dimse, ct_files, wait_until):
    archive = make_archive().start()
    slow = "[bandwidth]\nbytes_per_s = 8000\n"  # more than a minute for each
    box = make_box(dimse(archive.port, more=AS_IT_CAME), more=slow).start()
    scan(box, *ct_files[:2])
    assert wait_until(lambda: box.ask("status")["destinations"]["pacs"]["limited_by"] == "box")
    box.config.write_text(box.config.read_text().replace(slow, ""))
    box.process.send_signal(signal.SIGHUP)
    assert wait_until(box.delivered_all), box.log()
    assert box.ask("status")["bandwidth"]["limit_bytes_per_s"] is None
