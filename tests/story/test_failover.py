"""One of a group gets an instance, the next while the first is ill; a study that is waited for goes when quiet."""

from __future__ import annotations

import os
import subprocess
import time

from pynetdicom import AE, _config, evt
from pynetdicom.sop_class import Verification

ILL_SOON = "failover_after_s = 0.2\n"
TO_ONE = '[[route]]\nto_first_of = ["first", "second"]\n'


def scan(box, *files):
    command = ["storescu", "127.0.0.1", str(box.port), *map(str, files)]
    assert subprocess.run(command, env={**os.environ, "TCP_NODELAY": "1"}).returncode == 0


def test_the_second_of_a_group_steps_in_and_the_first_takes_over_again(
    make_box, make_archive, dimse, ct_files, digest_of, wait_until
):
    first, second = make_archive(), make_archive().start()
    box = make_box(dimse(first.port, "first", ILL_SOON) + dimse(second.port, "second") + TO_ONE).start()
    scan(box, *ct_files[:3])
    assert wait_until(lambda: box.ask("status")["released"] == 3), box.log()
    assert second.digests() == {digest_of(path) for path in ct_files[:3]}
    (row, *_) = box.ask("queue_list", states=[])
    page = box.ask("queue_show", object=row["object_id"])
    assert [delivery["destination"] for delivery in page["deliveries"]] == ["second"]
    assert ("first", "rerouted", "to second") in {(h["destination"], h["event"], h["detail"]) for h in page["history"]}

    scan(box, ct_files[3])  # the first is known to be ill: it does not stand in that queue at all
    assert wait_until(lambda: box.ask("status")["released"] == 4), box.log()
    assert digest_of(ct_files[3]) in second.digests()
    scan(box, ct_files[3])
    assert box.ask("status")["duplicates"] == 1

    first.start()
    assert wait_until(lambda: box.ask("status")["destinations"]["first"]["well"])
    scan(box, ct_files[3], ct_files[4])
    assert wait_until(lambda: box.ask("status")["released"] == 5)
    assert first.digests() == {digest_of(ct_files[4])}, "what one of the group has, no other gets"
    assert box.ask("status")["sums_agree"]


def test_while_the_whole_group_is_ill_nothing_is_lost(make_box, make_archive, dimse, ct_files, digest_of, wait_until):
    first, second = make_archive(), make_archive()
    tables = dimse(first.port, "first", ILL_SOON) + dimse(second.port, "second", ILL_SOON)
    box = make_box(tables + TO_ONE).start()
    scan(box, *ct_files[:3])
    box.kill()
    box.start()
    second.start()
    assert wait_until(lambda: box.ask("status")["released"] == 3), box.log()
    assert second.digests() == {digest_of(path) for path in ct_files[:3]}


def test_a_study_goes_when_none_of_it_came_for_a_while(make_box, make_archive, dimse, ct_files, wait_until):
    archive = make_archive().start()
    route = '[[route]]\nto = ["pacs"]\nwait_for = "study"\nquiet_s = 3\n'
    box = make_box(dimse(archive.port) + route).start()
    for path in ct_files[:3]:
        scan(box, path)
        time.sleep(1.0)
    assert wait_until(box.delivered_all)
    pages = [box.ask("queue_show", object=row["object_id"]) for row in box.ask("queue_list", states=[])]
    last, *later = sorted(page["received_at"] for page in pages)
    for at in later:
        if at - last > 2.5:
            break  # it was the scanner who paused: what came before may have gone
        last = at
    written = [path.stat().st_mtime for path in archive.folder.iterdir()]
    assert len(written) == len(pages) == 3
    assert min(written) - last >= 3 - 0.01, "the clock of files ticks every few milliseconds"


def test_an_archive_that_answers_echoes_and_stores_nothing_loses_its_work_too(
    make_box, make_archive, dimse, ct_files, port, wait_until
):
    _config.UNRESTRICTED_STORAGE_SERVICE = True
    full, place = AE("FULL"), port()
    full.add_supported_context(Verification)
    full.start_server(("127.0.0.1", place), block=False, evt_handlers=[(evt.EVT_C_STORE, lambda event: 0xA700)])
    try:
        second = make_archive().start()
        table = dimse(place, "first", "failover_after_s = 2")
        box = make_box(table + dimse(second.port, "second") + TO_ONE).start()
        scan(box, *ct_files[:3])
        assert wait_until(lambda: box.ask("status")["released"] == 3), box.log()
        assert len(second.digests()) == 3
    finally:
        full.shutdown()
