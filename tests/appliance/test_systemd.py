"""The package under a real systemd, booted in a container: what the units promise holds when they are in force."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pydicom
import pytest

from tests.appliance import debian
from tests.conftest import Storescp, until

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]

FAKE_RAUC = """#!/bin/sh
echo "$@" >>/var/log/rauc-calls
[ "$1" = status ] || exit 0
cat <<END
{"compatible": "x", "booted": "A", "boot_primary": "system.0", "slots": [
 {"system.0": {"class": "system", "bootname": "A", "state": "booted", "boot_status": "good"}},
 {"system.1": {"class": "system", "bootname": "B", "state": "inactive", "boot_status": "good"}}]}
END
"""
UNITS = ("dicom-gateway-firstboot.service", "dicom-gateway-provision.service", "dicom-gateway-update.path")


class Container:
    """A Debian with our package and its own network, started by systemd."""

    def __init__(self, tree: Path, log: Path) -> None:
        self.tree = tree
        words = ["--quiet", "--register=no", "--keep-unit", "--private-network", "--console=pipe", "--boot"]
        with open(log, "wb") as out:
            self._process = subprocess.Popen(
                ["systemd-nspawn", f"--directory={tree}", *words],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            )
        assert until(self._started, 180), log.read_text()

    def _started(self) -> bool:
        return bool(self._leader()) and self.say("systemctl", "is-system-running") in ("running", "degraded")

    def _leader(self) -> str:
        pid = self._process.pid
        assert self._process.poll() is None
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split(" ")[0]

    def beside(self, *words: object) -> list[str]:
        """A command of this machine, in the container's network."""
        return ["nsenter", f"--target={self._leader()}", "--net", "--", *map(str, words)]

    def run(self, *words: object) -> subprocess.CompletedProcess[str]:
        spaces = ["--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup"]
        command = ["nsenter", f"--target={self._leader()}", *spaces, "--", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, timeout=200)

    def say(self, *words: object) -> str:
        return self.run(*words).stdout.strip()

    def state(self, unit: str = "dicom-gateway.service") -> str:
        return self.say("systemctl", "is-active", unit)

    def configure(self, text: str) -> None:
        path = self.tree / "etc/dicom-gateway/gateway.toml"
        path.write_text(text)
        self.run("systemctl", "restart", "dicom-gateway.service")

    def log(self, unit: str = "dicom-gateway.service") -> str:
        return self.say("journalctl", "--no-pager", f"--unit={unit}")

    def stop(self) -> None:
        self.run("systemctl", "--no-block", "poweroff")
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            os.kill(int(self._leader()), signal.SIGKILL)
            self._process.wait(30)


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    if not shutil.which("systemd-nspawn") or os.geteuid() != 0:
        pytest.skip("needs root and systemd-nspawn (systemd-container)")
    folder = tmp_path_factory.mktemp("box")
    tree, package = debian.fresh(folder), debian.package(folder)
    shutil.copy(package, tree / "tmp/gateway.deb")
    debian.said("chroot", tree, "dpkg", "--install", "/tmp/gateway.deb")
    debian.said("chroot", tree, "systemctl", "enable", *UNITS)
    for node in ("null", "urandom"):
        (tree / "dev" / node).unlink()
    (tree / "etc/hosts").write_text("127.0.0.1 localhost\n")
    (tree / "usr/bin/rauc").write_text(FAKE_RAUC)
    (tree / "usr/bin/rauc").chmod(0o755)
    (tree / "etc/dicom-gateway/credentials/broker").write_text("a secret of root\n")
    (tree / "etc/dicom-gateway/credentials/broker").chmod(0o600)
    container = Container(tree, folder / "log")
    yield container
    container.stop()


CONFIG = """[gateway]
id = "box"
[[listener]]
port = 104
[spool]
reserve_bytes = 0
high_water_percent = 100
[[destination]]
name = "pacs"
kind = "dimse"
host = "localhost"
port = 1104
ae_title = "ANY"
compression = "jpeg-ls"
retry_first_s = 0.2
retry_ceiling_s = 1.0
"""


def test_without_a_configuration_nothing_is_started_and_nothing_fails(box):
    assert box.state() == "inactive"
    assert box.say("systemctl", "--failed", "--no-legend") == ""
    assert (box.tree / "etc/dicom-gateway/device.key").exists()


def test_with_one_it_receives_on_port_104_and_its_workers_compress_within_all_that_confines_them(
    box, ct_files, tmp_path
):
    box.configure(CONFIG)
    assert until(lambda: box.state() == "active", 60), box.log()
    archive = Storescp(tmp_path / "archive", "+xt")
    archive.folder.mkdir()
    peer = subprocess.Popen(
        box.beside("storescp", "+B", "+uf", "+xt", "-od", archive.folder, "1104"), stdout=subprocess.DEVNULL
    )
    try:
        for path in ct_files:
            sent = subprocess.run(box.beside("storescu", "127.0.0.1", "104", path), capture_output=True, text=True)
            assert sent.returncode == 0, sent.stderr
        assert until(lambda: len(list(archive.folder.iterdir())) == len(ct_files), 90), box.log()
    finally:
        peer.kill()
        peer.wait(10)
    syntaxes = [
        pydicom.dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID for path in archive.folder.iterdir()
    ]
    assert "1.2.840.10008.1.2.4.80" in syntaxes, box.log()
    assert "worker_lost" not in box.log()
    facts = box.say("sh", "-c", "cat /proc/$(systemctl show -P MainPID dicom-gateway)/status")
    rows = dict(line.split(":\t", 1) for line in facts.splitlines() if ":\t" in line)
    assert (rows["CapEff"], rows["NoNewPrivs"], rows["Seccomp"]) == ("0000000000000400", "1", "2")
    assert rows["Uid"].split()[0] != "0"


TO_A_FILE = """[Unit]
ConditionPathExists=
[Service]
StandardOutput=append:/var/log/screen
TTYPath=
TTYReset=no
TTYVHangup=no
TTYVTDisallocate=no
"""
"""A container has no console of its own; all that confines the screen stays."""


def test_the_screen_shows_a_working_box_within_all_that_confines_it(box):
    drop_in = box.tree / "etc/systemd/system/dicom-gateway-console@.service.d"
    drop_in.mkdir()
    (drop_in / "file.conf").write_text(TO_A_FILE)
    box.run("systemctl", "daemon-reload")
    assert box.run("systemctl", "start", "dicom-gateway-console@tty1.service").returncode == 0
    shown = box.tree / "var/log/screen"
    assert until(lambda: shown.exists() and "WELL" in shown.read_text(), 60), box.log("dicom-gateway-console@tty1")
    assert "port 104" in shown.read_text()
    box.run("systemctl", "stop", "dicom-gateway-console@tty1.service")


def test_secrets_of_root_reach_the_service_alone(box):
    path = "/run/credentials/dicom-gateway.service/secret_broker"
    assert box.say("runuser", "-u", "dicom-gateway", "--", "cat", path) == "a secret of root"
    assert box.run("runuser", "-u", "nobody", "--", "cat", path).returncode != 0
    assert box.run("runuser", "-u", "dicom-gateway", "--", "ls", "/etc/dicom-gateway/credentials").returncode != 0


def test_the_service_asks_root_for_an_update_and_gets_its_answer(box):
    asked = box.run("runuser", "-u", "dicom-gateway", "--", "/usr/lib/dicom-gateway/update", "check")
    assert (asked.returncode, asked.stdout.strip()) == (0, "slot A runs"), asked.stderr
    refused = box.run("runuser", "-u", "dicom-gateway", "--", "/usr/lib/dicom-gateway/update", "install", "2.0")
    assert refused.returncode == 1
    assert "no [update] source" in refused.stderr
    assert box.run("dicom-gateway", "confirm", "--within", "30").returncode == 0
    assert "status mark-good booted" in box.say("cat", "/var/log/rauc-calls")


def test_a_configuration_that_is_bad_ends_it_for_good_and_a_kill_does_not(box):
    first = box.say("systemctl", "show", "-P", "MainPID", "dicom-gateway")
    box.run("sh", "-c", f"kill -KILL {first}")
    assert until(lambda: box.say("systemctl", "show", "-P", "MainPID", "dicom-gateway") not in ("0", first), 60)
    box.configure("[gateway]\ncolour = 1\n")
    assert until(lambda: box.state() == "failed", 30)
    time.sleep(7)  # longer than RestartSec
    assert box.state() == "failed"
    assert box.say("systemctl", "show", "-P", "ExecMainStatus", "dicom-gateway") == "78"
    box.configure(CONFIG)
    assert until(lambda: box.state() == "active", 60), box.log()


def test_a_service_that_stands_still_is_started_again_by_the_watchdog(box):
    first = box.say("systemctl", "show", "-P", "MainPID", "dicom-gateway")
    box.run("sh", "-c", f"kill -STOP {first}")
    assert until(lambda: box.say("systemctl", "show", "-P", "MainPID", "dicom-gateway") not in ("0", first), 180)
    assert "Watchdog timeout" in box.log()
    assert until(lambda: box.state() == "active", 60), box.log()
