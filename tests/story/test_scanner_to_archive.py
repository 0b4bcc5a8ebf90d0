"""A study walks from the scanner to the archive: DCMTK on both sides, nothing changed on the way."""

from __future__ import annotations

import os
import re
import subprocess

import pydicom


def send(port, *files, options=()):
    env = {**os.environ, "TCP_NODELAY": "1"}
    return subprocess.run(
        ["storescu", *options, "127.0.0.1", str(port), *map(str, files)], env=env, capture_output=True, text=True
    )


def test_a_study_reaches_the_archive_byte_for_byte(make_box, make_archive, dimse, ct_files, digest_of, wait_until):
    archive = make_archive().start()
    box = make_box(dimse(archive.port)).start()
    assert send(box.port, *ct_files).returncode == 0
    assert wait_until(box.delivered_all)
    assert archive.digests() == {digest_of(path) for path in ct_files}


def test_what_is_held_is_a_file_that_any_tool_opens(make_box, ct_files, digest_of):
    box = make_box().start()
    assert send(box.port, *ct_files).returncode == 0
    shelf = box.shelf()
    assert set(shelf) == {digest_of(path) for path in ct_files}
    for path in shelf.values():
        assert pydicom.dcmread(path).pixel_array.shape == (512, 512)
        assert subprocess.run(["dcmdump", "-q", str(path)], capture_output=True).returncode == 0


def test_every_real_file_that_dcmtk_can_send_is_acknowledged_and_kept_verbatim(make_box, make_archive, test_files):
    """What DCMTK sends straight to its own bit-preserving archive is what lies on the shelf, to the last byte."""
    direct = make_archive("+xa").start()
    box = make_box().start()
    acknowledged = 0
    for path in test_files:
        options = next((o for o in FIRST_THAT_SENDS if _stored(send(direct.port, path, options=o))), None)
        if options is not None:
            assert _stored(send(box.port, path, options=options)), path.name
            acknowledged += 1
    status = box.ask("status")
    assert acknowledged > 40
    assert status["accepted"] + status["duplicates"] == acknowledged
    assert status["sums_agree"]
    assert direct.digests() == set(box.shelf())


FIRST_THAT_SENDS = [["-v", *proposal] for proposal in (["-R"], ["-xs"], ["-xw"], ["-xv"], ["-xr"], ["-xd"], ["-xt"])]
"""storescu proposes by option: native, then the compressed Transfer Syntaxes that pydicom's files are in."""


def _stored(sent) -> bool:
    return sent.returncode == 0 and "Received Store Response (Success)" in sent.stdout + sent.stderr


def test_same_uid_with_other_bytes_both_are_kept_and_forwarded_in_order(
    make_box, make_archive, dimse, ct_files, tmp_path, digest_of, wait_until
):
    changed = tmp_path / "changed.dcm"
    dataset = pydicom.dcmread(ct_files[0])
    dataset.StudyDescription = "changed"
    dataset.save_as(changed)
    archive = make_archive()
    box = make_box(dimse(archive.port, more="associations = 1")).start()
    assert send(box.port, ct_files[0]).returncode == 0
    assert send(box.port, changed).returncode == 0
    assert send(box.port, ct_files[0]).returncode == 0
    status = box.ask("status")
    assert (status["held"], status["duplicates"], status["alarms"]["uid_conflict"]) == (2, 1, 1)
    archive.start()
    assert wait_until(box.delivered_all)
    assert archive.digests() == {digest_of(ct_files[0]), digest_of(changed)}
    order = re.findall(r"delivered object=(\w+)", box.log())
    accepted = re.findall(r"accepted object=(\w+) .*duplicate=False", box.log())
    assert order == accepted


def test_the_archive_is_away_the_gateway_restarts_and_nothing_is_lost(
    make_box, make_archive, dimse, ct_files, digest_of, wait_until
):
    archive = make_archive()
    box = make_box(dimse(archive.port)).start()
    assert send(box.port, *ct_files[:6]).returncode == 0
    assert box.stop() == 0
    box.start()
    assert send(box.port, *ct_files[6:]).returncode == 0
    assert box.ask("status")["held"] == len(ct_files)
    archive.start()
    assert wait_until(box.delivered_all)
    assert archive.digests() == {digest_of(path) for path in ct_files}


def test_an_archive_that_takes_no_compression_gets_native_and_holds_what_cannot_be_native(
    make_box, make_archive, dimse, test_files, tmp_path, wait_until
):
    files = {path.name: path for path in test_files}
    archive = make_archive("+xi").start()
    box = make_box(dimse(archive.port)).start()
    for name in ("MR_small_bigendian.dcm", "image_dfl.dcm", "JPEG2000.dcm"):
        box.ask("status")
        assert cli(box, "import", str(files[name])).returncode == 0
    assert wait_until(lambda: box.ask("status")["released"] == 2, 40), box.log()
    held = wait_until(lambda: box.ask("queue_list", states=["held"]))
    assert len(held) == 1 and "Transfer Syntax" in held[0]["reason"]
    sent = {str(d.SOPInstanceUID): d for d in map(pydicom.dcmread, archive.folder.iterdir())}
    for name in ("MR_small_bigendian.dcm", "image_dfl.dcm"):
        original = pydicom.dcmread(files[name])
        arrived = sent[str(original.SOPInstanceUID)]
        assert arrived.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2"
        assert (arrived.pixel_array == original.pixel_array).all()


def cli(box, *arguments):
    import sys

    return subprocess.run(
        [sys.executable, "-m", "gateway", "--config", str(box.config), *arguments], capture_output=True, text=True
    )


def test_an_operator_sees_holds_releases_and_exports(make_box, make_archive, dimse, ct_files, digest_of, wait_until):
    archive = make_archive()
    box = make_box(dimse(archive.port, more="timeout_s = 30")).start()
    assert send(box.port, ct_files[0]).returncode == 0
    object_id = box.ask("queue_list")[0]["object_id"]
    assert wait_until(lambda: cli(box, "queue", "hold", object_id[:10]).returncode == 0)
    archive.start()
    assert cli(box, "queue", "list", "--state", "held").stdout.count(object_id[:12]) == 1
    copies = box.folder / "copies"
    assert cli(box, "queue", "export", object_id, "--to", str(copies)).returncode == 0
    assert digest_of(copies / f"{object_id}.dcm") == digest_of(ct_files[0])
    assert cli(box, "queue", "release", object_id).returncode == 0
    assert wait_until(box.delivered_all)
    assert cli(box, "echo", "pacs").returncode == 0
    assert cli(box, "status").returncode == 0
    assert box.stop() == 0
    assert cli(box, "status", "--json").returncode == 69


def test_a_new_configuration_is_read_on_sighup_and_a_bad_one_is_not(
    make_box, make_archive, dimse, ct_files, wait_until
):
    import signal

    archive = make_archive().start()
    box = make_box().start()
    assert send(box.port, ct_files[0]).returncode == 0
    assert box.ask("status")["unrouted"] == 1
    good = box.config.read_text()
    box.config.write_text(good + "[[destination]]\nname = 'x'\n")
    box.process.send_signal(signal.SIGHUP)
    assert wait_until(lambda: "reload_refused" in box.log())
    box.config.write_text(good + dimse(archive.port))
    box.process.send_signal(signal.SIGHUP)
    assert wait_until(box.delivered_all)


def test_drop_folder_takes_what_settles_and_says_why_not(make_box, ct_files, wait_until, tmp_path):
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    box = make_box(more=f'[[folder]]\npath = "{inbox}"\nsettle_s = 0.3').start()
    (inbox / "good.dcm").write_bytes(ct_files[0].read_bytes())
    (inbox / "bare.dcm").write_bytes(_without_meta(ct_files[1]))
    (inbox / "text.txt").write_text("not DICOM")
    (inbox / "link.dcm").symlink_to(ct_files[2])
    growing = inbox / "growing.dcm"
    content = ct_files[3].read_bytes()
    growing.write_bytes(content[:1000])
    assert wait_until(lambda: box.ask("status")["accepted"] >= 2)
    with open(growing, "ab") as file:
        file.write(content[1000:])
    assert wait_until(lambda: (inbox / "accepted" / "good.dcm").exists())
    refused = {"text.txt", "text.txt.txt", "link.dcm", "link.dcm.txt"}
    assert wait_until(lambda: {p.name for p in (inbox / "rejected").glob("*")} >= refused)
    assert wait_until(lambda: (inbox / "rejected" / "link.dcm.txt").read_text().startswith("Not taken"))


def _without_meta(path) -> bytes:
    with open(path, "rb") as file:
        pydicom.filereader.read_preamble(file, False)
        pydicom.filereader._read_file_meta_info(file)
        return file.read()
