"""An archive gets the form that its route asks for, or nothing; the original stays as it was acknowledged."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO

import pydicom
import pytest

JPEG_LS, EXPLICIT = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.1"
RECIPE = (
    '[[morph]]\nname = "site-a"\nsource = "Żoliborz"\n'
    '[[morph.change]]\ntag = "PatientID"\nprefix = "A-"\n'
    '[[morph.change]]\ntag = "InstitutionName"\nset = "Szpital św. Łazarza"\n'
)
NOT_FOR_ALL = RECIPE + '[[morph.change]]\ntag = "Modality"\nmatch = "^CT$"\nreplace = "ct"\n'
"""A Code String has no small letters: what is a CT cannot be made."""


def to(name: str, morph: str = "", when: str = "") -> str:
    recipe = f'morph = ["{morph}"]\n' if morph else ""
    return f'[[route]]\nto = ["{name}"]\n{recipe}{when}\n'


def scan(box, *files, options=()):
    command = ["storescu", *options, "127.0.0.1", str(box.port), *map(str, files)]
    subprocess.run(command, check=True, env={**os.environ, "TCP_NODELAY": "1"})


def said(path, *tags: str) -> list[str]:
    """What DCMTK reads, in UTF-8."""
    options = [word for tag in tags for word in ("+P", tag)]
    told = subprocess.run(["dcmdump", "-q", "+U8", "+L", *options, str(path)], capture_output=True, check=True)
    return [line.partition("#")[0].strip() for line in told.stdout.decode().splitlines()]


def reasons(box) -> str:
    return str([box.ask("queue_show", object=row["object_id"]) for row in box.ask("queue_list", states=["held"])])


def test_one_archive_gets_the_changed_form_the_other_the_original(
    make_box, make_archive, dimse, ct_files, digest_of, wait_until
):
    changed, plain = make_archive().start(), make_archive().start()
    tables = dimse(changed.port, "changed") + dimse(plain.port, "plain")
    box = make_box(tables + to("changed", "site-a") + to("plain") + RECIPE).start()
    scan(box, *ct_files)
    assert wait_until(box.delivered_all), box.log()
    originals = {str(dataset.SOPInstanceUID): dataset for dataset in map(pydicom.dcmread, ct_files)}
    sent = {digest_of(path) for path in ct_files}
    assert plain.digests() == sent and set(box.shelf()) == sent
    arrived = list(changed.folder.iterdir())
    assert len(arrived) == len(ct_files)
    for path in arrived:
        dataset = pydicom.dcmread(path)
        original = originals.pop(str(dataset.SOPInstanceUID))
        assert said(path, "0010,0020")[0] == f"(0010,0020) LO [A-{original.PatientID}]"
        assert said(path, "0008,0080")[0] == "(0008,0080) LO [Szpital św. Łazarza]"
        assert said(path, "0400,0564", "0400,0565") == ["(0400,0564) LO [Żoliborz]", "(0400,0565) CS [COERCE]"]
        assert dataset.PixelData == original.PixelData
        assert dataset.OriginalAttributesSequence[0].ModifiedAttributesSequence[0].PatientID == original.PatientID
    assert list((box.folder / "data" / "renditions").iterdir()) == []
    for secret in ("A-", str(pydicom.dcmread(ct_files[0]).PatientName)):
        assert secret not in box.log()


def test_what_a_recipe_cannot_make_is_held_and_the_rest_goes_on(
    make_box, make_archive, dimse, ct_files, test_files, wait_until
):
    """Never the original instead; when the recipe is mended, a person lets it go."""
    archive = make_archive().start()
    mr = next(path for path in test_files if path.name == "MR_small.dcm")
    box = make_box(dimse(archive.port) + to("pacs", "site-a") + NOT_FOR_ALL).start()
    scan(box, *ct_files[:3], mr)
    assert wait_until(lambda: len(list(archive.folder.iterdir())) == 1), box.log()
    assert wait_until(lambda: box.ask("status")["destinations"]["pacs"]["held"] == 3), box.log()
    assert said(next(archive.folder.iterdir()), "0008,0060")[0] == "(0008,0060) CS [MR]"
    told = reasons(box)
    assert "site-a cannot be applied: a value of Modality is not a code" in told and "[ct]" not in told
    assert len(list(archive.folder.iterdir())) == 1

    box.config.write_text(box.config.read_text().replace(NOT_FOR_ALL, RECIPE))
    box.process.send_signal(signal.SIGHUP)
    assert wait_until(lambda: "reloaded" in box.log())
    for row in box.ask("queue_list", states=["held"]):
        box.ask("queue_release", object=row["object_id"], destination="pacs")
    assert wait_until(box.delivered_all), box.log()
    assert all(said(path, "0010,0020")[0].startswith("(0010,0020) LO [A-") for path in archive.folder.iterdir())


def test_a_recipe_that_the_configuration_lost_holds_what_was_to_go_by_it(
    make_box, make_archive, dimse, ct_files, wait_until
):
    archive = make_archive()
    box = make_box(dimse(archive.port) + to("pacs", "site-a") + RECIPE).start()
    scan(box, ct_files[0])
    ill = lambda: not box.ask("status")["destinations"]["pacs"]["well"]  # noqa: E731 - the first try is over
    assert wait_until(ill), box.log()
    box.config.write_text(box.config.read_text().replace(RECIPE, "").replace('morph = ["site-a"]', ""))
    box.process.send_signal(signal.SIGHUP)
    assert wait_until(lambda: "reloaded" in box.log())
    archive.start()
    assert wait_until(lambda: box.ask("status")["destinations"]["pacs"]["held"] == 1), box.log()
    assert "no recipe 'site-a' any more" in reasons(box)
    assert list(archive.folder.iterdir()) == []


def test_changed_and_compressed_is_decoded_by_dcmtk(make_box, make_archive, dimse, ct_files, tmp_path, wait_until):
    archive = make_archive("+xa").start()
    table = dimse(archive.port, more='compression = "jpeg-ls"\nassociations = 1')
    box = make_box(table + to("pacs", "site-a") + RECIPE).start()
    scan(box, *ct_files, options=("-xi",))
    assert wait_until(box.delivered_all), box.log()
    originals = {str(dataset.SOPInstanceUID): dataset for dataset in map(pydicom.dcmread, ct_files)}
    coded = 0
    for path in archive.folder.iterdir():
        dataset = pydicom.dcmread(path)
        original = originals.pop(str(dataset.SOPInstanceUID))
        if dataset.file_meta.TransferSyntaxUID == JPEG_LS:
            coded += 1
            plain = tmp_path / "plain.dcm"
            subprocess.run(["dcmdjpls", str(path), str(plain)], check=True)
            dataset = pydicom.dcmread(plain)
        assert dataset.PixelData == original.PixelData
        assert (dataset.PatientID, dataset.InstitutionName) == (f"A-{original.PatientID}", "Szpital św. Łazarza")
    assert (originals, coded) == ({}, len(ct_files) - 1)  # the first taught us what the archive takes


def test_changed_pixels_in_fragments_reach_an_archive_that_takes_native_only(
    make_box, make_archive, dimse, ct_files, tmp_path, wait_until
):
    coded = tmp_path / "coded.dcm"
    subprocess.run(["dcmcjpls", str(ct_files[0]), str(coded)], check=True)
    native, both = make_archive().start(), make_archive("+xa").start()
    box = make_box(dimse(native.port) + dimse(both.port, "both") + to("pacs", "site-a") + to("both", "site-a") + RECIPE)
    box.start()
    scan(box, coded, options=("-xt",))
    assert wait_until(box.delivered_all), box.log()
    original = pydicom.dcmread(ct_files[0])
    for archive, syntax in ((native, EXPLICIT), (both, JPEG_LS)):
        (path,) = archive.folder.iterdir()
        dataset = pydicom.dcmread(path)
        assert dataset.file_meta.TransferSyntaxUID == syntax
        assert dataset.PatientID == f"A-{original.PatientID}"
        if syntax == JPEG_LS:
            subprocess.run(["dcmdjpls", str(path), str(tmp_path / "plain.dcm")], check=True)
            dataset = pydicom.dcmread(tmp_path / "plain.dcm")
        assert dataset.PixelData == original.PixelData


@pytest.fixture
def web():
    """A STOW-RS service by the standard library; `got` holds the Part 10 files."""
    got: list[bytes] = []

    class Service(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_POST(self):
            content = self.rfile.read(int(self.headers["Content-Length"]))
            part = content.split(b"\r\n\r\n", 1)[1].rsplit(b"\r\n--", 1)[0]
            got.append(part)
            uid = str(pydicom.dcmread(BytesIO(part)).SOPInstanceUID)
            reply = {"00081199": {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": [uid]}}]}}
            body = json.dumps(reply).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/dicom+json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/studies", got
    server.shutdown()
    server.server_close()


def test_a_web_archive_gets_the_changed_form_too(make_box, web, ct_files, tmp_path, wait_until):
    url, got = web
    study = '[[morph.change]]\ntag = "StudyInstanceUID"\nset = "1.2.3.4.5"\n'
    table = f'[[destination]]\nname = "cloud"\nkind = "stow"\nurl = "{url}"\n'
    box = make_box(table + to("cloud", "site-a") + RECIPE + study).start()
    scan(box, *ct_files[:3])
    assert wait_until(box.delivered_all), box.log()
    assert len(got) == 3
    for content in got:
        path = tmp_path / "got.dcm"
        path.write_bytes(content)
        assert said(path, "0008,0080")[0] == "(0008,0080) LO [Szpital św. Łazarza]"
        assert said(path, "0020,000d")[0] == "(0020,000d) UI [1.2.3.4.5]"


def test_what_explain_shows_is_what_arrives(make_box, make_archive, dimse, ct_files, wait_until):
    archive = make_archive().start()
    box = make_box(dimse(archive.port) + to("pacs", "site-a") + RECIPE)
    command = [sys.executable, "-m", "gateway", "--config", str(box.config), "route"]
    told = subprocess.run([*command, "explain", "--diff", "--json", str(ct_files[0])], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    found = json.loads(told.stdout)["changes"]["pacs"]
    changes = {change["name"]: (change["before"], change["after"]) for change in found}
    words = subprocess.run([*command, "explain", "--diff", str(ct_files[0])], capture_output=True, text=True).stdout
    assert f"PatientID: '{changes['PatientID'][0]}' -> '{changes['PatientID'][1]}'" in words
    listed = subprocess.run([*command, "list"], capture_output=True, text=True).stdout
    assert "-> pacs (normal), changed by site-a" in listed and "morph site-a: PatientID with 'A-' before it" in listed

    box.start()
    scan(box, ct_files[0])
    assert wait_until(box.delivered_all), box.log()
    before, after = pydicom.dcmread(ct_files[0]), pydicom.dcmread(next(archive.folder.iterdir()))
    names = {element.keyword for element in after if element != before.get(element.tag)}
    assert {name.partition("[")[0] for name in changes} == names
    for name in ("PatientID", "InstitutionName"):
        assert changes[name][1] == str(after[name].value)


def test_explain_says_what_would_be_held(make_box, make_archive, dimse, ct_files):
    box = make_box(dimse(1) + to("pacs", "site-a") + NOT_FOR_ALL)
    command = [sys.executable, "-m", "gateway", "--config", str(box.config), "route", "explain", "--diff"]
    told = subprocess.run([*command, str(ct_files[0])], capture_output=True, text=True)
    assert told.returncode == 1
    assert "would be held" in told.stdout and "a value of Modality is not a code" in told.stdout
