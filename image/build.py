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


def build(
    arch: str, out: Path, version: str, keys: Path, add: list[Path], deb: Path | None = None, only_bundle: bool = False
) -> None:
    """Leave image, bundle, lists of contents and `os_list.json` in `out`."""
    board = BOARDS[arch]
    name = f"dicom-gateway-{version}-{arch}"
    out.mkdir(parents=True, exist_ok=True)
    with told("keys"):
        signer = bundle.Signer.of(keys)
    with tree.unpacked(board, out) as root:
        with told("root tree"):
            tree.fill(root, board, version, signer.ca, deb or tree.package(board, out), add)
        with told("contents"):
            contents.write(root, board, version, out / name)
        with told("system slot"):
            slot = disk.system_slot(root, out / f"{name}.ext4")
        with told("bundle"):
            bundle.make(board, version, slot, signer, out / f"{name}.raucb")
        if not only_bundle:
            with told("disk"):
                image = disk.assemble(board, slot, out / f"{name}.img")
            with told("compression"):
                disk.compress(image)
            contents.write_os_list(board, version, image, out)
    slot.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(prog="image.build", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--arch", choices=sorted(BOARDS), default="amd64")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "image")
    parser.add_argument("--version", default=tree.default_version(), help="semantic version; RAUC refuses an older one")
    parser.add_argument("--keys", type=Path, default=ROOT / "build" / "keys", help="made when they are not there")
    parser.add_argument("--add", type=Path, action="append", default=[], help="a folder laid over the root tree")
    parser.add_argument("--deb", type=Path, help="our package, when it has been built already")
    parser.add_argument("--only-bundle", action="store_true", help="an update, no image to flash")
    given = parser.parse_args()
    with told("all"):
        build(given.arch, given.out, given.version, given.keys, given.add, given.deb, given.only_bundle)


if __name__ == "__main__":
    main()
