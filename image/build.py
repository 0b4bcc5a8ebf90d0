"""Builds the flashable image and the update bundle: `make image [ARCH=arm64]`, or `python -m image.build --help`.

No loop mounts and no privileges beyond a chroot: root tree (tree.py), file systems and partition table (disk.py),
signed bundle (bundle.py), and beside them what is inside (contents.py).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from image import bundle, contents, disk, tree
from image.board import BOARDS

ROOT = Path(__file__).parents[1]


@contextmanager
def told(step: str) -> Iterator[None]:
    """Say how long a step took."""
    begun = time.monotonic()
    yield
    print(f"image: {step} {time.monotonic() - begun:.1f} s", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Order:
    """What is to be built."""

    arch: str
    out: Path
    version: str
    keys: Path
    """Folder of the authority and the signing key; made when they are not there."""
    add: tuple[Path, ...] = ()
    """Folders laid over the root tree, the last above all."""
    deb: Path | None = None
    """Our package, when it has been built already."""
    only_bundle: bool = False
    keep_slot: bool = False
    """Keep the file system that is in both."""


def build(order: Order) -> None:
    """Leave image, bundle, lists of contents and `os_list.json` in the folder asked for."""
    board, out = BOARDS[order.arch], order.out
    name = f"dicom-gateway-{order.version}-{order.arch}"
    out.mkdir(parents=True, exist_ok=True)
    with told("keys"):
        signer = bundle.Signer.of(order.keys)
    with tree.unpacked(board, out) as root:
        with told("root tree"):
            deb = order.deb or tree.package(board, out)
            tree.fill(root, board, order.version, signer.ca, deb, order.add)
        with told("contents"):
            contents.write(root, board, order.version, out / name)
        with told("system slot"):
            slot = disk.system_slot(root, out / f"{name}.ext4")
            boot = disk.slot_boot(board, root, out / f"{name}.vfat")
        with told("bundle"):
            bundle.make(board, order.version, slot, boot, signer, out / f"{name}.raucb")
        if not order.only_bundle:
            with told("disk"):
                image = disk.assemble(board, slot, boot, out / f"{name}.img")
            with told("compression"):
                disk.compress(image)
            contents.write_os_list(board, order.version, image, out)
    if not order.keep_slot:
        for part in (slot, boot):
            if part:
                part.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(prog="image.build", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--arch", choices=sorted(BOARDS), default="amd64")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "image")
    parser.add_argument("--version", default=tree.default_version(), help="semantic version; RAUC refuses an older one")
    parser.add_argument("--keys", type=Path, default=ROOT / "build" / "keys", help="made when they are not there")
    parser.add_argument("--add", type=Path, action="append", default=[], help="a folder laid over the root tree")
    parser.add_argument("--deb", type=Path, help="our package, when it has been built already")
    parser.add_argument("--only-bundle", action="store_true", help="an update, no image to flash")
    parser.add_argument("--keep-slot", action="store_true", help="keep the file system that is in both")
    given = vars(parser.parse_args())
    with told("all"):
        build(Order(**{**given, "add": tuple(given["add"])}))


if __name__ == "__main__":
    main()
