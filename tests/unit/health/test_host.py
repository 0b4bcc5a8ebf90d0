"""The machine's sources, from a folder that looks like /, and with programs that say what theirs say."""

from __future__ import annotations

import os
import sys

import pytest

from gateway.health import host
from gateway.model.health import Clock, Disk, Power

CHRONY = "C0000201,192.0.2.1,3,1700000000.1,-0.001500000,0.0002,0.0003,-1.2,0.0,0.1,0.02,0.01,64.5,{}\n"


def put(root, path, text):
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def test_what_is_absent_is_unknown(tmp_path):
    assert host.power(tmp_path) == Power()
    assert host.clock(lambda command: None) == Clock()
    assert host.disk(tmp_path / "absent") == Disk()
    assert host.load1(tmp_path) is None
    assert host.memory_available_pct(tmp_path) is None
    assert host.uptime_s(tmp_path) is None
    assert host.wear_pct(tmp_path, tmp_path, lambda command: None) is None
    facts = host.facts(tmp_path)
    assert facts.pop("os")
    assert set(facts.values()) == {None}


def test_this_machine_can_be_read(tmp_path):
    disk = host.disk(tmp_path)
    assert 0 <= disk.used_pct <= 100
    assert disk.read_only is False
    assert host.load1() >= 0
    assert 0 < host.memory_available_pct() <= 100
    assert host.rss_bytes() > 1_000_000
    assert host.uptime_s() > 0


@pytest.mark.parametrize(("status", "synced"), [("Normal", True), ("Not synchronised", False)])
def test_chrony_tells_offset_and_whether_it_follows_anybody(status, synced):
    clock = host.clock(lambda command: CHRONY.format(status) if command[0] == "chronyc" else None)
    assert clock == Clock("chrony", synced, -1.5)


@pytest.mark.parametrize(
    ("said", "clock"),
    [
        ("NTP=yes\nNTPSynchronized=yes\n", Clock("timesyncd", True)),
        ("NTP=no\nNTPSynchronized=no\n", Clock("none", False)),
        ("nonsense", Clock()),
    ],
)
def test_without_chrony_systemd_is_asked(said, clock):
    assert host.clock(lambda command: said if command[0] == "timedatectl" else None) == clock


def test_a_program_that_hangs_or_fails_is_unknown(monkeypatch):
    with monkeypatch.context() as impatient:
        impatient.setattr(host, "COMMAND_S", 0.2)
        assert host.run([sys.executable, "-c", "import time; time.sleep(9)"]) is None
    monkeypatch.setattr(host, "COMMAND_S", 60.0)  # a busy machine may take its time to start one
    assert host.run(["/no/such/program"]) is None
    assert host.run(["false"]) is None
    assert host.run(["echo", "yes"]) == "yes\n"


def number_of(path) -> str:
    device = path.stat().st_dev
    return f"{os.major(device)}:{os.minor(device)}"


def test_only_the_image_says_whether_its_disk_is_encrypted(tmp_path):
    assert host.encrypted(tmp_path) is None
    (tmp_path / "run/dicom-gateway-image").mkdir(parents=True)
    for said, meant in (("luks2\n", True), ("none\n", False), ("", None)):
        (tmp_path / "run/dicom-gateway-image/encryption.data").write_text(said)
        assert host.encrypted(tmp_path) is meant


def test_emmc_tells_its_wear_in_tenths(tmp_path):
    place = f"sys/dev/block/{number_of(tmp_path)}/device/life_time"
    put(tmp_path, place, "0x03 0x01\n")
    assert host.wear_pct(tmp_path, tmp_path) == 30.0
    put(tmp_path, place, "0x00 0x00\n")
    assert host.wear_pct(tmp_path, tmp_path) is None
    put(tmp_path, place, "nonsense\n")
    assert host.wear_pct(tmp_path, tmp_path) is None


def test_the_disk_under_the_data_is_asked(tmp_path):
    (tmp_path / "sys/block/nvme0n1p2").mkdir(parents=True)
    (tmp_path / "sys/dev/block").mkdir(parents=True)
    (tmp_path / "sys/dev/block" / number_of(tmp_path)).symlink_to(tmp_path / "sys/block/nvme0n1p2")
    said = "percentage_used : 12%\n"
    assert host.wear_pct(tmp_path, tmp_path, lambda command: said if "/dev/nvme0n1p2" in command else None) == 12.0


def test_nvme_tells_its_wear_by_nvme_cli():
    said = "Smart Log for NVME device:nvme0n1\npercentage_used\t\t\t: 7%\n"
    assert host.nvme_wear_pct("nvme0n1", lambda command: said) == 7.0
    assert host.nvme_wear_pct("nvme0n1", lambda command: None) is None
    assert host.nvme_wear_pct("sda; reboot", lambda command: said) is None


@pytest.mark.parametrize(
    ("bits", "throttled", "undervoltage"),
    [("0", False, False), ("50005", True, True), ("50000", False, False), ("4", True, False), ("1", False, True)],
)
def test_a_pi_tells_throttling_and_supply_as_they_are_now(tmp_path, bits, throttled, undervoltage):
    put(tmp_path, "sys/devices/platform/soc/soc:firmware/get_throttled", bits)
    power = host.power(tmp_path)
    assert (power.throttled, power.undervoltage) == (throttled, undervoltage)


def test_the_hottest_zone_counts(tmp_path):
    put(tmp_path, "sys/class/thermal/thermal_zone0/temp", "41000\n")
    put(tmp_path, "sys/class/thermal/thermal_zone1/temp", "52500\n")
    put(tmp_path, "sys/class/thermal/thermal_zone2/temp", "-274000\n")
    assert host.power(tmp_path).temp_c == 52.5


def test_a_ups_tells_that_mains_is_gone(tmp_path):
    put(tmp_path, "sys/class/power_supply/AC/type", "Mains\n")
    put(tmp_path, "sys/class/power_supply/AC/online", "0\n")
    assert host.power(tmp_path).on_battery is True
    put(tmp_path, "sys/class/power_supply/AC/online", "1\n")
    assert host.power(tmp_path).on_battery is False


def test_identity_comes_from_firmware_and_kernel(tmp_path):
    put(tmp_path, "proc/device-tree/model", "Raspberry Pi 4 Model B Rev 1.5\0")
    put(tmp_path, "proc/device-tree/serial-number", "10000000abcdef01\0")
    put(tmp_path, "proc/cmdline", "root=PARTLABEL=system_b rauc.slot=B quiet")
    put(tmp_path, "etc/os-release", 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n')
    put(tmp_path, "sys/class/watchdog/watchdog0/bootstatus", "32\n")
    put(tmp_path, "proc/sys/kernel/random/boot_id", "0e1dbb3e-4f3c-4c86-a5a7-3d6c3f5d1a7c\n")
    assert host.facts(tmp_path) == {
        "model": "Raspberry Pi 4 Model B Rev 1.5",
        "serial": "10000000abcdef01",
        "os": "Debian GNU/Linux 12 (bookworm)",
        "slot": "B",
        "boot_id": "0e1dbb3e-4f3c-4c86-a5a7-3d6c3f5d1a7c",
        "reset_reason": "watchdog",
    }
