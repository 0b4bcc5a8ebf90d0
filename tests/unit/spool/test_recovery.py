"""What a start finds after a power cut, and what it makes of it."""

from __future__ import annotations

import json
import os
import re

import pytest

from gateway.model.instance import Door, Header, Origin, Priority
from gateway.model.way import Way
from gateway.spool.spool import Spool

CT = "1.2.840.10008.5.1.4.1.1.2"
CONTENT = b"\x08\x00\x60\x00CS\x02\x00CT" * 1000


def take(spool: Spool, number: int) -> None:
    identity = (CT, f"1.2.{number}", "1.2.840.10008.1.2.1")
    part = spool.new_part(identity)
    part.write(CONTENT)
    spool.take(part, Header(CT, f"1.2.{number}", "1.2.3", "1.2.3", "CT"), Origin(Door.IMPORT), identity)


@pytest.fixture
def after_power_cut(tmp_path):
    """A spool of three objects, closed, and the way back to it."""
    spool = Spool(tmp_path, 0, 100)
    for number in range(3):
        take(spool, number)
    spool.close()
    return lambda: Spool(tmp_path, 0, 100)


def objects(tmp_path):
    return sorted((tmp_path / "objects").rglob("*.dcm"))


def forget_rename(tmp_path):
    """Put the first object back under its first name, which is the durable one."""
    path = objects(tmp_path)[0]
    part = tmp_path / "parts" / f"{path.stem}.part"
    os.rename(path, part)
    return part


def test_a_rename_that_the_power_cut_forgot_is_finished(tmp_path, after_power_cut):
    forget_rename(tmp_path)
    spool = after_power_cut()
    assert (spool.recovered.held, spool.recovered.lost, spool.recovered.parts_removed) == (3, 0, 0)
    assert len(objects(tmp_path)) == 3
    for held in spool.reader.get(""):
        assert b"".join(spool.body(held)) == CONTENT
    spool.close()


def test_a_whole_part_is_adopted_when_the_ledger_is_lost_too(tmp_path, after_power_cut):
    forget_rename(tmp_path)
    for path in tmp_path.glob("ledger.db*"):
        path.unlink()
    spool = after_power_cut()
    assert (spool.recovered.held, spool.recovered.adopted) == (3, 3)
    assert len(objects(tmp_path)) == 3
    spool.close()


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b[:3000], lambda b: bytes(len(b)), lambda b: b""])
def test_a_part_that_nobody_was_told_of_and_that_is_not_whole_is_removed(tmp_path, after_power_cut, damage):
    content = objects(tmp_path)[0].read_bytes()
    stranger = tmp_path / "parts" / f"{0:032x}.part"
    stranger.write_bytes(damage(content))
    spool = after_power_cut()
    assert (spool.recovered.held, spool.recovered.parts_removed, spool.recovered.adopted) == (3, 1, 0)
    assert not stranger.exists()
    spool.close()


def test_a_missing_object_is_told_and_never_hidden(tmp_path, after_power_cut):
    objects(tmp_path)[0].unlink()
    spool = after_power_cut()
    assert (spool.recovered.held, spool.recovered.lost) == (2, 1)
    spool.close()


def test_prepared_parts_are_gone_after_the_end(tmp_path, after_power_cut):
    assert list((tmp_path / "parts").iterdir()) == []


def test_an_adopted_object_and_one_without_a_route_are_routed_by_their_own_bytes(tmp_path, after_power_cut):
    unrouted, asked = after_power_cut(), []

    def router(instance, beginning):
        asked.append(beginning())
        return {"pacs": Way()}

    unrouted.use_router(router)
    assert asked == [CONTENT[: 64 * 1024]] * 3
    assert unrouted.reader.seqs(["queued"], "pacs") == [1, 2, 3]
    unrouted.close()
    for path in tmp_path.glob("ledger.db*"):
        path.unlink()
    adopted = Spool(tmp_path, 0, 100, router)
    assert (adopted.recovered.adopted, len(asked)) == (3, 6)
    assert asked[3:] == asked[:3]
    adopted.close()


def test_an_object_of_an_older_program_is_adopted_and_its_sender_asked_for_nothing(tmp_path, after_power_cut):
    path = objects(tmp_path)[0]
    content = path.read_bytes()
    label = re.search(rb'\{"object_id".{2034}', content).group()
    facts = json.loads(label)
    del facts["origin"]["dimse_priority"]
    path.write_bytes(content.replace(label, json.dumps(facts).encode().ljust(len(label))))
    for old in tmp_path.glob("ledger.db*"):
        old.unlink()
    spool = after_power_cut()
    assert (spool.recovered.adopted, spool.recovered.set_aside) == (3, 0)
    assert {held.instance.origin.dimse_priority for held in spool.reader.get("")} == {0}
    spool.close()


def test_how_urgent_the_sender_called_it_is_in_the_ledger_and_in_the_file(tmp_path):
    identity = (CT, "1.2.9", "1.2.840.10008.1.2.1")
    spool = Spool(tmp_path, 0, 100)
    part = spool.new_part(identity)
    part.write(CONTENT)
    spool.take(part, Header(CT, "1.2.9", "1.2.3", "1.2.3", "CT"), Origin(Door.DIMSE, dimse_priority=1), identity)
    assert spool.reader.get("")[0].instance.origin.asked is Priority.STAT
    spool.close()
    for old in tmp_path.glob("ledger.db*"):
        old.unlink()
    adopted = Spool(tmp_path, 0, 100)
    assert adopted.reader.get("")[0].instance.origin.asked is Priority.STAT
    adopted.close()


def test_an_object_that_cannot_be_read_does_not_keep_the_others_from_their_route(tmp_path, after_power_cut):
    spool = after_power_cut()
    objects(tmp_path)[0].unlink()
    asked = []
    spool.use_router(lambda _, beginning: asked.append(beginning()) or {"pacs": Way()})
    assert sorted(map(len, asked)) == [0, len(CONTENT), len(CONTENT)]
    assert len(spool.reader.seqs(["queued"], "pacs")) == 3
    spool.close()


def test_an_object_that_arrives_during_a_reload_is_routed_by_the_new_rules(tmp_path):
    identity = (CT, "1.2.9", "1.2.840.10008.1.2.1")

    def old_rules(instance, beginning):
        spool.use_router(lambda *_: {"pacs": Way()})  # looks for what has no destination: not in the ledger yet
        return {}

    spool = Spool(tmp_path, 0, 100, old_rules)
    part = spool.new_part(identity)
    part.write(CONTENT)
    spool.take(part, Header(CT, "1.2.9", "1.2.3", "1.2.3", "CT"), Origin(Door.DIMSE), identity)
    assert spool.reader.seqs(["queued"], "pacs") == [1]
    spool.close()
