"""Orthanc as archive: C-STORE, C-STORE over TLS, STOW-RS. What it gives back is what the scanner sent."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import urllib.request
from pathlib import Path

import pydicom
import pytest
import trustme

ORTHANC = shutil.which("Orthanc") or "/usr/sbin/Orthanc"
PLUGINS = "/usr/share/orthanc/plugins"


class Orthanc:
    """One Orthanc with a database of its own."""

    def __init__(self, folder, dicom_port, http_port, **settings):
        folder.mkdir()
        self.http_port, self.dicom_port, self.folder = http_port, dicom_port, folder
        web = [str(path) for path in Path(PLUGINS).glob("libOrthancDicomWeb*")]
        (folder / "orthanc.json").write_text(
            json.dumps(
                {
                    "Name": "archive",
                    "StorageDirectory": str(folder / "db"),
                    "IndexDirectory": str(folder / "db"),
                    "DicomPort": dicom_port,
                    "HttpPort": http_port,
                    "RemoteAccessAllowed": False,
                    "AuthenticationEnabled": False,
                    "DicomCheckCalledAet": False,
                    "DicomAlwaysAllowStore": True,
                    "DicomAlwaysAllowEcho": True,
                    "Plugins": web,
                    "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
                    **settings,
                }
            )
        )
        self.log = open(folder / "log", "wb")  # noqa: SIM115 - as long as the process
        self.process = subprocess.Popen([ORTHANC, str(folder / "orthanc.json")], stdout=self.log, stderr=self.log)

    def up(self):
        try:
            self.get("/system")
            socket.create_connection(("127.0.0.1", self.dicom_port), 1).close()
            return True
        except OSError:
            assert self.process.poll() is None, (self.folder / "log").read_text()
            return False

    def get(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=10) as answer:
            return answer.read()

    def digests(self):
        found = set()
        for instance in json.loads(self.get("/instances")):
            file = io.BytesIO(self.get(f"/instances/{instance}/file"))
            pydicom.filereader.read_preamble(file, False)
            pydicom.filereader._read_file_meta_info(file)
            found.add(hashlib.sha256(file.read()).hexdigest())
        return found

    def stop(self):
        self.process.terminate()
        self.process.wait(20)
        self.log.close()


@pytest.fixture
def make_orthanc(tmp_path, port, wait_until):
    started = []

    def make(**settings):
        archive = Orthanc(tmp_path / f"orthanc{len(started)}", port(), port(), **settings)
        started.append(archive)
        assert wait_until(archive.up, 40)
        return archive

    yield make
    for archive in started:
        archive.stop()


def scan(box, files):
    sent = subprocess.run(
        ["storescu", "127.0.0.1", str(box.port), *map(str, files)], env={**os.environ, "TCP_NODELAY": "1"}
    )
    assert sent.returncode == 0


def test_orthanc_gets_the_study_by_c_store(make_orthanc, make_box, dimse, ct_files, digest_of, wait_until):
    archive = make_orthanc()
    box = make_box(dimse(archive.dicom_port, more='compression = "off"')).start()
    scan(box, ct_files)
    assert wait_until(box.delivered_all), box.log()
    assert archive.digests() == {digest_of(path) for path in ct_files}


def test_orthanc_gets_the_study_by_stow_rs(make_orthanc, make_box, ct_files, digest_of, wait_until):
    archive = make_orthanc()
    url = f"http://127.0.0.1:{archive.http_port}/dicom-web/studies"
    box = make_box(f'[[destination]]\nname = "web"\nkind = "stow"\ncompression = "off"\nurl = "{url}"\n').start()
    scan(box, ct_files)
    assert wait_until(box.delivered_all), box.log()
    assert archive.digests() == {digest_of(path) for path in ct_files}


def test_orthanc_gets_the_study_by_mutual_tls(make_orthanc, make_box, dimse, ct_files, digest_of, wait_until, tmp_path):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    for name in ("localhost", "gateway"):
        issued = authority.issue_cert(name)
        issued.private_key_pem.write_to_path(str(tmp_path / f"{name}.key"))
        issued.cert_chain_pems[0].write_to_path(str(tmp_path / f"{name}.pem"))
    archive = make_orthanc(
        DicomTlsEnabled=True,
        DicomTlsCertificate=str(tmp_path / "localhost.pem"),
        DicomTlsPrivateKey=str(tmp_path / "localhost.key"),
        DicomTlsTrustedCertificates=str(tmp_path / "ca.pem"),
    )
    files = {
        key: str(tmp_path / name) for key, name in (("ca", "ca.pem"), ("cert", "gateway.pem"), ("key", "gateway.key"))
    }
    table = dimse(
        archive.dicom_port,
        more=f'tls = {{ ca_file = "{files["ca"]}", cert_file = "{files["cert"]}", key_file = "{files["key"]}", '
        'server_name = "localhost" }\ncompression = "off"',
    )
    box = make_box(table).start()
    scan(box, ct_files)
    assert wait_until(box.delivered_all), box.log()
    assert archive.digests() == {digest_of(path) for path in ct_files}


def test_a_scanner_sends_over_mutual_tls_to_dcmtk_over_mutual_tls(
    make_box, make_archive, dimse, ct_files, digest_of, wait_until, tmp_path
):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    issued = authority.issue_cert("localhost")
    issued.private_key_pem.write_to_path(str(tmp_path / "id.key"))
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "id.pem"))
    ca, key, cert = (str(tmp_path / name) for name in ("ca.pem", "id.key", "id.pem"))
    archive = make_archive("+tls", key, cert, "+cf", ca).start()
    tls = f'tls = {{ ca_file = "{ca}", cert_file = "{cert}", key_file = "{key}"'
    box = make_box(
        dimse(archive.port, more=f'{tls}, server_name = "localhost" }}'), listener=f"{tls} }}", more=""
    ).start()
    plain = subprocess.run(
        ["storescu", "-ta", "5", "-to", "5", "127.0.0.1", str(box.port), str(ct_files[0])], capture_output=True
    )
    assert plain.returncode != 0
    sent = subprocess.run(
        ["storescu", "+tls", key, cert, "+cf", ca, "127.0.0.1", str(box.port), *map(str, ct_files)],
        capture_output=True,
        text=True,
    )
    assert sent.returncode == 0, sent.stderr
    assert wait_until(box.delivered_all), box.log()
    assert archive.digests() == {digest_of(path) for path in ct_files}
