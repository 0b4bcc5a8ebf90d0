"""Where a box looks for a folder CONFIG: a stick with that label, and the partition of its disk that laptops see."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.model.errors import GatewayError

STICK, BOOT = "stick", "boot"
DEVICES = (
    (STICK, Path("/dev/disk/by-label/CONFIG")),
    (BOOT, Path("/dev/disk/by-partlabel/esp")),
    (BOOT, Path("/dev/disk/by-partlabel/bootconfig")),
)
"""The first that holds a configuration is taken. The second is that of a PC's image, the third a Raspberry Pi's."""
STICKS = (Path("/dev/disk/by-label/UPDATE"), Path("/dev/disk/by-label/CONFIG"))
"""What may bring an update, the first that is there; the second may stay plugged in with the key of the disk."""
OPTIONS = "rw,sync,noexec,nosuid,nodev,umask=0077"
FILE_SYSTEMS = "vfat,exfat"
"""They know no links, and are what every laptop writes."""
MOUNT_S = 30.0


@contextmanager
def mounted(device: Path, at: Path) -> Iterator[Path]:
    """Mount a device at a folder for so long; raises GatewayError. What is written is on the device afterwards."""
    at.mkdir(mode=0o700, parents=True, exist_ok=True)
    _run("mount", "-t", FILE_SYSTEMS, "-o", OPTIONS, "--", str(device), str(at))
    try:
        yield at
    finally:
        _run("umount", "--", str(at))


def _run(*words: str) -> None:
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=MOUNT_S, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise GatewayError(f"{words[0]} could not be run: {error}") from error
    if done.returncode:
        raise GatewayError(f"{words[-2] if words[0] == 'mount' else words[-1]} cannot be used: {done.stderr.strip()}")
