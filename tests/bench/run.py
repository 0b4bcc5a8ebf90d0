"""Reception and forwarding side by side with peers, in one run, as ratios. `make bench`; `--quick` for a smaller one.

Sender is DCMTK `storescu` (TCP_NODELAY). Ours keeps its full promise (flush, ledger); the peers do not flush.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pydicom
from pydicom.uid import generate_uid

from gateway.control import ask
from gateway.emulator.study import ct_study
from gateway.model.errors import GatewayError

ENV = {**os.environ, "TCP_NODELAY": "1"}
QUICK = "--quick" in sys.argv
CT_IMAGES, MR_IMAGES, BIG_BYTES, HELD = (50, 300, 200 << 20, 10_000) if QUICK else (200, 3000, 1 << 30, 100_000)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def listens(port: int) -> None:
    for _ in range(400):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"nobody listens on {port}")


class Gateway:
    """Ours, with full durability."""

    name = "gateway"

    def __init__(self, folder: Path, archive: int | None = None) -> None:
        self.folder, self.port = folder, free_port()
        folder.mkdir(exist_ok=True)
        destination = ""
        if archive:
            destination = f'[[destination]]\nname="p"\nkind="dimse"\nhost="127.0.0.1"\nport={archive}\nae_title="P"\n'
        (folder / "g.toml").write_text(
            f'[gateway]\ndata_dir="data"\ncontrol_socket="c.sock"\n[[listener]]\naddress="127.0.0.1"\nport={self.port}\n'
            f"[spool]\nreserve_bytes=0\nhigh_water_percent=100\n{destination}"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gateway", "--config", str(folder / "g.toml"), "run", "-q"]
        )
        self.started = time.perf_counter()
        while True:
            try:
                self.status()
                break
            except GatewayError:
                time.sleep(0.02)
        self.ready_s = time.perf_counter() - self.started

    def status(self) -> dict:
        return ask(self.folder / "c.sock", {"do": "status"})

    def peak_mb(self) -> float:
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
        return 0.0

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)


class Process:
    """A peer that is one command."""

    def __init__(self, name: str, port: int, command: list[str]) -> None:
        self.name, self.port = name, port
        self.process = subprocess.Popen(command, env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        listens(port)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


def dcmtk(folder: Path, *options: str) -> Process:
    folder.mkdir(exist_ok=True)
    port = free_port()
    return Process("dcmtk storescp +B", port, ["storescp", "+B", "+uf", *options, "-od", str(folder), str(port)])


def stock_pynetdicom(folder: Path) -> Process:
    folder.mkdir(exist_ok=True)
    port = free_port()
    code = (
        "from pynetdicom import AE,evt,_config,AllStoragePresentationContexts\n"
        "import sys,uuid\n"
        "def store(e):\n"
        f"    open({str(folder)!r}+'/'+uuid.uuid4().hex,'wb').write(e.encoded_dataset())\n"
        "    return 0\n"
        "ae=AE(); ae.maximum_pdu_size=131072; ae.maximum_associations=16\n"
        "ae.supported_contexts=AllStoragePresentationContexts\n"
        f"ae.start_server(('127.0.0.1',{port}),evt_handlers=[(evt.EVT_C_STORE,store)])\n"
    )
    return Process("pynetdicom stock", port, [sys.executable, "-c", code])


def orthanc(folder: Path) -> Process | None:
    program = shutil.which("Orthanc") or "/usr/sbin/Orthanc"
    if not Path(program).exists():
        return None
    folder.mkdir(exist_ok=True)
    port = free_port()
    settings = {"StorageDirectory": str(folder / "db"), "DicomPort": port, "HttpPort": free_port()}
    settings |= {"DicomCheckCalledAet": False, "DicomAlwaysAllowStore": True, "RemoteAccessAllowed": False}
    (folder / "o.json").write_text(json.dumps(settings))
    return Process("orthanc", port, [program, str(folder / "o.json")])


def push(port: int, folders: list[Path]) -> float:
    """Send one folder per association; return seconds."""
    started = time.perf_counter()
    senders = [
        subprocess.Popen(["storescu", "+sd", "127.0.0.1", str(port), str(folder)], env=ENV) for folder in folders
    ]
    if any(sender.wait() for sender in senders):
        raise SystemExit("a sender failed")
    return time.perf_counter() - started


def make_ct(folder: Path, count: int, seed: int) -> Path:
    folder.mkdir()
    for number, dataset in enumerate(ct_study(seed, count)):
        dataset.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    return folder


def make_mr(folder: Path, count: int, seed: int) -> Path:
    folder.mkdir()
    dataset = next(ct_study(seed, 1))
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    dataset.Modality, dataset.Rows, dataset.Columns = "MR", 116, 116
    pixels = dataset.PixelData[: 116 * 116 * 2]
    for number in range(count):
        dataset.PixelData = pixels
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    return folder


def row(what: str, ours: float, peer: str, theirs: float) -> None:
    print(f"{what:44} ours {ours:9.1f}   {peer:20} {theirs:9.1f}   ratio {ours / theirs:6.2f}", flush=True)


def reception(work: Path) -> None:
    rounds = 3
    for what, maker, count in (("CT 0.5 MB", make_ct, CT_IMAGES), ("MR 27 KB", make_mr, MR_IMAGES)):
        for associations in (1, 4):
            folders = [
                maker(work / f"{what[:2]}{associations}{n}", count // associations, 10 * associations + n)
                for n in range(associations)
            ]
            rates: dict[str, float] = {}
            for attempt in range(rounds):
                fork = ["--fork"] if associations > 1 else []
                place = work / f"{what[:2]}{associations}r{attempt}"
                place.mkdir()
                makers = [
                    lambda place=place: Gateway(place / "gw"),
                    lambda place=place, fork=fork: dcmtk(place / "dcmtk", *fork),
                ]
                if attempt == 0 and what.startswith("CT"):
                    makers += [
                        lambda place=place: stock_pynetdicom(place / "py"),
                        lambda place=place: orthanc(place / "or"),
                    ]
                for make in makers:
                    peer = make()
                    if peer is None:
                        continue
                    try:
                        rate = count / push(peer.port, folders)
                    finally:
                        peer.stop()
                    rates[peer.name] = max(rate, rates.get(peer.name, 0.0))
                shutil.rmtree(place)
            for name, rate in rates.items():
                if name != "gateway":
                    row(f"receive {what}, {associations} association(s), images/s", rates["gateway"], name, rate)


def forwarding(work: Path) -> None:
    folder = make_ct(work / "fwd", CT_IMAGES, 77)
    direct = dcmtk(work / "direct")
    theirs = CT_IMAGES / push(direct.port, [folder])
    direct.stop()
    archive = dcmtk(work / "archive", "--fork")
    archive.stop()
    gateway = Gateway(work / "gwf", archive.port)
    push(gateway.port, [folder])
    archive = Process(
        "archive", archive.port, ["storescp", "+B", "+uf", "--fork", "-od", str(work / "archive"), str(archive.port)]
    )
    while gateway.status()["released"] < 1:
        time.sleep(0.01)
    started, already = time.perf_counter(), gateway.status()["released"]
    while gateway.status()["held"]:
        time.sleep(0.01)
    ours = (CT_IMAGES - already) / (time.perf_counter() - started)
    gateway.stop()
    archive.stop()
    row("forward CT 0.5 MB, images/s", ours, "storescu -> storescp", theirs)


def memory(work: Path) -> None:
    dataset = next(ct_study(5, 1))
    path = work / "big.dcm"
    dataset.NumberOfFrames = BIG_BYTES // (512 * 512 * 2)
    frame = dataset.PixelData
    dataset.PixelData = b""
    dataset.save_as(path, enforce_file_format=True)
    content = path.read_bytes()[:-12]
    with open(path, "wb") as file:
        file.write(
            content + b"\xe0\x7f\x10\x00OW\0\0" + (int(dataset.NumberOfFrames) * len(frame)).to_bytes(4, "little")
        )
        for _ in range(int(dataset.NumberOfFrames)):
            file.write(frame)
    assert pydicom.dcmread(path, stop_before_pixels=True).Rows == 512
    archive = dcmtk(work / "bigarchive")
    size = path.stat().st_size
    gateway = Gateway(work / "gwbig", archive.port)
    seconds = push(gateway.port, [_alone(work, path)])
    while gateway.status()["held"]:
        time.sleep(0.1)
    print(f"peak RSS, one object of {size >> 20} MB received and forwarded: {gateway.peak_mb():.0f} MB "
          f"(target < 200); received at {size / 1e6 / seconds:.0f} MB/s", flush=True)  # fmt: skip
    gateway.stop()
    archive.stop()


def _alone(work: Path, path: Path) -> Path:
    folder = work / "alone"
    folder.mkdir()
    path.rename(folder / path.name)
    return folder


def recovery(work: Path) -> None:
    """Fill a spool through its own front, without the wire, then start the service on it."""
    folder = work / "gwrec"
    folder.mkdir()
    code = f"""
import threading, sys
from pathlib import Path
from gateway.model.instance import *
from gateway.spool import spool as s, committer
committer.BATCH = 2000
import os; os.fdatasync = os.fsync = lambda fd: None
spool = s.Spool(Path({str(folder / "data")!r}), 0, 100)
spool.committer._ledger._db.execute("PRAGMA synchronous=OFF")
stop = threading.Event(); t = threading.Thread(target=spool.committer.run, args=(stop, lambda: None)); t.start()
for i in range({HELD}):
    identity = ("1.2.840.10008.5.1.4.1.1.2", f"1.2.{{i}}", "1.2.840.10008.1.2")
    part = spool.new_part(identity); part.write(b"x" * 100)
    spool.take(part, Header(*identity[:2], "1.2.3", "1.2.3", "CT"), Origin(Door.IMPORT), identity)
stop.set(); t.join(); spool.close()
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    gateway = Gateway(folder)
    started = time.perf_counter()
    held = gateway.status()["held"]
    seconds = time.perf_counter() - started
    print(f"recovery of {held} held objects, process start to answer: {gateway.ready_s:.2f} s (target < 10)")
    print(f"status with {held} held objects: {seconds:.3f} s (target < 0.2)", flush=True)
    gateway.stop()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="gateway-bench-", dir=os.environ.get("BENCH_DIR")) as name:
        for part in (reception, forwarding, memory, recovery):
            work = Path(name) / part.__name__
            work.mkdir()
            part(work)
            shutil.rmtree(work)
