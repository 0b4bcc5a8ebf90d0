"""Who is measured: our gateway with its full durability, and the peers beside it. Everything on 127.0.0.1."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import trustme

from gateway.control import ask
from gateway.model.errors import GatewayError
from tests.ports import free_port

TUNED = {**os.environ, "TCP_NODELAY": "1"}
"""DCMTK, and Orthanc that is built on it, wait for delayed acknowledgements (45 ms an image) without this."""
STORESCU, STORESCP = (shutil.which(name, path="/usr/bin:/usr/local/bin") or name for name in ("storescu", "storescp"))
"""Not those that pynetdicom installs beside our interpreter."""


def listens(port: int) -> None:
    for _ in range(400):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"nobody listens on {port}")


@dataclass(frozen=True)
class Pki:
    """A throw-away authority and one certificate that everybody uses."""

    ca: Path
    cert: Path
    key: Path

    @classmethod
    def make(cls, folder: Path) -> Pki:
        folder.mkdir(exist_ok=True)
        authority = trustme.CA()
        issued = authority.issue_cert("127.0.0.1", "localhost")
        pki = cls(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
        authority.cert_pem.write_to_path(str(pki.ca))
        issued.private_key_pem.write_to_path(str(pki.key))
        issued.cert_chain_pems[0].write_to_path(str(pki.cert))
        return pki

    @property
    def dcmtk_options(self) -> list[str]:
        return ["+tls", str(self.key), str(self.cert), "+cf", str(self.ca)]


class Gateway:
    """Ours."""

    name = "gateway"

    def __init__(
        self, folder: Path, archive: int | None = None, pki: Pki | None = None, more: str = "", tables: str = ""
    ) -> None:
        self.folder, self.port = folder, free_port()
        folder.mkdir(exist_ok=True, parents=True)
        destination = tls = ""
        if archive:
            destination = (
                f'[[destination]]\nname="p"\nkind="dimse"\nhost="127.0.0.1"\nport={archive}\nae_title="P"\n{more}'
            )
        if pki:
            tls = f'tls = {{ cert_file = "{pki.cert}", key_file = "{pki.key}", ca_file = "{pki.ca}" }}\n'
        (folder / "g.toml").write_text(
            f'[gateway]\ndata_dir="data"\ncontrol_socket="c.sock"\n'
            f'[[listener]]\naddress="127.0.0.1"\nport={self.port}\nmax_associations=80\n'
            f"max_associations_per_address=80\n{tls}"
            f"[spool]\nreserve_bytes=0\nhigh_water_percent=100\n{destination}{tables}"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gateway", "--config", str(folder / "g.toml"), "run", "-q"],
            stderr=subprocess.DEVNULL,
        )
        started = time.perf_counter()
        while True:
            try:
                self.status()
                break
            except GatewayError:
                time.sleep(0.02)
        self.ready_s = time.perf_counter() - started

    def status(self) -> dict:
        return ask(self.folder / "c.sock", {"do": "status"})

    def memory_mb(self, field: str) -> float:
        """`VmHWM` is the peak, `VmRSS` the present."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1]) / 1024
        return 0.0

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)


class Process:
    """A peer that is one command."""

    def __init__(self, name: str, port: int, command: list[str], env: dict[str, str] | None = None) -> None:
        self.name, self.port = name, port
        self.process = subprocess.Popen(
            command, env=TUNED if env is None else env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        listens(port)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


def dcmtk(folder: Path, *options: str, port: int = 0) -> Process:
    """DCMTK's receiver as tuned as it gets: TCP_NODELAY, bit-preserving; it never flushes."""
    folder.mkdir(exist_ok=True, parents=True)
    port = port or free_port()
    return Process("DCMTK storescp +B", port, [STORESCP, "+B", "+uf", *options, "-od", str(folder), str(port)])


STOCK = """
import sys, uuid
from pynetdicom import AE, AllStoragePresentationContexts, evt
folder, port = sys.argv[1:]
def store(event):
    open(folder + "/" + uuid.uuid4().hex, "wb").write(event.encoded_dataset())
    return 0
ae = AE()
ae.maximum_pdu_size, ae.maximum_associations = 131072, 16
ae.supported_contexts = AllStoragePresentationContexts
ae.start_server(("127.0.0.1", int(port)), evt_handlers=[(evt.EVT_C_STORE, store)])
"""


def stock_pynetdicom(folder: Path) -> Process:
    folder.mkdir(exist_ok=True, parents=True)
    port = free_port()
    return Process("pynetdicom, stock", port, [sys.executable, "-c", STOCK, str(folder), str(port)])


def orthanc(folder: Path) -> Process:
    """Orthanc as shipped: without TCP_NODELAY."""
    program = shutil.which("Orthanc") or "/usr/sbin/Orthanc"
    folder.mkdir(exist_ok=True, parents=True)
    port = free_port()
    settings = {"StorageDirectory": str(folder / "db"), "DicomPort": port, "HttpPort": free_port()}
    settings |= {"DicomCheckCalledAet": False, "DicomAlwaysAllowStore": True, "RemoteAccessAllowed": False}
    (folder / "o.json").write_text(json.dumps(settings))
    plain = {name: value for name, value in os.environ.items() if name != "TCP_NODELAY"}
    return Process("Orthanc, as shipped", port, [program, str(folder / "o.json")], plain)


def push(port: int, folders: list[Path], *options: str) -> float:
    """Send one folder per association; return seconds."""
    started = time.perf_counter()
    senders = [
        subprocess.Popen([STORESCU, "+sd", *options, "127.0.0.1", str(port), str(folder)], env=TUNED)
        for folder in folders
    ]
    if any(sender.wait() for sender in senders):
        raise SystemExit("a sender failed")
    return time.perf_counter() - started
