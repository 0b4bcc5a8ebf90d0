"""Compressed for peers that take it, exact by DCMTK's decoder; for the others, and on any doubt, as it came."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
from pathlib import Path

import openjpeg
import pydicom
import pytest
from pydicom.encaps import generate_frames
from pynetdicom import AE, evt

JPEG_LS, HTJ2K, EXPLICIT = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.1"


def send(port, *files, options=("-xi",)):
    subprocess.run(
        ["storescu", *options, "127.0.0.1", str(port), *map(str, files)],
        check=True,
        env={**os.environ, "TCP_NODELAY": "1"},
    )


def decoded(path: Path, folder: Path) -> pydicom.Dataset:
    plain = folder / (path.name + ".plain")
    subprocess.run(["dcmdjpls", str(path), str(plain)], check=True)
    return pydicom.dcmread(plain)


def syntaxes(folder: Path) -> list[str]:
    return sorted(str(pydicom.dcmread(path).file_meta.TransferSyntaxUID) for path in folder.iterdir())


def test_a_peer_that_takes_jpeg_ls_gets_it_and_decodes_the_very_same_pixels(
    make_box, make_archive, dimse, ct_files, tmp_path, wait_until
):
    archive = make_archive("+xa").start()
    box = make_box(dimse(archive.port, more='compression = "jpeg-ls"\nassociations = 1')).start()
    send(box.port, *ct_files)
    assert wait_until(box.delivered_all), box.log()
    originals = {str(d.SOPInstanceUID): d for d in map(pydicom.dcmread, ct_files)}
    arrived = list(archive.folder.iterdir())
    coded = [p for p in arrived if pydicom.dcmread(p).file_meta.TransferSyntaxUID == JPEG_LS]
    assert len(arrived) == len(ct_files) and len(coded) == len(ct_files) - 1  # the first taught us what it takes
    for path in coded:
        plain = decoded(path, tmp_path)
        assert plain.PixelData == originals[str(plain.SOPInstanceUID)].PixelData
    report = box.ask("status")["destinations"]["pacs"]["compression"]
    assert (report["choice"], report["renditions"], report["passed_on"]) == ("jpeg-ls", len(coded), 0)
    assert report["saved_bytes"] > 0
    shown = box.ask("queue_show", object=box.ask("queue_list")[-1]["object_id"])
    assert f"sent in {JPEG_LS}" in str(shown)
    assert list((box.folder / "data" / "renditions").iterdir()) == []


def test_a_peer_that_does_not_take_it_gets_the_original(make_box, make_archive, dimse, ct_files, wait_until):
    archive = make_archive().start()
    box = make_box(dimse(archive.port, more='compression = "jpeg-ls"')).start()
    send(box.port, *ct_files[:4])
    assert wait_until(box.delivered_all), box.log()
    assert set(syntaxes(archive.folder)) <= {EXPLICIT, "1.2.840.10008.1.2"}


def test_what_has_no_pixels_goes_as_it_came_beside_what_has(
    make_box, make_archive, dimse, test_files, digest_of, wait_until
):
    report = next(path for path in test_files if path.name == "reportsi.dcm")
    archive = make_archive("+xa").start()
    box = make_box(dimse(archive.port, more='compression = "jpeg-ls"\nassociations = 1')).start()
    send(box.port, report, options=("-xe",))
    other = archive.folder.parent / "other.dcm"
    dataset = pydicom.dcmread(report)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4.5"
    dataset.save_as(other)
    send(box.port, other, options=("-xe",))
    assert wait_until(box.delivered_all), box.log()
    assert archive.digests() == set(box.shelf())
    assert box.ask("status")["destinations"]["pacs"]["compression"]["passed_on"] == 1


def test_an_archive_without_the_codec_gets_native_from_a_lossless_object(
    make_box, make_archive, dimse, ct_files, tmp_path, wait_until
):
    """The scanner sends JPEG-LS, the archive takes native only: decoded, since nothing is lost by it."""
    coded = tmp_path / "coded.dcm"
    subprocess.run(["dcmcjpls", str(ct_files[0]), str(coded)], check=True)
    archive = make_archive().start()
    box = make_box(dimse(archive.port)).start()
    send(box.port, coded, options=("-xt",))
    assert wait_until(box.delivered_all), box.log()
    (arrived,) = archive.folder.iterdir()
    assert pydicom.dcmread(arrived).PixelData == pydicom.dcmread(ct_files[0]).PixelData


@pytest.mark.parametrize("allowed", [True, False])
def test_an_archive_that_takes_native_only_gets_a_lossy_image_decoded_if_that_is_allowed(
    make_box, make_archive, dimse, ct_files, tmp_path, wait_until, allowed
):
    lossy, native = tmp_path / "lossy.dcm", tmp_path / "native.dcm"
    subprocess.run(["dcmcjpeg", "+ee", str(ct_files[0]), str(lossy)], check=True)
    subprocess.run(["dcmdjpeg", str(lossy), str(native)], check=True)
    archive = make_archive().start()
    box = make_box(dimse(archive.port, more="allow_decompress = true" if allowed else "")).start()
    send(box.port, lossy, options=("-xx",))
    if allowed:
        assert wait_until(box.delivered_all), box.log()
        (arrived,) = map(pydicom.dcmread, archive.folder.iterdir())
        assert arrived.PixelData == pydicom.dcmread(native).PixelData
        assert arrived.LossyImageCompression == "01"
        assert arrived.SOPInstanceUID == pydicom.dcmread(lossy).SOPInstanceUID
    else:
        assert wait_until(lambda: box.ask("status")["destinations"]["pacs"]["held"] == 1), box.log()
        assert list(archive.folder.iterdir()) == []
        assert "allow_decompress" in str(box.ask("queue_show", object=box.ask("queue_list")[0]["object_id"]))


def test_an_archive_that_takes_implicit_vr_only_gets_a_lossless_image_in_it(
    make_box, make_archive, dimse, ct_files, tmp_path, wait_until
):
    """Every archive takes Implicit VR Little Endian (PS3.5 10.1), some nothing else."""
    coded = tmp_path / "coded.dcm"
    subprocess.run(["dcmcjpeg", "+e1", str(ct_files[0]), str(coded)], check=True)
    archive = make_archive("+xi").start()
    box = make_box(dimse(archive.port)).start()
    send(box.port, coded, options=("-xs",))
    assert wait_until(box.delivered_all), box.log()
    (arrived,) = map(pydicom.dcmread, archive.folder.iterdir())
    assert arrived.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2"
    assert arrived.PixelData == pydicom.dcmread(ct_files[0]).PixelData


def test_a_peer_that_takes_htj2k_gets_it(make_box, dimse, ct_files, wait_until):
    arrived = []

    def keep(event):
        arrived.append((event.context.transfer_syntax, event.request.DataSet.getvalue()))
        return 0x0000

    archive = AE("ANY")
    archive.add_supported_context("1.2.840.10008.5.1.4.1.1.2", [EXPLICIT, "1.2.840.10008.1.2", HTJ2K])
    archive.add_supported_context("1.2.840.10008.1.1")
    server = archive.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, keep)])
    try:
        more = 'compression = "htj2k"\nassociations = 1'
        box = make_box(dimse(server.socket.getsockname()[1], more=more)).start()
        send(box.port, *ct_files[:4], options=("-xe",))
        assert wait_until(box.delivered_all), box.log()
    finally:
        server.shutdown()
    originals = {str(d.SOPInstanceUID): d.PixelData for d in map(pydicom.dcmread, ct_files)}
    coded = [data for syntax, data in arrived if syntax == HTJ2K]
    assert len(arrived) == 4 and len(coded) == 3  # the first taught us what it takes
    for data in coded:
        dataset = pydicom.dcmread(io.BytesIO(data), force=True)  # without meta: Explicit VR is found by looking
        (stream,) = generate_frames(dataset.PixelData, number_of_frames=1)
        assert bytes(openjpeg.decode_pixel_data(stream, version=2)) == originals[str(dataset.SOPInstanceUID)]


def test_a_rotten_object_is_not_made_good_by_compressing_it(make_box, make_archive, dimse, ct_files, wait_until):
    archive = make_archive("+xa").start()
    box = make_box(dimse(archive.port, more='compression = "jpeg-ls"')).start()
    send(box.port, *ct_files[:2])
    assert wait_until(box.delivered_all), box.log()
    archive.stop()
    before = set((box.folder / "data" / "objects").rglob("*.dcm"))
    send(box.port, ct_files[2])
    # What was read before the rot may still be on its way, for an idle association is opened again at once.
    assert wait_until(lambda: not box.ask("status")["destinations"]["pacs"]["well"]), box.log()
    (path,) = set((box.folder / "data" / "objects").rglob("*.dcm")) - before
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(content)
    archive.start()
    assert wait_until(lambda: box.ask("status")["quarantined"] == 1), box.log()
    assert len(list(archive.folder.iterdir())) == 2


@pytest.mark.parametrize("when", ["before", "during"])
def test_a_worker_that_dies_costs_nothing_but_compression(
    make_box, make_archive, dimse, ct_files, when, wait_until, digest_of
):
    archive = make_archive("+xa").start()
    box = make_box(dimse(archive.port, more='compression = "jpeg-ls"\nassociations = 1')).start()
    send(box.port, *ct_files[:2])
    assert wait_until(box.delivered_all), box.log()
    for pid in workers(box.process.pid):
        os.kill(pid, signal.SIGSTOP if when == "during" else signal.SIGKILL)
    send(box.port, *ct_files[2:6])
    for pid in workers(box.process.pid):
        os.kill(pid, signal.SIGKILL)
    send(box.port, *ct_files[6:8])
    assert wait_until(lambda: box.ask("status")["released"] == 8), box.log()
    assert len(list(archive.folder.iterdir())) == 8
    assert box.ask("status")["workers_lost"] > 0


def workers(pid: int) -> list[int]:
    """Every process below the gateway that runs codecs: the children of its fork server."""
    found = []
    for child in children(pid):
        found += children(child)
    return found


def children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a thread that has just ended
            found += [int(child) for child in (task / "children").read_text().split()]
    return found
