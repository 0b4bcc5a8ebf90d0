"""What differs from board to board."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
SUITE = "trixie"
"""Debian 13: RAUC 1.13 knows `min-bundle-version`, systemd 257 encrypts the partitions that it makes."""
PYTHON = "3.13"
"""That of the suite: the package must be built for it."""


@dataclass(frozen=True)
class Board:
    """One kind of machine. `compatible` is what a bundle must name to be taken by it."""

    arch: str
    compatible: str
    title: str
    bootloader: dict[str, str]
    """RAUC's settings of the boot loader."""
    command_line: str
    boot_label: str
    """PARTLABEL of the partition that a laptop sees."""
    components: tuple[str, ...] = ("main",)
    imager_devices: tuple[str, ...] = ()
    """As Raspberry Pi Imager calls the machines; a PC has no name there."""
    without: tuple[str, ...] = field(default=())
    """What packages bring that the box has no use for."""
    silenced: tuple[str, ...] = field(default=())
    """Scripts that a package calls when it is installed, in whose place there is one that does nothing."""
    header_pins: bool = False
    """Lights, button and UPS line of hardware/README.md hang on its header."""

    @property
    def folder(self) -> Path:
        return HERE / "boards" / self.arch

    @property
    def packages(self) -> list[str]:
        lines = [*(HERE / "packages").read_text().splitlines(), *(self.folder / "packages").read_text().splitlines()]
        return [line for line in lines if line and not line.startswith("#")]


COMMAND_LINE = (
    "ro rootfstype=ext4 rootwait panic=10 lsm=landlock,lockdown,yama cgroup_disable=memory psi=0 quiet loglevel=4"
    " systemd.show_status=no"
)
"""`panic`: the initramfs and the kernel start again instead of waiting for a person. `lsm`: without those that look at
every file, by rules that nobody wrote. `cgroup_disable`, `psi`: nothing on the box goes by a service's memory or by
pressure, which would be counted for every page."""
NO_USE = (
    "/usr/share/man/*",
    "/usr/share/locale/*",
    "/usr/share/info/*",
    "/usr/share/doc/*/*.gz",
    "/usr/share/bash-completion/*",
    "/usr/share/zsh/*",
    "/usr/share/lintian/*",
    "/usr/lib/modules/*/kernel/sound/*",
    "/usr/lib/modules/*/kernel/drivers/media/*",
    "/usr/lib/modules/*/kernel/drivers/gpu/*",
    "/usr/lib/modules/*/kernel/drivers/net/wireless/*",
    "/usr/lib/modules/*/kernel/drivers/infiniband/*",
    "/usr/lib/modules/*/kernel/drivers/iio/*",
    "/usr/lib/modules/*/kernel/drivers/isdn/*",
    "/usr/lib/modules/*/kernel/drivers/comedi/*",
    "/usr/lib/modules/*/kernel/drivers/staging/*",
    # No radio, and no virtual machines.
    "/usr/lib/modules/*/kernel/net/wireless/*",
    "/usr/lib/modules/*/kernel/net/mac80211/*",
    "/usr/lib/modules/*/kernel/drivers/bluetooth/*",
    "/usr/lib/modules/*/kernel/net/bluetooth/*",
    "/usr/lib/modules/*/kernel/arch/x86/kvm/*",
    # It takes no key and makes no sound; nobody collects what a dying kernel writes to the firmware.
    "/usr/lib/modules/*/kernel/drivers/input/joystick/*",
    "/usr/lib/modules/*/kernel/drivers/input/mouse/*",
    "/usr/lib/modules/*/kernel/drivers/input/misc/pcspkr.*",
    "/usr/lib/modules/*/kernel/drivers/input/serio/serio_raw.*",
    "/usr/lib/modules/*/kernel/drivers/block/floppy.*",
    "/usr/lib/modules/*/kernel/drivers/firmware/efi/efi-pstore.*",
    # IDE, where the initramfs would find no disk; the labels of memory modules; how processors of 2003 save power.
    "/usr/lib/modules/*/kernel/drivers/ata/ata_piix.*",
    "/usr/lib/modules/*/kernel/drivers/ata/ata_generic.*",
    "/usr/lib/modules/*/kernel/drivers/ata/pata_*",
    "/usr/lib/modules/*/kernel/drivers/i2c/busses/i2c-piix4.*",
    "/usr/lib/modules/*/kernel/drivers/cpufreq/powernow-k8.*",
    # systemd loads it where it finds it; the box has nftables.
    "/usr/lib/modules/*/kernel/net/ipv4/netfilter/ip_tables.*",
)

BOARDS = {
    "amd64": Board(
        arch="amd64",
        compatible="dicom-gateway-pc",
        title="DICOM edge gateway (PC, UEFI)",
        bootloader={"bootloader": "grub", "grubenv": "/boot/config/EFI/BOOT/grubenv"},
        command_line=f"console=ttyS0,115200 console=tty0 {COMMAND_LINE}",
        boot_label="esp",
        without=NO_USE,
    ),
    "arm64": Board(
        arch="arm64",
        compatible="dicom-gateway-pi",
        title="DICOM edge gateway (Raspberry Pi 4, 64 bit)",
        bootloader={"bootloader": "custom"},
        command_line=f"console=serial0,115200 console=tty1 {COMMAND_LINE}",
        boot_label="bootconfig",
        components=("main", "non-free-firmware"),
        imager_devices=("pi4-64bit",),
        header_pins=True,
        without=(*NO_USE, "/etc/kernel/*/z50-raspi-firmware", "/etc/initramfs/post-update.d/z50-raspi-firmware"),
        silenced=("/etc/kernel/postinst.d/z50-raspi-firmware",),
    ),
}
