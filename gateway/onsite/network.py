"""Puts `network.toml` in force on an image: systemd-networkd's files, made anew from it at each start."""

from __future__ import annotations

from pathlib import Path

from gateway.config.load import load_as
from gateway.config.network import InterfaceSettings, NetworkSettings, contradictions
from gateway.spool.files import fsync_directory, replace_file

HINT = 'for each port: [[interface]], name = "eth0", address = "192.0.2.5/24"'
PREFIX = "10-dicom-gateway-"


def load_network(path: Path) -> NetworkSettings:
    """Return the settings in a file; raises ConfigError with all problems."""
    return load_as(NetworkSettings, path, contradictions, HINT)


def unit(interface: InterfaceSettings) -> str:
    """Return one file of systemd.network(5)."""
    fixed = interface.address != "dhcp"
    rows = ["[Match]", f"Name={interface.name}", "", "[Network]"]
    rows += [f"Address={interface.address}", "DHCP=no"] if fixed else ["DHCP=ipv4"]
    rows += [f"Gateway={interface.gateway}"] if interface.gateway else []
    rows += [f"DNS={server}" for server in interface.dns]
    rows += [f"NTP={server}" for server in interface.ntp]
    rows += ["LinkLocalAddressing=no"] if fixed else []
    return "\n".join([*rows, "LLMNR=no", "MulticastDNS=no", ""])


def put_in_force(settings: NetworkSettings, folder: Path) -> bool:
    """Write the files of all ports into a folder, and remove those of ports that are not named any more.

    Returns whether anything changed; raises OSError.
    """
    wanted = {f"{PREFIX}{interface.name}.network": unit(interface) for interface in settings.interface}
    there = {path.name: path.read_text() for path in folder.glob(f"{PREFIX}*.network")}
    for name, text in wanted.items():
        if there.get(name) != text:
            replace_file(folder / name, text, 0o644)
    for name in there.keys() - wanted.keys():
        (folder / name).unlink()
    fsync_directory(folder)
    return wanted != there
