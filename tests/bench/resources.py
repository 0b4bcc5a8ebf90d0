"""What it costs: memory while large objects pass, idle associations, recovery."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from material import make_big, make_ct
from peers import Gateway, dcmtk, push

from gateway.dicom.requestor import Peer, Requestor

VERIFICATION = ("1.2.840.10008.1.1", "1.2.840.10008.1.2")


def memory(work: Path, quick: bool) -> None:
    small = make_ct(work / "small", 5, 3)
    for size, forwarded, target in ((2000, False, 32), (1000, True, 0)):
        folder = make_big(work / f"big{size}", (size // 10 if quick else size) << 20)
        archive = dcmtk(work / "archive") if forwarded else None
        gateway = Gateway(work / f"gw{size}", archive.port if archive else None)
        push(gateway.port, [small])
        while archive and gateway.status()["held"]:
            time.sleep(0.1)
        before = gateway.memory_mb("VmRSS")
        seconds = push(gateway.port, [folder])
        while archive and gateway.status()["held"]:
            time.sleep(0.1)
        peak = gateway.memory_mb("VmHWM")
        megabytes = (folder / "big.dcm").stat().st_size / 1e6
        aim = f"target growth <= {target} MB" if target else "target peak < 200 MB"
        print(
            f"one object of {megabytes:.0f} MB received{' and forwarded' if forwarded else ''}: "
            f"peak RSS {peak:.0f} MB, growth {peak - before:.1f} MB  {aim}  ({megabytes / seconds:.0f} MB/s)",
            flush=True,
        )
        gateway.stop()
        if archive:
            archive.stop()


def idle(work: Path, quick: bool) -> None:
    gateway = Gateway(work / "gw")
    before_mb = gateway.memory_mb("VmRSS")
    peers = [Requestor(Peer("127.0.0.1", gateway.port, "GW", f"IDLE{n}", 30.0), [VERIFICATION]) for n in range(64)]
    seconds = 5 if quick else 20
    started = gateway.cpu_s()
    time.sleep(seconds)
    share = (gateway.cpu_s() - started) / seconds
    now_mb = gateway.memory_mb("VmRSS")
    if any(peer.echo(1) for peer in peers):
        raise SystemExit("an idle association is gone")
    print(
        f"64 idle associations: {100 * share:.2f} % of one core (target < 1), "
        f"RSS {now_mb:.0f} MB (target < 64), {now_mb - before_mb:.1f} MB of it for them",
        flush=True,
    )
    for peer in peers:
        peer.release()
    gateway.stop()


def forwarding(work: Path, quick: bool) -> None:
    count = 50 if quick else 200
    folder = make_ct(work / "fwd", count, 77)
    direct = dcmtk(work / "direct")
    theirs = count / push(direct.port, [folder])
    direct.stop()
    archive = dcmtk(work / "archive", "--fork")
    archive.stop()
    gateway = Gateway(work / "gw", archive.port)
    push(gateway.port, [folder])
    archive = dcmtk(work / "archive", "--fork", port=archive.port)
    while gateway.status()["released"] < 1:
        time.sleep(0.01)
    started, already = time.perf_counter(), gateway.status()["released"]
    while gateway.status()["held"]:
        time.sleep(0.01)
    ours = (count - already) / (time.perf_counter() - started)
    gateway.stop()
    archive.stop()
    print(
        f"forward CT 0.5 MB: ours {ours:.0f}/s, storescu to storescp {theirs:.0f}/s, ratio {ours / theirs:.2f}",
        flush=True,
    )


FILL = """
import os, sys, threading
from pathlib import Path
from gateway.model.instance import Door, Header, Origin
from gateway.spool import committer, spool as room
committer.BATCH = 2000
os.fdatasync = os.fsync = lambda fd: None
spool = room.Spool(Path(sys.argv[1]), 0, 100)
spool.committer._ledger._db.execute("PRAGMA synchronous=OFF")
for number in range(int(sys.argv[2])):
    identity = ("1.2.840.10008.5.1.4.1.1.2", f"1.2.{number}", "1.2.840.10008.1.2")
    part = spool.new_part(identity)
    part.write(b"x" * 100)
    spool.take(part, Header(*identity[:2], "1.2.3", "1.2.3", "CT"), Origin(Door.IMPORT), identity)
spool.close()
"""


def recovery(work: Path, quick: bool) -> None:
    """Fill a spool through its own front, without the wire, then start the service on it."""
    folder = work / "gw"
    folder.mkdir()
    subprocess.run([sys.executable, "-c", FILL, str(folder / "data"), str(10_000 if quick else 100_000)], check=True)
    gateway = Gateway(folder)
    started = time.perf_counter()
    held = gateway.status()["held"]
    seconds = time.perf_counter() - started
    print(f"recovery of {held} held objects, process start to answer: {gateway.ready_s:.2f} s (target < 10)")
    print(f"status with {held} held objects: {seconds:.3f} s (target < 0.2)", flush=True)
    gateway.stop()
