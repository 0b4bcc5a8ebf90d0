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
LINUX = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
ESP = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
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


def boot_partition(board: Board, path: Path) -> Path:
    """Return the FAT that a laptop sees: boot loader and CONFIG/."""
    with path.open("wb") as file:
        file.truncate(BOOT_MIB * MIB)
    _run("mkfs.vfat", "-F", "32", "-n", "BOOT", "-i", "47570001", path)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "CONFIG").mkdir()
        shutil.copy(Path(__file__).parent / "CONFIG.txt", folder / "CONFIG" / "README.txt")
        grub = folder / "EFI" / "BOOT"
        grub.mkdir(parents=True)
        text = (board.folder / "grub.cfg").read_text().replace("@CMDLINE@", board.command_line)
        (grub / "grub.cfg").write_text(text)
        _run("grub-mkimage", "-O", "x86_64-efi", "-p", "/EFI/BOOT", "-o", grub / "BOOTX64.EFI", *GRUB_MODULES)
        _run("grub-editenv", grub / "grubenv", "create")
        _run("grub-editenv", grub / "grubenv", "set", "ORDER=A B", "A_OK=1", "B_OK=0", "A_TRY=0", "B_TRY=0")
        _run("mcopy", "-s", "-i", path, folder / "EFI", folder / "CONFIG", "::")
    return path


def assemble(board: Board, slot: Path, path: Path) -> Path:
    """Return the disk to flash: slot A filled, slot B empty, the data partitions left to the first boot."""
    boot = boot_partition(board, path.with_suffix(".boot"))
    table, start, copies = ["label: gpt", f"label-id: {uuid.uuid5(FIXED, 'disk')}", "unit: sectors"], 2048, []
    for name, kind, size_mib, content in (
        ("esp", ESP, BOOT_MIB, boot),
        ("system_a", LINUX, SLOT_MIB, slot),
        ("system_b", LINUX, SLOT_MIB, None),
    ):
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
    boot.unlink()
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
