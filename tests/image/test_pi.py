"""The image of the Raspberry Pi, started in what QEMU has of one: it receives and delivers a study."""

from __future__ import annotations

import shutil
import time

import pytest

from tests.image.conftest import missing
from tests.image.machine import BOOT_S
from tests.image.pi import HARDWARE, Pi
from tests.image.test_box import MIB, MOST_MIB, echo, send

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
    out = factory.build(arch="arm64")
    for kind in ("*.img.zst", "*.raucb"):
        (made,) = out.glob(kind)
        print(f"{made.name}: {made.stat().st_size / MIB:.0f} MiB")
        assert made.stat().st_size <= MOST_MIB * MIB
    (image,) = out.glob("*.img")
    return image


@pytest.mark.parametrize("kind", HARDWARE)
def test_a_pi_receives_and_delivers(pi_image, kind, world, tmp_path, wait_until, digest_of, make_study):
    heard = world.broker.record()
    pi = Pi(tmp_path / "pi", pi_image, kind)
    pi.put(*world.config())
    pi.start()
    try:
        assert wait_until(lambda: echo(pi), BOOT_S), pi.log()
        print(f"{kind}: READY after {time.monotonic() - pi.started:.0f} s")
        files = make_study(20)
        begun = time.monotonic()
        send(pi, files)
        print(f"{kind}: 20 CT received in {time.monotonic() - begun:.1f} s")
        sent = {digest_of(path) for path in files}
        assert wait_until(lambda: world.archive.digests() == sent, 900), pi.log()
        print(f"{kind}: 20 CT delivered in {time.monotonic() - begun:.1f} s")
        assert wait_until(lambda: heard.last("/birth") and heard.last("ct1-gateway/health"), 300), pi.log()
        birth = heard.last("/birth")
        assert birth["slot"] == "A", birth
        if kind == "raspi3b":
            assert "Raspberry Pi 3" in str(birth), birth
    finally:
        pi.stop()
