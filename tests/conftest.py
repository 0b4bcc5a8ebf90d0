"""What several stories share: a gateway as its own process, DCMTK as scanner and archive, real files."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pydicom
import pytest
from hypothesis import HealthCheck, settings

from gateway.control import ask
from gateway.model.errors import GatewayError
from tests.orthanc import Orthanc
from tests.ports import free_port, listens
from tests.program import Program

# pynetdicom installs a storescu and a storescp of its own; in an activated environment they would hide DCMTK's.
os.environ["PATH"] = os.pathsep.join(
    folder for folder in os.environ["PATH"].split(os.pathsep) if not Path(folder).is_relative_to(sys.prefix)
)
# The same examples in each run, however long the machine pauses in one of them.
settings.register_profile("here", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("new", settings.get_profile("here"), derandomize=False)
settings.load_profile("here")
TEST_FILES = Path(pydicom.__file__).parent / "data" / "test_files"


def dataset_bytes(path: Path) -> bytes:
    """Everything after the File Meta Information, found by pydicom."""
    with open(path, "rb") as file:
        pydicom.filereader.read_preamble(file, False)
        pydicom.filereader.read_file_meta_info(path)
        pydicom.filereader._read_file_meta_info(file)
        return file.read()


def digest(path: Path) -> str:
    return hashlib.sha256(dataset_bytes(path)).hexdigest()


def until(condition, patience_s: float = 30.0):
    """Wait for a condition, bounded; return what it returned."""
    deadline = time.monotonic() + patience_s
    while True:
        found = condition()
        if found or time.monotonic() > deadline:
            return found
        time.sleep(0.05)


class Box(Program):
    """A gateway process in a folder of its own."""

    def __init__(self, folder: Path, destinations: str = "", more: str = "", listener: str = "") -> None:
        self.folder = folder
        self.port = free_port()
        self.config = folder / "gateway.toml"
        self.config.write_text(
            f'[gateway]\ndata_dir = "data"\ncontrol_socket = "c.sock"\n'
            f'[[listener]]\naddress = "127.0.0.1"\nport = {self.port}\n{listener}\n'
            f"[spool]\nreserve_bytes = 0\nhigh_water_percent = 100\n{more}\n{destinations}\n"
        )

    def start(self, *prefix: str, env: dict | None = None, patience_s: float = 30.0) -> Box:
        with open(self.folder / "gateway.log", "ab") as log:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, "-m", "gateway", "--config", str(self.config), "run"],
                stdout=log,
                stderr=log,
                env={**os.environ, **(env or {})},
            )
        assert until(self._up, patience_s), self.log()
        return self

    def _up(self):
        try:
            return self.ask("status")
        except GatewayError:
            assert self.process.poll() is None, self.log()
            return None

    def ask(self, do: str, **request):
        return ask(self.folder / "c.sock", {"do": do, **request})

    def log(self) -> str:
        return (self.folder / "gateway.log").read_text()

    def delivered_all(self) -> bool:
        status = self.ask("status")
        return status["held"] == 0 and status["accepted"] > 0

    def shelf(self) -> dict[str, Path]:
        """SHA-256 of the data set -> file, of everything on the shelves, read by pydicom."""
        return {digest(path): path for path in (self.folder / "data" / "objects").rglob("*.dcm")}


class Storescp:
    """DCMTK's archive: bit-preserving."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.port = free_port()
        self._options = options
        self.process: subprocess.Popen | None = None

    def start(self) -> Storescp:
        self.folder.mkdir(exist_ok=True)
        self.process = subprocess.Popen(
            ["storescp", "+B", "+uf", *self._options, "-od", str(self.folder), str(self.port)],
            env={**os.environ, "TCP_NODELAY": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        assert until(lambda: listens(self.port))
        return self

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)

    def digests(self) -> set[str]:
        return {digest(path) for path in self.folder.iterdir()}


@pytest.fixture
def make_box(tmp_path):
    boxes = []

    def make(destinations: str = "", more: str = "", listener: str = "", name: str = "box") -> Box:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        box = Box(folder, destinations, more, listener)
        boxes.append(box)
        return box

    yield make
    for box in boxes:
        box.stop()


@pytest.fixture
def make_archive(tmp_path):
    archives = []

    def make(*options: str) -> Storescp:
        archive = Storescp(tmp_path / f"archive{len(archives)}", *options)
        archives.append(archive)
        return archive

    yield make
    for archive in archives:
        archive.stop()


@pytest.fixture
def wait_until():
    return until


@pytest.fixture
def digest_of():
    return digest


@pytest.fixture
def port():
    return free_port


@pytest.fixture
def dimse():
    def table(port: int, name: str = "pacs", more: str = "") -> str:
        return (
            f'[[destination]]\nname = "{name}"\nkind = "dimse"\nhost = "127.0.0.1"\nport = {port}\n'
            f'ae_title = "ANY"\nretry_first_s = 0.1\nretry_ceiling_s = 0.5\n{more}\n'
        )

    return table


@pytest.fixture(scope="session")
def test_files() -> list[Path]:
    """pydicom's own test files that DCMTK's storescu takes for DICOM files."""
    return sorted(path for path in TEST_FILES.glob("*.dcm") if "DICOMDIR" not in path.name)


@pytest.fixture(scope="session")
def ct_files(tmp_path_factory) -> list[Path]:
    from gateway.emulator.study import ct_study

    folder = tmp_path_factory.mktemp("ct")
    files = []
    for number, dataset in enumerate(ct_study(7, 12)):
        files.append(folder / f"{number}.dcm")
        dataset.save_as(files[-1], enforce_file_format=True)
    return files


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


@pytest.fixture
def broker(tmp_path):
    from tests.broker import Broker

    broker = Broker(tmp_path / "broker")
    yield broker.start()
    broker.stop()
