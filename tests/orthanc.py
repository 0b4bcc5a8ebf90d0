"""Orthanc as a process of its own, with what it was given read back over its REST interface."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import socket
import subprocess
import urllib.request
from pathlib import Path

import pydicom

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
