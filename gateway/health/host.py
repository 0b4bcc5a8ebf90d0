"""The machine, from /proc and sysfs. A source that is absent gives None: not known, which is not the same as well."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

from gateway.model.health import Clock, Disk, Power

ROOT = Path("/")
COMMAND_S = 5.0
ASK_S = 60.0
"""Programs are asked so often at most."""

Run = Callable[[list[str]], str | None]
"""Runs a program with a time-out; None where there is none, or it fails."""


def run(command: list[str]) -> str | None:
    """Return what a program prints, or None."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=COMMAND_S, stdin=subprocess.DEVNULL, env={"LC_ALL": "C"}
        )
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return None
    return done.stdout if done.returncode == 0 else None


def _text(path: Path) -> str | None:
    try:
        with open(path, "rb") as file:
            return file.read(65536).decode("ascii", "replace").strip().strip("\0")
    except OSError:
        return None


def _number(path: Path) -> float | None:
    try:
        return float(_text(path) or "")
    except ValueError:
        return None


def disk(data_dir: Path) -> Disk:
    """Return fill and mount flags of the disk that holds `data_dir`."""
    try:
        stat = os.statvfs(data_dir)
    except OSError:
        return Disk()
    total, free = stat.f_blocks * stat.f_frsize, stat.f_bavail * stat.f_frsize
    used = round(100.0 * (1 - free / total), 1) if total else None
    return Disk(used, free, bool(stat.f_flag & os.ST_RDONLY))


def encrypted(root: Path = ROOT) -> bool | None:
    """Return whether our image encrypts the studies' partition; None where that is not our image."""
    said = _text(root / "run/dicom-gateway-image/encryption.data")
    return {"luks2": True, "none": False}.get(said or "")


def wear_pct(data_dir: Path, root: Path = ROOT, ask: Run = run) -> float | None:
    """Return how much of its life the disk that holds `data_dir` has spent; None where it does not say: SD cards."""
    try:
        device = data_dir.stat().st_dev
        place = (root / "sys/dev/block" / f"{os.major(device)}:{os.minor(device)}").resolve()
    except OSError:
        return None
    return emmc_wear_pct(place) if "nvme" not in place.name else nvme_wear_pct(place.name, ask)


def emmc_wear_pct(place: Path) -> float | None:
    """Return what an eMMC says of its wear; `place` is its folder, or its partition's, in sysfs.

    It tells steps of 10 % (JESD84-B51, EXT_CSD 268 and 269, `life_time` in sysfs): 0x01 up to 10 %, 0x0B above 100 %.
    """
    for folder in (place, place.parent):
        text = _text(folder / "device/life_time")
        if text:
            try:
                steps = [int(word, 16) for word in text.split()]
            except ValueError:
                return None
            known = [step for step in steps if step > 0]
            return float(min(100, max(known) * 10)) if known else None
    return None


def nvme_wear_pct(device: str, ask: Run = run) -> float | None:
    """Return `percentage_used` of an NVMe drive's SMART log (NVM Express, Log Page 02h), by nvme-cli; it takes root."""
    if not re.fullmatch(r"nvme\d+(n\d+)?(p\d+)?", device):
        return None
    said = ask(["nvme", "smart-log", f"/dev/{device}"])
    found = re.search(r"^percentage_used\s*:\s*(\d+)%", said or "", re.MULTILINE)
    return min(100.0, float(found[1])) if found else None


def clock(ask: Run = run) -> Clock:
    """Return what chrony or, without it, systemd says of the time of day."""
    said = ask(["chronyc", "-n", "-c", "tracking"])
    if said:
        fields = said.strip().split(",")
        try:  # fields of `chronyc -c tracking`: 4 system time offset in s, 13 leap status
            return Clock("chrony", fields[13] != "Not synchronised", round(float(fields[4]) * 1000, 3))
        except (ValueError, IndexError):
            return Clock("chrony")
    said = ask(["timedatectl", "show", "-p", "NTP", "-p", "NTPSynchronized"])
    if said:
        facts = dict(line.partition("=")[::2] for line in said.splitlines())
        if "NTPSynchronized" in facts:
            return Clock("timesyncd" if facts.get("NTP") == "yes" else "none", facts["NTPSynchronized"] == "yes")
    return Clock()


def power(root: Path = ROOT) -> Power:
    """Return heat and supply. A Raspberry Pi tells `get_throttled` (bits 0, 2, 3 now; 16 to 19 since boot) by sysfs."""
    zones = [_number(path) for path in sorted((root / "sys/class/thermal").glob("thermal_zone*/temp"))]
    degrees = [zone / 1000 for zone in zones if zone is not None and -40_000 < zone < 150_000]
    throttled: bool | None = None
    low: bool | None = None
    for path in (
        root / "sys/devices/platform/soc/soc:firmware/get_throttled",
        root / "sys/devices/platform/axi/soc:firmware/get_throttled",
    ):
        try:
            bits = int(_text(path) or "", 16)
        except ValueError:
            continue
        throttled, low = bool(bits & 0b1110), bool(bits & 0b1)
    for name in sorted((root / "sys/class/hwmon").glob("hwmon*/name")):
        if _text(name) == "rpi_volt":
            alarm = _number(name.parent / "in0_lcrit_alarm")
            low = low if alarm is None else bool(alarm)
    mains = [
        _number(p.parent / "online") for p in (root / "sys/class/power_supply").glob("*/type") if _text(p) == "Mains"
    ]
    known = [value for value in mains if value is not None]
    return Power(round(max(degrees), 1) if degrees else None, throttled, low, not any(known) if known else None)


def load1(root: Path = ROOT) -> float | None:
    """Return the load average of one minute."""
    try:
        return float((_text(root / "proc/loadavg") or "").split()[0])
    except (ValueError, IndexError):
        return None


def memory_available_pct(root: Path = ROOT) -> float | None:
    """Return the share of the memory that a program could still get."""
    facts = {}
    for line in (_text(root / "proc/meminfo") or "").splitlines():
        name, _, rest = line.partition(":")
        facts[name] = rest.split()[:1]
    try:
        return round(100.0 * float(facts["MemAvailable"][0]) / float(facts["MemTotal"][0]), 1)
    except (KeyError, IndexError, ValueError, ZeroDivisionError):
        return None


def rss_bytes(root: Path = ROOT) -> int | None:
    """Return what this process holds of the memory."""
    try:
        return int((_text(root / "proc/self/statm") or "").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, IndexError):
        return None


def uptime_s(root: Path = ROOT) -> float | None:
    """Return how long the machine is up."""
    try:
        return float((_text(root / "proc/uptime") or "").split()[0])
    except (ValueError, IndexError):
        return None


def _label(text: str | None) -> str | None:
    """Return what firmware says, without what a schema would not take."""
    clean = re.sub(r"[^A-Za-z0-9 ._,:/()+-]", "", text or "").strip()[:80]
    return clean or None


def facts(root: Path = ROOT) -> dict[str, str | None]:
    """Return model, serial, os, slot, boot_id and reset_reason."""
    release = dict(line.partition("=")[::2] for line in (_text(root / "etc/os-release") or "").splitlines())
    slot = re.search(r"(?:rauc\.slot|slot)=([A-Za-z0-9]{1,8})\b", _text(root / "proc/cmdline") or "")
    boot_id = _text(root / "proc/sys/kernel/random/boot_id")
    bootstatus = _number(root / "sys/class/watchdog/watchdog0/bootstatus")
    reset = None if bootstatus is None else ("watchdog" if int(bootstatus) & 0x20 else "power or reboot")
    return {
        "model": _label(_text(root / "proc/device-tree/model") or _text(root / "sys/class/dmi/id/product_name")),
        "serial": _label(
            _text(root / "proc/device-tree/serial-number") or _text(root / "sys/class/dmi/id/product_serial")
        ),
        "os": _label(release.get("PRETTY_NAME", "").strip('"') or platform.system()),
        "slot": slot[1] if slot else None,
        "boot_id": boot_id if boot_id and re.fullmatch(r"[0-9a-f-]{36}", boot_id) else None,
        "reset_reason": reset,  # WDIOF_CARDRESET is 0x20 in <linux/watchdog.h>
    }
