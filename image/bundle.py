"""The signed update: RAUC's verity format only, so that nothing is read that was not checked."""

from __future__ import annotations

import fcntl
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from image.board import Board

DAYS = "7300"
"""A box in a clinic may be updated after ten years; its clock may stand at the start of its epoch."""


@dataclass(frozen=True)
class Signer:
    """Who signs bundles. The box knows the authority alone; a release key is replaced without flashing anew."""

    ca: Path
    cert: Path
    key: Path

    @classmethod
    def of(cls, folder: Path) -> Signer:
        """Return the keys in a folder; in one without any, throw-away keys of a developer are made."""
        signer = cls(folder / "ca.pem", folder / "signer.pem", folder / "signer.key")
        if not signer.ca.exists():
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with _alone(folder):
                signer._make(folder)
        return signer

    def _make(self, folder: Path) -> None:
        if self.ca.exists():  # builds for two boards began together, and the other was first
            return
        for file in (self.cert, self.key):
            if file.exists():
                raise SystemExit(f"{folder} has {file.name} but no ca.pem: put the authority beside it")
        new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days"]
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            ca_key, ca, key, cert = (Path(scratch, name) for name in ("ca.key", "ca.pem", "signer.key", "signer.pem"))
            _quiet(*new, DAYS, "-keyout", ca_key, "-out", ca, "-subj", "/O=DICOM edge gateway/CN=developer's authority",
                   "-addext", "keyUsage=critical,keyCertSign,cRLSign")  # fmt: skip
            _quiet(*new, DAYS, "-keyout", key, "-out", cert, "-CA", ca, "-CAkey", ca_key,
                   "-subj", "/O=DICOM edge gateway/CN=developer's bundles",
                   "-addext", "basicConstraints=critical,CA:FALSE", "-addext", "keyUsage=critical,digitalSignature",
                   "-addext", "extendedKeyUsage=codeSigning")  # fmt: skip
            for secret in (ca_key, key):
                secret.chmod(0o600)
            for made in (ca_key, key, cert, ca):
                made.rename(folder / made.name)  # the authority last: where it is, all is


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold a folder against other builds."""
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def _quiet(*command: str | Path) -> None:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{command[0]} failed: {done.stderr.strip()}")


def make(board: Board, version: str, slot: Path, boot: Path | None, signer: Signer, path: Path) -> Path:
    """Return a bundle that puts `slot`, and what its firmware reads where that is apart, on a box of this board."""
    path.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        content = Path(scratch, "content")
        content.mkdir()
        (content / "system.ext4").hardlink_to(slot)
        also = ""
        if boot:
            (content / "boot.vfat").hardlink_to(boot)
            also = "\n[image.boot]\nfilename=boot.vfat\n"
        (content / "manifest.raucm").write_text(
            f"[update]\ncompatible={board.compatible}\nversion={version}\n\n"
            "[bundle]\nformat=verity\n\n"
            # Blocks that the other slot has already are not fetched again when the bundle is streamed.
            "[image.system]\nfilename=system.ext4\nadaptive=block-hash-index\n" + also
        )
        _quiet("rauc", f"--cert={signer.cert}", f"--key={signer.key}", "bundle",
               "--mksquashfs-args=-comp zstd -Xcompression-level 3", content, path)  # fmt: skip
    return path
