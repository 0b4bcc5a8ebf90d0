"""A disk that the kernel remounts read-only under a working box, as SysRq does it whatever is open for writing.

`tests/crash/test_full_disk.py` makes disks read-only by errors of ext4; this way back is open without a restart.
"""

from __future__ import annotations

import subprocess
import time

import pytest

from tests.image.conftest import missing
from tests.image.machine import BOOT_S
from tests.image.test_box import echo, send
from tests.image.test_update import good, only

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(bool(missing()), reason=missing()),
]


def taken(machine, file) -> bool:
    words = ["storescu", "-ta", "120", "-td", "120", "-aec", "EDGEGW", "127.0.0.1", str(machine.port[104]), str(file)]
    return subprocess.run(words, capture_output=True, timeout=300).returncode == 0


def test_a_disk_that_turns_read_only_is_told_of_and_used_again_when_it_is_writable(
    factory, world, make_machine, make_study, wait_until, digest_of
):
    heard = world.broker.record()
    machine = make_machine(only(factory.build(), "*.img"), forward=(104,))
    machine.put(*world.config())
    machine.start()
    assert wait_until(lambda: echo(machine), BOOT_S), machine.log()
    good(machine)
    before, meanwhile = make_study(3, seed=1), make_study(3, seed=2)
    machine.run("dicom-gateway queue pause pacs --for 3600")
    send(machine, before)
    machine.run("echo u >/proc/sysrq-trigger; until findmnt -no OPTIONS /data | grep -qw ro; do sleep 1; done")
    assert not taken(machine, meanwhile[0])
    machine.run("dicom-gateway queue resume pacs")
    first = {digest_of(path) for path in before}
    assert wait_until(lambda: world.archive.digests() == first, 600), "what was accepted goes out all the same"
    assert wait_until(lambda: heard.last("a/disk_read_only"), 300)
    machine.run("mount -o remount,rw /data")
    begun = time.monotonic()
    assert wait_until(lambda: taken(machine, meanwhile[0]), 120), machine.run("dicom-gateway status")
    print(f"receives again {time.monotonic() - begun:.0f} s after the disk became writable")
    send(machine, meanwhile)
    everything = first | {digest_of(path) for path in meanwhile}
    assert wait_until(lambda: world.archive.digests() == everything, 600)
    assert '"sums_agree": true' in machine.run("dicom-gateway status --json")
