"""Receiving: images per second beside the peers, in turn, as the median of the ratios of the rounds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median

from material import make_big, make_ct, make_mr, warm
from peers import Gateway, Pki, Process, dcmtk, orthanc, push, stock_pynetdicom

Make = Callable[[Path], Gateway | Process]


def report(what: str, ours: list[float], peer: str, theirs: list[float], target: str, unit: str = "/s") -> None:
    ratio = median(a / b for a, b in zip(ours, theirs, strict=True))
    print(
        f"{what:34} ours {median(ours):7.0f}{unit}  {peer:20} {median(theirs):7.0f}{unit}  "
        f"ratio {ratio:5.2f}  target {target}",
        flush=True,
    )


def rates(work: Path, makers: list[Make], folders: list[Path], count: float, rounds: int, *options: str) -> list[list]:
    """Measure each maker in each round, in turn; return per maker the rates."""
    found: list[list[float]] = [[] for _ in makers]
    for attempt in range(rounds):
        for number, make in enumerate(makers):
            place = work / f"r{attempt}-{number}"
            place.mkdir(parents=True)
            warm(place)
            peer = make(place)
            try:
                found[number].append(count / push(peer.port, folders, *options))
            finally:
                peer.stop()
    return found


def reception(work: Path, quick: bool) -> None:
    rounds = 3 if quick else 5
    work_of = {
        "CT 0.5 MB": (make_ct, 200, ("0.6", "0.8")),
        "MR 27 KB": (make_mr, 600 if quick else 3000, ("0.3", "0.6")),
    }
    for what, (maker, count, targets) in work_of.items():
        for associations, target in zip((1, 4), targets, strict=True):
            place = work / f"{what[:2]}{associations}"
            folders = [
                maker(place / f"m{n}", count // associations, 10 * associations + n) for n in range(associations)
            ]
            fork = ["--fork"] if associations > 1 else []
            makers: list[Make] = [
                lambda place: Gateway(place / "gw"),
                lambda place, fork=fork: dcmtk(place / "dcmtk", *fork),
            ]
            ours, theirs = rates(place, makers, folders, count, rounds)
            report(f"receive {what}, {associations} association(s)", ours, "DCMTK storescp +B", theirs, f">= {target}")
            if what.startswith("CT") and associations == 1:
                few = 1 if quick else 3
                for make, peer, aim in (
                    (stock_pynetdicom, "pynetdicom, stock", "2"),
                    (orthanc, "Orthanc, as shipped", "15"),
                ):
                    ours, theirs = rates(
                        place / peer[:4], [makers[0], lambda p, make=make: make(p / "x")], folders, count, few
                    )
                    report(f"receive {what}, 1 association", ours, peer, theirs, f">= {aim}")


def tls(work: Path, quick: bool) -> None:
    pki = Pki.make(work / "pki")
    for associations in (1, 4):
        place = work / str(associations)
        folders = [make_ct(place / f"m{n}", 200 // associations, 50 + n) for n in range(associations)]
        fork = ["--fork"] if associations > 1 else []
        makers: list[Make] = [
            lambda place: Gateway(place / "gw", pki=pki),
            lambda place, fork=fork: dcmtk(place / "dcmtk", *fork, *pki.dcmtk_options),
        ]
        ours, theirs = rates(place, makers, folders, 200, 3 if quick else 5, *pki.dcmtk_options)
        report(f"receive CT over TLS 1.3, {associations} assoc.", ours, "DCMTK storescp +B", theirs, ">= 0.6")


def big(work: Path, quick: bool) -> None:
    folder = make_big(work / "big", (100 if quick else 500) << 20)
    size_mb = (folder / "big.dcm").stat().st_size / 1e6
    makers: list[Make] = [lambda place: Gateway(place / "gw"), lambda place: dcmtk(place / "dcmtk")]
    ours, theirs = rates(work, makers, [folder], size_mb, 3)
    report(f"receive one object of {size_mb:.0f} MB", ours, "DCMTK storescp +B", theirs, "reported", " MB/s")


def while_forwarding(work: Path, quick: bool) -> None:
    """Receiving with everything forwarded at full speed, beside receiving alone."""
    folders = [make_ct(work / f"m{n}", 100, 60 + n) for n in range(4)]
    archive = dcmtk(work / "archive", "--fork")
    try:
        makers: list[Make] = [
            lambda place: Gateway(place / "gw", archive=archive.port),
            lambda place: Gateway(place / "gw"),
        ]
        both, alone = rates(work, makers, folders, 400, 3 if quick else 5)
    finally:
        archive.stop()
    report("receive CT while forwarding, 4", both, "receiving alone", alone, ">= 0.6")
