"""The image as it is flashed: switched on cold, it takes its settings from the boot partition and delivers."""

from __future__ import annotations

import re
import subprocess
import time

import pytest

from tests.image.conftest import missing
from tests.image.machine import BOOT_S, accelerator

MIB = 2**20
MOST_MIB = 300
pytestmark = [pytest.mark.timeout(3600), pytest.mark.skipif(bool(missing()), reason=missing())]


def echo(machine) -> bool:
    """Return whether it answers. One that does not is left alone for a moment: to refuse is work while it starts.

    QEMU takes a call before the box has a network, and lets it hang: only a slow box is given time to answer.
    """
    patience = 2 if time.monotonic() - machine.started < 120 else 10
    words = ["echoscu", "-to", "5", "-ta", str(patience), "-aec", "EDGEGW", "127.0.0.1", str(machine.port[104])]
    answered = subprocess.run(words, capture_output=True, timeout=60).returncode == 0
    if not answered:
        time.sleep(0.5)
    return answered


def send(machine, files) -> None:
    words = ["storescu", "-ta", "120", "-td", "120", "-aec", "EDGEGW", "127.0.0.1", str(machine.port[104])]
    subprocess.run([*words, *map(str, files)], check=True, timeout=600)


def image_of(out):
    """Return the image in a folder that was built; what is handed out is small enough."""
    for kind in ("*.img.zst", "*.raucb"):
        (made,) = out.glob(kind)
        print(f"{made.name}: {made.stat().st_size / MIB:.0f} MiB")
        assert made.stat().st_size <= MOST_MIB * MIB
    (image,) = out.glob("*.img")
    return image


def deliver(machine, files, world, wait_until, digest_of) -> None:
    """Send to a box that starts; what arrives is what was sent, byte for byte. Says how long each took."""
    assert wait_until(lambda: echo(machine), BOOT_S), machine.log()
    print(f"READY after {time.monotonic() - machine.started:.0f} s")
    begun = time.monotonic()
    send(machine, files)
    print(f"{len(files)} CT received in {time.monotonic() - begun:.1f} s")
    sent = {digest_of(path) for path in files}
    assert wait_until(lambda: world.archive.digests() == sent, 900), machine.log()
    print(f"{len(files)} CT delivered in {time.monotonic() - begun:.1f} s")


def starts_with_nothing_to_spare(machine) -> None:
    """A start loads and looks at only what the box has, and the gateway goes before what could come later."""
    loaded = {line.split()[0] for line in machine.run("cat /proc/modules").splitlines()}
    assert {"ext4", "virtio_blk"} <= loaded
    assert "sha256_ssse3" in loaded, "what the processor can do is not used, and an encrypted disk is slow"
    assert not loaded & {"nvme", "usb_storage", "mmc_block", "cfg80211", "kvm"}, loaded
    names = " -o ".join(
        f"-name '{name}.ko*'" for name in ("ata_piix", "pata_*", "ip_tables", "i2c-piix4", "powernow-k8")
    )
    assert not machine.run(f"find /usr/lib/modules {names}")
    assert not machine.run("ls /usr/lib/*/libbpf.so.1 2>/dev/null || true"), "systemd has programs verified by it"
    shown = machine.run("systemctl is-active run-lock.mount systemd-initctl.socket || true")
    assert shown.split() == ["inactive"] * 2, shown
    modules = set(machine.run("cat /sys/kernel/security/lsm").strip().split(","))
    assert "landlock" in modules and not modules & {"apparmor", "tomoyo", "bpf"}, modules
    assert "memory" not in machine.run("cat /sys/fs/cgroup/cgroup.controllers").split()
    assert "pressure" not in machine.run("ls /proc").split()
    made = machine.run("find /run/systemd/generator* -name '*.service' -o -name '*.mount'").split()
    assert made == ["/run/systemd/generator.early/test-shell.service"], made
    assert not machine.run("ls /run/udev/data | grep ^c4: || true"), "udev is told of consoles"
    shown = machine.run("systemctl show -P Slice -P StartupCPUWeight dicom-gateway-console@tty1 dicom-gateway-confirm")
    assert shown.split() == ["system.slice", "idle"] * 2, shown
    shown = machine.run("systemctl show -P StartupCPUWeight dicom-gateway dicom-gateway-provision")
    assert shown.split() == ["1000"] * 2, shown
    shown = machine.run("systemctl show -P StartupCPUWeight dbus systemd-logind")
    assert shown.split() == ["20"] * 2, shown


def test_a_flashed_box_with_one_file_on_its_boot_partition_delivers(
    factory, world, make_machine, wait_until, digest_of, make_study
):
    image = image_of(factory.build())
    heard = world.broker.record()
    machine = make_machine(image, forward=(104,))
    machine.put(*world.config())

    machine.start()
    print(f"processors: {accelerator()}")
    deliver(machine, make_study(50), world, wait_until, digest_of)

    assert wait_until(lambda: heard.last("/birth") and heard.last("ct1-gateway/health"), 120)
    assert heard.last("/session")["state"] == "online" and heard.last("/birth")["slot"] == "A"
    assert heard.last("ct1-gateway/health")["disk"]["encrypted"] is False
    assert wait_until(lambda: heard.last("ct1-gateway/health")["sums"]["accepted"] == 50, 120)

    assert (
        machine.run("systemctl is-system-running --wait; systemctl --failed --plain --no-legend").strip() == "running"
    )
    score = machine.run("systemd-analyze security --no-pager dicom-gateway.service | tail -1")
    print(score.strip())
    assert float(re.search(r": ([0-9.]+)", score)[1]) <= 1.5
    memory = dict(re.findall(r"(\w+): +(\d+) kB", machine.run("cat /proc/meminfo")))
    used = (int(memory["MemTotal"]) - int(memory["MemAvailable"])) / 1024
    print(f"memory in use: {used:.0f} MiB")
    assert used <= MOST_MIB

    starts_with_nothing_to_spare(machine)
    screen = machine.run("fold -w 80 </dev/vcs1")
    assert "EDGEGW" in screen and "10.0.2.15" in screen, screen
    assert machine.run("stat --format %u /data/gateway").strip() == "900", "the next version would not own its studies"
    assert machine.attempt("touch /usr/x")[0] != 0
    assert "noexec" in machine.run("findmnt --noheadings --output OPTIONS /var/lib/dicom-gateway")
    machine.run("until grep -q A_TRY=0 /boot/config/EFI/BOOT/grubenv; do sleep 1; done")
    machine.shut_down()
    result = machine.boot_file("CONFIG/result.txt")
    assert result is not None
    print(result)
    assert machine.boot_file("CONFIG/box.key") is None, "a secret was left where every laptop reads it"
