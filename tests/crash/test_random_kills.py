"""Killed at random moments while four scanners send, to an archive that must commit and a service that must store.

CAMPAIGN_KILLS says how often in the long form.
"""

from __future__ import annotations

import random
import time

import pytest

from tests.crash.archive import DimseArchive
from tests.crash.campaign import Fleet, count_of, done_already, kept_on_failure, prove, report, seed_of
from tests.crash.web_archive import WebArchive

SCANNERS = 4


def destinations(pacs: DimseArchive, cloud: WebArchive) -> str:
    common = 'compression = "off"\ntimeout_s = 2\nretry_first_s = 0.05\nretry_ceiling_s = 0.3\nassociations = 2\n'
    return (
        f'[[destination]]\nname = "pacs"\nkind = "dimse"\nhost = "127.0.0.1"\nport = {pacs.port}\nae_title = "ANY"\n'
        f'confirm = "commitment"\nconfirm_after_s = 0.1\nconfirm_timeout_s = 1\nreport_wait_s = 1\n{common}'
        f'[[destination]]\nname = "cloud"\nkind = "stow"\nurl = "{cloud.url}"\n{common}'
    )


def kill_at_random(make_box, wait_until, seed: int, kills: int) -> dict[str, int | float]:
    """Kill so often, wait until everything was delivered, let the oracle judge; return counts."""
    pacs, cloud, luck = DimseArchive(), WebArchive(), random.Random(seed)
    box = make_box(destinations(pacs, cloud)).start()
    with Fleet(seed, SCANNERS, box.port) as fleet:
        for kill in range(kills):
            if kill % 5 == 0:  # so that a slow machine does not kill gateways that have taken nothing yet
                seen = fleet.acknowledged
                assert wait_until(lambda seen=seen: fleet.acknowledged > seen, 30), box.log()
            time.sleep(luck.uniform(0.0, 0.5) ** 1.5)
            box.kill()
            box.start()
    assert wait_until(box.delivered_all, 60 + kills / 4), box.ask("status")
    prove(box, fleet.scanners, {"pacs": pacs, "cloud": cloud})
    twice = sum(count - 1 for one in (pacs, cloud) for count in one.times.values())
    counts = {
        "kills": kills,
        "acknowledged": fleet.acknowledged,
        "committed": pacs.committed,
        "sent_twice": twice,
        "per_kill_and_destination": round(twice / kills / 2, 2),
    }
    box.kill()
    pacs.close()
    cloud.close()
    assert fleet.acknowledged >= kills
    return counts


@pytest.mark.timeout(300)
def test_sixty_random_kills_with_four_scanners_and_two_destinations(make_box, tmp_path, wait_until):
    seed = seed_of("kills")
    with kept_on_failure(tmp_path, "kills", seed):
        kill_at_random(make_box, wait_until, seed, 60)


@pytest.mark.long
@pytest.mark.timeout(4 * 3600)
def test_two_thousand_random_kills(make_box, tmp_path, wait_until):
    row = "random SIGKILL, 4 scanners, 2 destinations"
    if done_already(row):
        pytest.skip("this program has passed it already")
    seed = seed_of(row)
    with kept_on_failure(tmp_path, "kills-long", seed):
        counts = kill_at_random(make_box, wait_until, seed, count_of("KILLS", 2000))
    report(row, **counts)
