"""Orthanc as archive: C-STORE, C-STORE over TLS, STOW-RS. What it gives back is what the scanner sent."""

from __future__ import annotations

import os
import subprocess

import trustme


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
