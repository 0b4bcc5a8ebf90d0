"""The image of the Raspberry Pi, started in what QEMU has of one: it receives and delivers a study."""

from __future__ import annotations

import shutil

import pytest

from tests.image.conftest import missing
from tests.image.pi import HARDWARE, Pi
from tests.image.test_box import deliver, image_of

TOOLS = ("qemu-system-aarch64", "qemu-aarch64-static", "debugfs", "dtc")
LACKING = [tool for tool in TOOLS if not shutil.which(tool)]
pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(3 * 3600),
    pytest.mark.skipif(bool(missing()), reason=missing()),
    pytest.mark.skipif(bool(LACKING), reason=f"not installed: {', '.join(LACKING)}; run `.ci/setup image-arm64`"),
]


@pytest.fixture(scope="module")
def pi_image(factory):
    """The image; its packages are unpacked by an emulated processor, half an hour when none are kept."""
    return image_of(factory.build(arch="arm64"))


@pytest.mark.parametrize("likeness", HARDWARE)
def test_a_pi_receives_and_delivers(pi_image, likeness, world, make_machine, wait_until, digest_of, make_study):
    heard = world.broker.record()
    pi = make_machine(pi_image, Pi, likeness=likeness)
    assert "char-gpiochip" in pi.system_file("/usr/lib/systemd/system/dicom-gateway.service.d/hardware.conf")
    pi.put(*world.config())
    pi.start()
    print(likeness)
    deliver(pi, make_study(20), world, wait_until, digest_of)
    assert wait_until(lambda: heard.last("/birth") and heard.last("ct1-gateway/health"), 300), pi.log()
    birth = heard.last("/birth")
    assert birth["slot"] == "A", birth
    assert likeness != "raspi3b" or "Raspberry Pi 3" in str(birth), birth
