"""Bad lines to both kinds of destination: slow and far, cut again and again, dead, and names that do not resolve.

The long form sends for CAMPAIGN_SECONDS (30 minutes) over each.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.emulator.line import Line
from gateway.emulator.wan import Wan
from tests.crash.archive import DimseArchive, Server
from tests.crash.campaign import Scanner, count_of, done_already, kept_on_failure, prove, report, seed_of
from tests.crash.web_archive import WebArchive

FAR = Line(round_trip_ms=300, rate_mbit_s=2)
LINES = {
    "2 Mbit/s": (Line(rate_mbit_s=2), Line(rate_mbit_s=2)),
    "300 ms": (Line(round_trip_ms=300), Line(round_trip_ms=300)),
    "cuts every 5 s": (Line(round_trip_ms=300, rate_mbit_s=2, cut_every_s=1.5), Line(rate_mbit_s=2, cut_every_s=5)),
    "black hole": (Line(black_hole=True), Line(black_hole=True)),
}
"""The line of the short form, and that of the long one."""
COMMON = 'compression = "off"\ntimeout_s = 2\nretry_first_s = 0.1\nretry_ceiling_s = 1\nassociations = 2\n'


def destination(archive: Server, host: str, port: int) -> str:
    if isinstance(archive, WebArchive):
        return f'[[destination]]\nname = "cloud"\nkind = "stow"\nurl = "http://{host}:{port}/studies"\n{COMMON}'
    return (
        f'[[destination]]\nname = "pacs"\nkind = "dimse"\nhost = "{host}"\nport = {port}\nae_title = "ANY"\n'
        f'confirm = "commitment"\nconfirm_after_s = 0.2\nconfirm_timeout_s = 3\nreport_wait_s = 2\n{COMMON}'
    )


def over(make_box, wait_until, line: Line, seconds: float, seed: int) -> dict[str, int]:
    """Send for so long over a line, then let it be good; return counts."""
    pacs, cloud, luck = DimseArchive(), WebArchive(), random.Random(seed)
    with Wan(line, ("127.0.0.1", pacs.port)) as first, Wan(line, ("127.0.0.1", cloud.port)) as second:
        tables = destination(pacs, "127.0.0.1", first.port) + destination(cloud, "127.0.0.1", second.port)
        box, scanner = make_box(tables).start(), Scanner(seed)
        deadline, took = time.monotonic() + seconds, []
        while time.monotonic() < deadline:
            started = time.monotonic()
            count = luck.randint(1, 4)
            assert scanner.send(box.port, count) == count, "the scanner was made to wait, or refused"
            took.append(time.monotonic() - started)
            time.sleep(luck.uniform(0.2, 2.0))
        assert statistics.median(took) < 1.0, "a bad line is no matter of the scanner's"
        assert sum(seconds >= 5 for seconds in took) <= 1, "once it may be the machine that pauses"
        if line.black_hole:
            assert not pacs.received
            assert not cloud.received
            for wan in (first, second):
                wan.set_line(FAR)
        patience_s = 40 + seconds * (1 if line.black_hole else 0.25)  # what a hole kept back has a far line before it
        assert wait_until(box.delivered_all, patience_s), box.ask("status")
        prove(box, [scanner], {"pacs": pacs, "cloud": cloud})
        box.kill()
        counts = {"acknowledged": len(scanner.acknowledged), "cuts": first.traffic.cuts + second.traffic.cuts}
    pacs.close()
    cloud.close()
    return counts


@pytest.mark.parametrize("name", LINES)
def test_a_bad_line_delays_and_loses_nothing(make_box, tmp_path, wait_until, name):
    with kept_on_failure(tmp_path, "line", seed_of(name)):
        over(make_box, wait_until, LINES[name][0], 5, seed_of(name))


@pytest.mark.long
@pytest.mark.timeout(2 * 3600)
@pytest.mark.parametrize("name", LINES)
def test_a_bad_line_for_half_an_hour(make_box, tmp_path, wait_until, name):
    row = f"line: {name}"
    if done_already(row):
        pytest.skip("this program has passed it already")
    seconds = count_of("SECONDS", 1800)
    with kept_on_failure(tmp_path, "line-long", seed_of(row)):
        counts = over(make_box, wait_until, LINES[name][1], seconds, seed_of(row))
    report(row, minutes=round(seconds / 60), **counts)


RESOLVER = """
import pathlib, socket, time
there, honest = pathlib.Path(__file__).with_name("name-server-is-there"), socket.getaddrinfo
def getaddrinfo(host, *more, **named):
    if host == "archive.test":
        if not there.exists():
            time.sleep(0.3)
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        host = "127.0.0.1"
    return honest(host, *more, **named)
socket.getaddrinfo = getaddrinfo
"""


@pytest.fixture
def name_server(tmp_path) -> tuple[dict[str, str], Callable[[], None], Callable[[], None]]:
    """(environment in which archive.test does not resolve, what makes it resolve, what makes it not resolve)."""
    folder: Path = tmp_path / "resolver"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(RESOLVER)
    there = folder / "name-server-is-there"
    return {"PYTHONPATH": str(folder)}, there.touch, lambda: there.unlink(missing_ok=True)


@pytest.mark.long
@pytest.mark.timeout(2 * 3600)
def test_names_that_come_and_go_for_half_an_hour(make_box, tmp_path, wait_until, name_server):
    row = "line: names that come and go"
    if done_already(row):
        pytest.skip("this program has passed it already")
    env, comes_back, goes = name_server
    pacs, cloud, seed, seconds = DimseArchive(), WebArchive(), seed_of(row), count_of("SECONDS", 1800)
    scanner, luck, times = Scanner(seed), random.Random(seed), 0
    with kept_on_failure(tmp_path, "dns-long", seed):
        tables = destination(pacs, "archive.test", pacs.port) + destination(cloud, "archive.test", cloud.port)
        box = make_box(tables).start(env=env)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            comes_back() if times % 2 else goes()
            times += 1
            count = luck.randint(1, 4)
            assert scanner.send(box.port, count) == count, "the scanner was made to wait, or refused"
            time.sleep(luck.uniform(1.0, 10.0))
        comes_back()
        assert wait_until(box.delivered_all, 60), box.ask("status")
        prove(box, [scanner], {"pacs": pacs, "cloud": cloud})
        box.kill()
    pacs.close()
    cloud.close()
    report(row, minutes=round(seconds / 60), acknowledged=len(scanner.acknowledged), went_away=(times + 1) // 2)


def test_names_that_do_not_resolve_are_tried_until_they_do(make_box, tmp_path, wait_until, name_server):
    env, comes_back, _ = name_server
    pacs, cloud, scanner = DimseArchive(), WebArchive(), Scanner(1)
    with kept_on_failure(tmp_path, "dns", 1):
        tables = destination(pacs, "archive.test", pacs.port) + destination(cloud, "archive.test", cloud.port)
        box = make_box(tables).start(env=env)
        assert scanner.send(box.port, 6) == 6
        assert wait_until(lambda: box.log().count("destination_ill") == 2), box.log()
        rows = box.ask("status")["destinations"]
        assert "name" in rows["cloud"]["reason"], rows
        assert scanner.send(box.port, 6) == 6
        comes_back()
        assert wait_until(box.delivered_all, 30), box.ask("status")
        prove(box, [scanner], {"pacs": pacs, "cloud": cloud})
        box.kill()
    pacs.close()
    cloud.close()
