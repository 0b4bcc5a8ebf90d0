"""A rendition that fails costs its own instance three tries and nobody else anything; memory is that of a frame."""

from __future__ import annotations

import struct
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.schema import Settings
from gateway.dicom.part10 import meta_bytes
from gateway.model.errors import PrepareError, PrepareLater, SpoolError
from gateway.model.instance import Door, Header, Origin, SOPInstance
from gateway.model.lifecycle import Custody
from gateway.model.transfer_syntax import (
    COMPRESSION,
    EXPLICIT_LE,
    IMPLICIT_LE,
    JPEG_2000_LOSSLESS,
    JPEG_LOSSLESS_SV1,
    JPEG_LS_LOSSLESS,
    RLE_LOSSLESS,
)
from gateway.prepare import strikes, worker
from gateway.prepare.pool import WorkerPool
from gateway.prepare.strikes import LIMIT, MAX_REMEMBERED, PAUSE_S, Attempt, Strikes
from gateway.prepare.worker import Renderer
from gateway.spool.rows import Held
from tests import poison
from tests.images import image, saved

CT = "1.2.840.10008.5.1.4.1.1.2"


def held(name: str, syntax: str = EXPLICIT_LE) -> Held:
    instance = SOPInstance(name, CT, "1.2", syntax, "", 6144, Header(), Origin(Door.DIMSE), 0.0)
    return Held(1, "", Custody.IN_CUSTODY, False, instance)


@pytest.fixture
def renderer(tmp_path):
    folder = tmp_path / "renditions"
    folder.mkdir()
    source = saved(tmp_path, image())
    made = Renderer(folder, lambda _: source)
    yield made
    made.close()


def left(tmp_path) -> list[Path]:
    return list((tmp_path / "renditions").iterdir())


def test_a_poisonous_instance_costs_three_workers_and_then_none(renderer, tmp_path, monkeypatch):
    with monkeypatch.context() as poisoned:
        poisoned.setattr(worker, "_transcode", poison.dies)
        for number in range(LIMIT):
            with pytest.raises(PrepareError, match="did not finish"):
                renderer.render_in(held("poison"), (JPEG_LS_LOSSLESS, RLE_LOSSLESS)[number % 2])
        assert renderer.workers_lost == LIMIT
        for target in (JPEG_LS_LOSSLESS, JPEG_2000_LOSSLESS, IMPLICIT_LE):
            with pytest.raises(PrepareError, match="not tried again"):
                renderer.render_in(held("poison"), target)
    assert renderer.workers_lost == LIMIT
    assert left(tmp_path) == [], "what the dead ones left is removed"
    assert renderer.render_in(held("other"), JPEG_LS_LOSSLESS).length > 0


def test_a_refusal_by_one_codec_says_nothing_about_another(renderer, monkeypatch):
    with monkeypatch.context() as poisoned:
        poisoned.setattr(worker, "_transcode", poison.refuses)
        for _ in range(LIMIT):
            with pytest.raises(PrepareError, match="in words"):
                renderer.render_in(held("one"), RLE_LOSSLESS)
    with pytest.raises(PrepareError, match="not tried again"):
        renderer.render_in(held("one"), RLE_LOSSLESS)
    assert renderer.render(held("one"), frozenset({IMPLICIT_LE})).transfer_syntax_uid == IMPLICIT_LE
    assert renderer.workers_lost == 0


@pytest.mark.timeout(600)  # a worker comes last in the queue for the processor
@pytest.mark.parametrize("codec", COMPRESSION)
def test_every_codec_does_its_work_under_confinement(tmp_path, codec):
    """The largest image of a mammogram: 5928 x 4728, 16 bit."""
    source = saved(tmp_path, image(rows=5928, columns=4728))
    (tmp_path / "renditions").mkdir()
    renderer = Renderer(tmp_path / "renditions", lambda _: source)
    try:
        made = renderer.render_in(held("one"), COMPRESSION[codec])
    finally:
        renderer.close()
    assert made.length < source.stat().st_size and renderer.workers_lost == 0


def test_jpeg_is_decoded_under_confinement(tmp_path):
    source, compressed = saved(tmp_path, image()), tmp_path / "compressed.dcm"
    subprocess.run(["dcmcjpeg", "+e1", str(source), str(compressed)], check=True)
    (tmp_path / "renditions").mkdir()
    renderer = Renderer(tmp_path / "renditions", lambda _: compressed)
    try:
        made = renderer.render(held("one", JPEG_LOSSLESS_SV1), frozenset({IMPLICIT_LE}))
    finally:
        renderer.close()
    assert made.transfer_syntax_uid == IMPLICIT_LE and renderer.workers_lost == 0


SETTINGS = Settings.model_validate(
    {
        "gateway": {"id": "ct1-gateway"},
        "morph": [
            {"name": "one", "change": [{"tag": "PatientID", "set": "new"}]},
            {"name": "two", "change": [{"tag": "StudyInstanceUID", "set": "1.2.9"}]},
        ],
    }
)


@pytest.fixture
def cook(tmp_path):
    """A renderer that knows recipes."""
    folder = tmp_path / "renditions"
    folder.mkdir()
    source = saved(tmp_path, image())
    made = Renderer(folder, lambda _: source, lambda: SETTINGS)
    yield made
    made.close()


def test_a_recipe_is_applied_under_confinement_and_its_result_coded(cook, tmp_path):
    made = cook.apply(held("one"), ("one", "two"))
    assert (made.sop_instance_uid, made.study_instance_uid) == ("1.2", "1.2.9")
    assert made.transfer_syntax_uid == EXPLICIT_LE
    coded = cook.render_in(held("one"), JPEG_LS_LOSSLESS, made=made)
    assert coded.study_instance_uid == "1.2.9" and coded.length < made.length
    whole = tmp_path / "whole.dcm"
    whole.write_bytes(meta_bytes(CT, "1.2", JPEG_LS_LOSSLESS) + coded.path.read_bytes())
    dataset = pydicom.dcmread(whole)
    assert (dataset.PatientID, len(dataset.OriginalAttributesSequence)) == ("new", 2)
    assert dataset.OriginalAttributesSequence[0].ModifyingSystem == "ct1-gateway"
    assert cook.workers_lost == 0


def test_a_recipe_that_is_not_there_is_no_recipe(cook):
    with pytest.raises(PrepareError, match="no recipe 'three' any more"):
        cook.apply(held("one"), ("one", "three"))


def test_a_recipe_whose_workers_die_is_tried_later_and_then_not(cook, tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "_edit", poison.dies_at_once)
    for _ in range(LIMIT):
        with pytest.raises(PrepareLater, match="did not finish"):
            cook.apply(held("poison"), ("one",))
    with pytest.raises(PrepareError, match="not tried again") as told:
        cook.apply(held("poison"), ("one",))
    assert not isinstance(told.value, PrepareLater)
    assert left(tmp_path) == []


def test_a_full_disk_is_nobodys_fault(cook, tmp_path, monkeypatch):
    with monkeypatch.context() as poisoned:
        poisoned.setattr(worker, "_edit", poison.edits_without_room)
        for _ in range(LIMIT + 1):
            with pytest.raises(PrepareLater, match="No space left"):
                cook.apply(held("one"), ("one",))
    assert left(tmp_path) == [] and cook.workers_lost == 0


def test_a_recipe_that_was_refused_may_be_mended(cook, monkeypatch):
    with monkeypatch.context() as poisoned:
        poisoned.setattr(worker, "_edit", poison.refuses)
        for _ in range(LIMIT + 1):
            with pytest.raises(PrepareError, match="in words"):
                cook.apply(held("one"), ("one",))
    assert cook.apply(held("one"), ("one",)).length > 0


def test_who_waits_for_a_long_rendition_is_seen_to_live(renderer, monkeypatch):
    monkeypatch.setattr(worker, "_transcode", poison.is_slow)
    beats: list[int] = []
    renderer.render_in(held("one"), JPEG_LS_LOSSLESS, lambda: beats.append(1))
    assert len(beats) >= 3


def test_one_instance_may_be_rendered_for_two_destinations_at_once(tmp_path):
    folder = tmp_path / "renditions"
    folder.mkdir()
    dataset = image(frames=200)
    source = saved(tmp_path, dataset, IMPLICIT_LE)
    renderer = Renderer(folder, lambda _: source)
    targets = [JPEG_LS_LOSSLESS, JPEG_2000_LOSSLESS] * 3
    with ThreadPoolExecutor(2) as lanes:
        made = list(lanes.map(lambda target: renderer.render_in(held("same", IMPLICIT_LE), target), targets))
    renderer.close()
    assert sorted(left(tmp_path)) == sorted(rendition.path for rendition in made)
    assert len({rendition.sha256 for rendition in made}) == 2


ONE = Attempt("a", CT, EXPLICIT_LE, JPEG_LS_LOSSLESS)


def test_a_kind_that_costs_workers_in_a_row_goes_as_it_came_for_a_while():
    seen = Strikes()
    for number in range(LIMIT):
        assert seen.why_not(ONE, 0.0) is None
        seen.lost(Attempt(f"object {number}", CT, EXPLICIT_LE, JPEG_LS_LOSSLESS), 0.0)
    assert "in a row" in seen.why_not(ONE, PAUSE_S - 1)
    assert seen.why_not(Attempt("a", CT, EXPLICIT_LE, RLE_LOSSLESS), 1.0) is None
    assert seen.why_not(Attempt("a", "1.2.3", EXPLICIT_LE, JPEG_LS_LOSSLESS), 1.0) is None
    assert seen.why_not(ONE, PAUSE_S) is None
    seen.lost(ONE, PAUSE_S)
    assert seen.why_not(ONE, PAUSE_S + 1), "one more, and it is left alone again"
    seen.made(ONE)
    seen.lost(Attempt("b", CT, EXPLICIT_LE, JPEG_LS_LOSSLESS), 2 * PAUSE_S)
    assert seen.why_not(ONE, 2 * PAUSE_S) is None, "a rendition that was made ends the row"


def test_what_the_peer_must_have_is_tried_whatever_others_did():
    seen = Strikes()
    for number in range(LIMIT):
        seen.lost(Attempt(f"object {number}", CT, JPEG_LS_LOSSLESS, EXPLICIT_LE), 0.0)
    assert seen.why_not(Attempt("a", CT, JPEG_LS_LOSSLESS, EXPLICIT_LE), 1.0) is None


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2 * MAX_REMEMBERED)), max_size=50))
def test_memory_of_failures_is_bounded(failures):
    seen = Strikes()
    for lost, number in failures:
        attempt = Attempt(f"{number}", f"1.{number}", EXPLICIT_LE, JPEG_LS_LOSSLESS)
        seen.lost(attempt, 0.0) if lost else seen.refused(attempt)
    for number in range(MAX_REMEMBERED + 10):
        seen.lost(Attempt(f"x{number}", f"2.{number}", EXPLICIT_LE, JPEG_LS_LOSSLESS), 0.0)
    assert len(seen._failures) <= MAX_REMEMBERED and len(seen._in_a_row) <= MAX_REMEMBERED


def test_the_newest_failures_are_the_ones_remembered(monkeypatch):
    monkeypatch.setattr(strikes, "MAX_REMEMBERED", 3)
    seen = Strikes()
    for _ in range(LIMIT):
        seen.refused(ONE)
    for number in range(2):
        seen.refused(Attempt(f"{number}", CT, EXPLICIT_LE, JPEG_LS_LOSSLESS))
    assert seen.why_not(ONE, 0.0)
    for number in range(3):
        seen.refused(Attempt(f"{number}", CT, EXPLICIT_LE, JPEG_LS_LOSSLESS))
    assert seen.why_not(ONE, 0.0) is None


def sparse(folder: Path, frames: int) -> Path:
    """Frames of 4 MiB that take no place on the disk."""
    path = saved(folder, image(rows=64, columns=64))
    dataset = pydicom.dcmread(path)
    dataset.Rows, dataset.Columns, dataset.NumberOfFrames = 2048, 1024, frames
    del dataset.PixelData
    del dataset[0x7FE10010], dataset[0x7FE11001]
    dataset.save_as(path)
    with open(path, "ab") as file:
        file.write(struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, frames << 22))
        file.truncate(file.tell() + (frames << 22))
    return path


@pytest.mark.parametrize("frames", [48, pytest.param(511, marks=[pytest.mark.long, pytest.mark.timeout(1200)])])
@pytest.mark.parametrize("target", [JPEG_LS_LOSSLESS, RLE_LOSSLESS])
def test_a_worker_holds_a_frame_and_never_the_object(tmp_path, frames, target):
    """192 MB in the ordinary run, 2 GB in the long one: a few frames of 4 MiB each, there and back."""
    path = sparse(tmp_path, frames)
    with open(path, "rb") as file:
        offset = file.read(4096).index(b"\x08\x00\x16\x00UI")
    pool = WorkerPool(1)
    there, before = pool.run(
        poison.says_its_peak, path, offset, EXPLICIT_LE, target, tmp_path / "out", cpu_s=600, deadline_s=1000
    )
    back, _ = pool.run(
        poison.says_its_peak, tmp_path / "out", 0, target, EXPLICIT_LE, tmp_path / "back", cpu_s=600, deadline_s=1000
    )
    pool.close()
    (tmp_path / "back").unlink()
    assert max(there, back) - before < 64 << 20, (there, back, before)


def test_a_disk_without_room_is_not_the_instances_fault_but_a_bomb_is_stopped(renderer, monkeypatch):
    monkeypatch.setattr(worker, "_transcode", poison.fills_the_disk)
    for _ in range(LIMIT):
        with pytest.raises(SpoolError, match="No space left"):
            renderer.render_in(held("one"), JPEG_LS_LOSSLESS)
    with pytest.raises(PrepareError, match="failed 3 times"):
        renderer.render_in(held("one"), JPEG_LS_LOSSLESS)
    assert renderer.workers_lost == 0


def test_where_nothing_can_be_written_the_instance_gets_no_strike(renderer, monkeypatch):
    folder = renderer._folder
    monkeypatch.setattr(renderer, "_folder", folder / "nowhere")
    for _ in range(LIMIT + 1):
        with pytest.raises(SpoolError, match="no rendition can be written"):
            renderer.render_in(held("one"), JPEG_LS_LOSSLESS)
