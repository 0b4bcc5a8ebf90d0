"""The addresses by which a scanner reaches this box, as the kernel says."""

from __future__ import annotations

import fcntl
import socket
import struct
from pathlib import Path

INTERFACES = Path("/sys/class/net")
_SIOCGIFADDR = 0x8915
"""linux/sockios.h; struct ifreq holds the name in 16 bytes, then a sockaddr_in with the address at 4."""


def addresses() -> dict[str, str]:
    """Return the IPv4 address of each network interface that has one, without this machine's own loop."""
    found: dict[str, str] = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        # Not socket.if_nameindex(): that takes a netlink socket, which the unit of the screen has no use for else.
        for name in sorted(path.name for path in INTERFACES.iterdir()):
            try:
                answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:
                continue
            address = socket.inet_ntoa(answer[20:24])
            if not address.startswith("127."):
                found[name] = address
    return found
