"""File systems and the partition table, made as files: nothing is mounted, no loop device is used."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import uuid
from pathlib import Path

from image.board import Board

MIB = 2**20
SLOT_MIB = 1024
"""Room of one slot; the update after next must fit as well."""
BOOT_MIB = 64
PI_BOOT_MIB = 128
LINUX = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
ESP = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
FAT = "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7"
FIXED = uuid.UUID("7c0f0a6e-2f4d-4a35-9d1b-6f0d6d1c1a00")
"""Name space of the identifiers: the same tree gives the same bytes, and both slots are found by label only."""
GRUB_MODULES = [
    "part_gpt",
    "fat",
    "ext2",
    "normal",
    "linux",
    "loadenv",
    "test",
    "regexp",
    "echo",
    "search",
    "minicmd",
    "sleep",
    "reboot",
    "configfile",
    "all_video",
]


def _run(*command: str | Path, given: str | None = None) -> None:
    words = [str(word) for word in command]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, input=given, text=True)


def system_slot(root: Path, path: Path) -> Path:
    """Return a file system of the tree: without journal, since it is never written, and as small as it may be.

    What RAUC writes is the file, not the slot: air in it would be time and wear.
    """
    used = sum(os.lstat(Path(folder, name)).st_blocks for folder, _, names in os.walk(root) for name in names) * 512
    size_mib = int(used / MIB * 1.08) + 48
    if size_mib > SLOT_MIB:
        raise SystemExit(
            f"the tree needs {size_mib} MiB, a slot has {SLOT_MIB}: see the largest packages in the .dpkg list"
        )
    path.unlink(missing_ok=True)
    seed = uuid.uuid5(FIXED, "system")
    options = ["-O", "^has_journal", "-m", "0", "-U", str(seed), "-E", f"hash_seed={seed},root_owner=0:0"]
    _run("mkfs.ext4", "-q", "-d", root, *options, path, f"{size_mib}M")
    return path


def _fat(path: Path, size_mib: int, label: str, folder: Path) -> Path:
    """Return a FAT file system with what is in `folder`."""
    with path.open("wb") as file:
        file.truncate(size_mib * MIB)
    number = f"{uuid.uuid5(FIXED, label).int & 0xFFFFFFFF:08x}"
    _run("mkfs.vfat", "-F", "32", "-n", label, "-i", number, path)
    _run("mcopy", "-s", "-i", path, *sorted(folder.iterdir()), "::")
    return path


def _grub(board: Board, folder: Path) -> None:
    folder.mkdir(parents=True)
    text = (board.folder / "grub.cfg").read_text().replace("@CMDLINE@", board.command_line)
    (folder / "grub.cfg").write_text(text)
    _run("grub-mkimage", "-O", "x86_64-efi", "-p", "/EFI/BOOT", "-o", folder / "BOOTX64.EFI", *GRUB_MODULES)
    _run("grub-editenv", folder / "grubenv", "create")
    _run("grub-editenv", folder / "grubenv", "set", "ORDER=A B", "A_OK=1", "B_OK=0", "A_TRY=0", "B_TRY=0")


def common_partition(board: Board, path: Path) -> Path:
    """Return the FAT that a laptop sees: CONFIG/, and what chooses the slot."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "CONFIG").mkdir()
        shutil.copy(Path(__file__).parent / "CONFIG.txt", folder / "CONFIG" / "README.txt")
        if board.arch == "amd64":
            _grub(board, folder / "EFI" / "BOOT")
        else:
            shutil.copy(board.folder / "autoboot.txt", folder)
        return _fat(path, BOOT_MIB, "BOOT", folder)


def slot_boot(board: Board, root: Path, path: Path) -> Path | None:
    """Return what a Raspberry Pi reads of a slot before its root: firmware, kernel, device trees. A PC has none."""
    if board.arch == "amd64":
        return None
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name in ("vmlinuz", "initrd.img"):
            shutil.copy(root / name, folder / name)
        firmware = root / "usr/lib/raspi-firmware"
        for file in sorted([*firmware.glob("start4*.elf"), *firmware.glob("fixup4*.dat")]):
            shutil.copy(file, folder)
        # Pi 4, 400 and CM4. With the tree of a board that this kernel has no network for, the firmware would start it.
        trees = [
            Path(shutil.copy(file, folder)) for file in sorted(root.glob("usr/lib/linux-image-*/broadcom/bcm2711*.dtb"))
        ]
        shutil.copy(board.folder / "config.txt", folder)
        (folder / "overlays").mkdir()
        source = Path(__file__).parents[1] / "hardware" / "dicom-gateway.dts"
        overlay = folder / "overlays/dicom-gateway.dtbo"
        _run("dtc", "-@", "-q", "-I", "dts", "-O", "dtb", "-o", overlay, source)
        for tree in trees:  # the firmware would leave out in silence what does not fit
            _run("fdtoverlay", "-i", tree, "-o", "/dev/null", overlay)
        line = f"root=PARTLABEL=system_a rauc.slot=A {board.command_line}\n"
        (folder / "cmdline.txt").write_text(line)
        return _fat(path, PI_BOOT_MIB, "SYSTEM", folder)


def assemble(board: Board, slot: Path, boot: Path | None, path: Path) -> Path:
    """Return the disk to flash: slot A filled, slot B empty, the data partitions left to the first boot."""
    common = common_partition(board, path.with_suffix(".boot"))
    layout: list[tuple[str, str, int, Path | None]] = [(board.boot_label, ESP, BOOT_MIB, common)]
    if boot:
        layout += [("boot_a", FAT, PI_BOOT_MIB, boot), ("boot_b", FAT, PI_BOOT_MIB, None)]
    layout += [("system_a", LINUX, SLOT_MIB, slot), ("system_b", LINUX, SLOT_MIB, None)]
    table, start, copies = ["label: gpt", f"label-id: {uuid.uuid5(FIXED, 'disk')}", "unit: sectors"], 2048, []
    for name, kind, size_mib, content in layout:
        sectors = size_mib * MIB // 512
        identity = uuid.uuid5(FIXED, name)
        table.append(f'start={start}, size={sectors}, type={kind}, name="{name}", uuid={identity}')
        copies.append((content, start * 512))
        start += sectors
    with path.open("wb") as file:
        file.truncate(start * 512 + MIB)
    _run("sfdisk", "--quiet", path, given="\n".join(table))
    for content, offset in copies:
        if content:
            _copy_sparse(content, path, offset)
    common.unlink()
    return path


def _copy_sparse(source: Path, target: Path, offset: int) -> None:
    with source.open("rb") as read, target.open("r+b") as write:
        while block := read.read(MIB):
            if block.count(0) != len(block):
                write.seek(offset)
                write.write(block)
            offset += len(block)


def compress(image: Path) -> Path:
    """Return what is handed out; the image stays beside it."""
    packed = image.with_name(image.name + ".zst")
    _run("zstd", "-q", "-f", "-T0", "-6", image, "-o", packed)
    return packed
