"""What goes wrong at a box: power, thieves, wrong settings, programs that hang; and how it is made new."""

from __future__ import annotations

import random
import re
import secrets
import subprocess
import time

import pydicom
import pytest

from tests.image.conftest import missing
from tests.image.machine import BOOT_S, stick
from tests.image.test_box import echo, send
from tests.image.test_update import good, only

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(6 * 3600),
    pytest.mark.skipif(bool(missing()), reason=missing()),
]
CUTS = 20
GIB = 2**30


@pytest.fixture(scope="module")
def factory_image(factory):
    return only(factory.build(), "*.img")


def found_on(machine, file) -> bool:
    """True when the disk, taken out and read by others, shows the UID of this object."""
    uid = pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID
    return subprocess.run(["grep", "-qaF", uid, str(machine.disk)], timeout=600).returncode == 0


def without_studies(machine) -> str:
    """Wait until it has come up without its gateway; return what it said of its disk."""
    machine.attempt("systemctl is-system-running --wait")
    assert machine.attempt("systemctl is-active dicom-gateway.service")[1].strip() == "inactive"
    return machine.run("journalctl -u dicom-gateway-disk --no-pager")


def acknowledged(said: str) -> int:
    return said.count("Received Store Response (Success)")


def test_power_that_goes_twenty_times_during_reception_loses_nothing_acknowledged(
    factory_image, world, make_machine, make_study, wait_until, digest_of
):
    machine = make_machine(factory_image, forward=(104,))
    machine.put(*world.config())
    luck = random.Random(11)
    taken: set[str] = set()
    for cut in range(CUTS):
        machine.start()
        assert wait_until(lambda: echo(machine), BOOT_S), machine.log()
        files = make_study(40, seed=100 + cut)
        words = ["storescu", "-v", "-aec", "EDGEGW", "127.0.0.1", str(machine.port[104]), *map(str, files)]
        scanner = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        seen, stop_after = "", luck.randrange(1, 35)
        for line in scanner.stdout:
            seen += line
            if acknowledged(seen) >= stop_after:
                break
        time.sleep(luck.random() / 5)
        machine.cut_power()
        seen += scanner.communicate(timeout=120)[0]
        taken |= {digest_of(path) for path in files[: acknowledged(seen)]}
        print(f"cut {cut + 1}: {acknowledged(seen)} of {len(files)} were acknowledged")
    machine.start()
    assert wait_until(lambda: taken <= world.archive.digests(), 1800), "what was acknowledged did not arrive"
    status = machine.run("dicom-gateway status --json")
    assert re.search(r'"custody_loss": *[1-9]', status) is None
    print(f"{len(taken)} acknowledged instances over {CUTS} power cuts, all delivered")


def test_full_studies_stop_neither_settings_nor_the_box(
    factory_image, world, make_machine, make_study, wait_until, digest_of
):
    machine = make_machine(factory_image, forward=(104,))
    machine.put(*world.config())
    machine.start()
    assert wait_until(lambda: echo(machine), BOOT_S), machine.log()
    good(machine)
    machine.attempt("dd if=/dev/zero of=/data/filler bs=1M; sync")
    assert int(machine.run("df --output=avail -B1M /data | tail -1")) < 64  # less than what is kept free
    files = make_study(3)
    words = ["storescu", "-v", "-aec", "EDGEGW", "127.0.0.1", str(machine.port[104]), str(files[0])]
    said = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120).stdout
    assert not acknowledged(said) and "Local Limit Exceeded" in said, said
    machine.run("echo new >/state/settings && echo new >/var/settings && sync && dicom-gateway status --json")
    journal = machine.run(
        "journalctl --no-pager --identifier=systemd-journald | grep Journal; ls /var/log/journal || true"
    )
    assert "Runtime Journal (/run/log/journal/" in journal and "max 16M" in journal, journal
    assert "System Journal" not in journal, journal
    print(journal)
    machine.run("rm /data/filler && sync")
    assert wait_until(lambda: subprocess.run([*words[:-1], *map(str, files)], timeout=120).returncode == 0, 120)
    assert wait_until(lambda: world.archive.digests() == {digest_of(path) for path in files}, 300), machine.log()


def test_data_fills_the_disk_also_when_it_was_copied_to_a_larger_one(factory_image, make_machine):
    machine = make_machine(factory_image, disk_gib=5)
    size = "findmnt --bytes --noheadings --output SIZE /data"
    machine.start()
    good(machine)  # the file system grows while it is mounted already
    first = int(machine.run(size))
    assert first > 2 * GIB
    machine.run("echo kept >/data/kept; sync")
    machine.shut_down()
    with machine.disk.open("r+b") as file:
        file.truncate(9 * GIB)
    machine.start()
    good(machine)
    second = int(machine.run(size))
    print(f"data: {first / GIB:.1f} GiB, then {second / GIB:.1f} GiB")
    assert second > first + 3 * GIB and machine.run("cat /data/kept").strip() == "kept"


def test_with_a_tpm_the_disk_alone_tells_nothing(factory_image, world, make_machine, make_study, wait_until, digest_of):
    heard = world.broker.record()
    machine = make_machine(factory_image, forward=(104,))
    machine.put(*world.config())
    with machine.tpm():
        machine.start()
        assert wait_until(lambda: echo(machine), BOOT_S), machine.log()
        files = make_study(5)
        send(machine, files)
        sent = {digest_of(path) for path in files}
        assert wait_until(lambda: world.archive.digests() == sent, 600), machine.log()
        for name in ("state", "data"):
            kind = machine.run(f"blkid -o value -s TYPE /dev/disk/by-partlabel/{name}")
            assert kind.strip() == "crypto_LUKS"
        assert wait_until(lambda: heard.last("ct1-gateway/health")["disk"]["encrypted"] is True, 120)
        good(machine)
        machine.shut_down()
    assert not found_on(machine, files[0])
    with machine.tpm():
        machine.start()
        assert wait_until(lambda: echo(machine), BOOT_S), machine.log()
        assert '"accepted": 5' in machine.run("dicom-gateway status --json")
        machine.shut_down()
    with machine.tpm(anew=True):
        machine.start()
        assert "did open it" in without_studies(machine)


def test_without_a_tpm_the_key_of_the_disk_lies_on_a_stick(
    factory_image, world, make_machine, make_study, wait_until, tmp_path
):
    key = tmp_path / "disk.key"
    key.write_text(secrets.token_hex(32))
    heard = world.broker.record()
    machine = make_machine(factory_image, forward=(104,))
    machine.put(*world.config())
    plugged = stick(tmp_path / "stick.img", "CONFIG", key)
    machine.start(*plugged)
    assert wait_until(lambda: echo(machine), BOOT_S), machine.log()
    files = make_study(5)
    send(machine, files)
    assert wait_until(lambda: heard.last("ct1-gateway/health"), 120)["disk"]["encrypted"] is True
    for name in ("state", "data"):
        assert machine.run(f"blkid -o value -s TYPE /dev/disk/by-partlabel/{name}").strip() == "crypto_LUKS"
    good(machine)
    machine.shut_down()
    assert not found_on(machine, files[0])
    assert subprocess.run(["grep", "-qaF", key.read_text(), str(machine.disk)], timeout=600).returncode == 1
    machine.start()
    assert "did open it" in without_studies(machine)
    machine.shut_down()
    machine.start(*plugged)
    assert wait_until(lambda: echo(machine), BOOT_S), machine.log()
    assert '"accepted": 5' in machine.run("dicom-gateway status --json")


def test_a_factory_reset_leaves_nothing(factory_image, world, make_machine, make_study, wait_until, tmp_path):
    machine = make_machine(factory_image, forward=(104,))
    machine.put(*world.config())
    machine.start()
    assert wait_until(lambda: echo(machine), BOOT_S), machine.log()
    files = make_study(3)
    send(machine, files)
    good(machine)
    key = machine.run("sha256sum </etc/dicom-gateway/device.key")
    machine.shut_down()
    assert found_on(machine, files[0]), "without a TPM a study is found on the disk"
    word = tmp_path / "factory-reset"
    word.write_text("erase-everything\r\n")
    machine.put(word)
    machine.start()
    good(machine)
    assert machine.run("sha256sum </etc/dicom-gateway/device.key") != key
    assert machine.run("find /data -type f | grep -c dcm || true").strip() == "0"
    assert machine.attempt("systemctl is-active dicom-gateway.service")[1].strip() != "active"
    machine.shut_down()
    assert machine.boot_file("CONFIG/factory-reset") is None
    assert not found_on(machine, files[0]), "what the drive was told to discard is still there"


def test_wrong_settings_are_answered_in_plain_words_and_the_box_stays_up(factory_image, make_machine, tmp_path):
    machine = make_machine(factory_image)
    config = tmp_path / "gateway.toml"
    config.write_text('[gateway]\nid = "Box One"\n[[listener]]\nprot = 104\n')
    machine.put(config)
    machine.start()
    good(machine)
    assert machine.attempt("systemctl is-active dicom-gateway.service")[1].strip() == "inactive"
    machine.shut_down()
    answer = machine.boot_file("CONFIG/result.txt")
    print(answer)
    assert "prot" in answer and "Box One" in answer


def test_a_service_that_hangs_is_started_again(factory_image, world, make_machine, wait_until):
    machine = make_machine(factory_image, forward=(104,))
    machine.put(*world.config())
    machine.start()
    assert wait_until(lambda: echo(machine), BOOT_S), machine.log()
    machine.run("kill -STOP $(systemctl show --property MainPID --value dicom-gateway.service)")
    machine.run(
        "until [ $(systemctl show --property NRestarts --value dicom-gateway.service) -ge 1 ]; do sleep 1; done"
    )
    assert wait_until(lambda: echo(machine), BOOT_S), machine.log()


def test_a_system_that_hangs_is_reset_by_the_watchdog(factory_image, make_machine):
    machine = make_machine(factory_image)
    machine.more = ["-device", "i6300esb", "-action", "watchdog=reset"]
    machine.start()
    good(machine)
    assert machine.run("cat /sys/class/watchdog/watchdog0/state /sys/class/watchdog/watchdog0/timeout").split() == [
        "active",
        "15",
    ]
    machine.attempt("kill -SEGV 1; sleep 5")  # systemd catches it, and stands still for ever
    machine.wait_off(600)
    machine.start()
    good(machine)
