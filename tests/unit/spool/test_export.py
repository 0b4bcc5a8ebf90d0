"""Copies for a person: what is meant, what is in the folder, and what can go wrong on the way."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pydicom
import pytest

from gateway.model.errors import ExportError, GatewayError
from gateway.model.instance import Door, Header, Origin, Priority
from gateway.model.lifecycle import DeliveryEvent
from gateway.model.verdict import Verdict
from gateway.model.way import Way
from gateway.spool.export import Selection, export, prepare_folder, select
from gateway.spool.spool import Spool

CT = "1.2.840.10008.5.1.4.1.1.2"
LE = "1.2.840.10008.1.2"


def element(number: int) -> bytes:
    """A data set of one element, (0008,0018), Implicit VR."""
    uid = f"1.2.{number}".encode().ljust(6, b"\0")
    return b"\x08\x00\x18\x00" + len(uid).to_bytes(4, "little") + uid


@pytest.fixture
def spool(tmp_path):
    opened = Spool(tmp_path / "data", 0, 100, lambda *_: {"pacs": Way(), "cloud": Way()})
    for number in (1, 2, 3):
        identity = (CT, f"1.2.{number}", LE)
        part = opened.new_part(identity)
        part.write(element(number))
        header = Header(CT, identity[1], f"9.{number % 2}", "9.9", "CT")
        opened.take(part, header, Origin(Door.IMPORT), identity)
    yield opened
    opened.close()


def helds(spool: Spool) -> list:
    return list(select(spool.reader, Selection()))


def chosen(spool: Spool, **wanted) -> list[int]:
    return [held.seq for held in select(spool.reader, Selection(**wanted))]


def exported(spool: Spool, folder: Path, **wanted) -> list[dict]:
    prepare_folder(folder)
    return list(export(spool.store, spool.reader, select(spool.reader, Selection(**wanted)), folder))


def test_selection_by_id_destination_study_and_quarantine_and_all_of_them_together(spool, monkeypatch):
    monkeypatch.setattr("gateway.spool.export.PAGE", 2)
    for claim in spool.claim("pacs", Priority.NORMAL, 2, 300.0):
        spool.record(claim, Verdict.accepted(), 0.0).outcome()
    ids = [held.instance.object_id for held in helds(spool)]
    spool.quarantine(helds(spool)[2], "rot")
    assert chosen(spool) == [1, 2, 3]
    assert chosen(spool, destination="pacs") == [3]
    assert chosen(spool, destination="nobody") == []
    assert chosen(spool, study_uid="9.1") == [1, 3]
    assert chosen(spool, quarantined=True) == [3]
    assert chosen(spool, objects=(ids[1][:20], ids[0])) == [1, 2]
    assert chosen(spool, objects=(ids[1], ids[0]), study_uid="9.1") == [1]
    with pytest.raises(GatewayError, match="0 objects"):
        chosen(spool, objects=("nothing",))


def test_a_copy_is_a_part_10_file_and_the_manifest_says_what_it_is(spool, tmp_path):
    lines = exported(spool, tmp_path / "out")
    assert [json.loads(line) for line in (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()] == lines
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        [*(line["file"] for line in lines), "manifest.jsonl"]
    )
    for number, line in enumerate(lines, 1):
        copy = pydicom.dcmread(tmp_path / "out" / line["file"])
        assert (copy.SOPInstanceUID, line["sop_instance_uid"]) == (f"1.2.{number}", f"1.2.{number}")
        assert "PrivateInformation" not in copy.file_meta
        digest = hashlib.sha256(element(number)).hexdigest()
        assert (line["sha256"], line["sha256_found"], line["intact"]) == (digest, digest, True)
        assert line["reason"] == "in custody: cloud: queued; pacs: queued"


def test_what_rots_is_copied_as_it_is_and_what_is_gone_is_said_to_be_gone(spool, tmp_path):
    first, second, third = (spool.path_of(held) for held in helds(spool))
    content = bytearray(first.read_bytes())
    content[-1] ^= 1
    first.write_bytes(content)
    headless = bytearray(second.read_bytes())
    headless[128:140] = bytes(12)
    second.write_bytes(headless)
    third.unlink()
    lines = exported(spool, tmp_path / "out")
    assert [line["intact"] for line in lines] == [False, True, None]
    changed = hashlib.sha256(element(1)[:-1] + b"\1").hexdigest()
    assert (lines[0]["sha256"], lines[0]["sha256_found"]) == (hashlib.sha256(element(1)).hexdigest(), changed)
    assert lines[2]["file"] is None
    assert pydicom.dcmread(tmp_path / "out" / lines[1]["file"]).SOPInstanceUID == "1.2.2"


def test_reasons_are_in_words(spool, tmp_path):
    for claim in spool.claim("pacs", Priority.NORMAL, 1, 300.0):
        spool.record(claim, Verdict.refused(0xA900, "data set does not match"), 0.0).outcome()
    for destination in ("pacs", "cloud"):
        for claim in spool.claim(destination, Priority.NORMAL, 1, 300.0):
            spool.record(claim, Verdict.accepted(), 0.0).outcome()
    spool.quarantine(helds(spool)[2], "the bytes on disk are not those that were acknowledged")
    assert [line["reason"] for line in exported(spool, tmp_path / "out")] == [
        "in custody: pacs: held, data set does not match",
        "in custody: cloud: queued",
        "quarantined: the bytes on disk are not those that were acknowledged",
    ]


def test_nothing_is_ever_overwritten(spool, tmp_path):
    exported(spool, tmp_path / "out")
    with pytest.raises(GatewayError, match="not empty"):
        prepare_folder(tmp_path / "out")


def test_without_room_there_is_no_manifest(spool, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gateway.spool.store.os.fsync", full)
    with pytest.raises(ExportError, match="No space left"):
        exported(spool, tmp_path / "out")
    assert not (tmp_path / "out" / "manifest.jsonl").exists()
    assert not list((tmp_path / "out").glob("*.dcm"))


def test_what_is_in_quarantine_is_not_released_to_be_sent(spool):
    rotten = helds(spool)[0]
    spool.quarantine(rotten, "rot")
    assert spool.change(lambda ledger: ledger.operate([1], None, DeliveryEvent.RELEASED_BY_OPERATOR)) == 0
    assert {row["state"] for row in spool.reader.deliveries(1)} == {"held"}


def test_what_a_start_set_aside_goes_along_as_it_is(spool, tmp_path):
    strange = spool.store.objects / "000000" / f"{'f' * 32}.dcm"
    strange.write_bytes(b"no label at all")
    spool.store.set_aside(strange)
    prepare_folder(tmp_path / "out")
    nothing = select(spool.reader, Selection(quarantined=True))
    (line,) = export(spool.store, spool.reader, nothing, tmp_path / "out", aside=True)
    assert (line["object_id"], line["custody"]) == ("f" * 32, "set_aside")
    assert line["reason"] == "set aside at a start: the object has no readable label"
    assert (tmp_path / "out" / line["file"]).read_bytes() == b"no label at all"
    assert (spool.store.quarantine / strange.name).exists()
