"""A Debian with nothing of ours, from the mirror that this machine's own apt uses, kept between runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "dicom-gateway"


def said(*words: object, **more) -> str:
    return subprocess.run([*map(str, words)], check=True, capture_output=True, text=True, **more).stdout


def mirror() -> tuple[str, str]:
    """Where this machine's own apt gets Debian from, and which release."""
    for line in said("apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME) $(ORIGIN)").splitlines():
        uri, codename, origin = [*line.split(), "", "", ""][:3]
        if origin == "Debian" and "-" not in codename:
            return uri, codename
    pytest.skip("apt on this machine knows no Debian mirror")


def fresh(folder: Path) -> Path:
    """A Debian with nothing of ours, as a folder to chroot into."""
    if os.geteuid() != 0 or not shutil.which("mmdebstrap"):
        pytest.skip("needs root and mmdebstrap")
    uri, release = mirror()
    kept = CACHE / f"plain-{release}.tar"
    if not kept.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        part = kept.with_suffix(f".{os.getpid()}.tar")
        include = "--include=systemd,init-system-helpers,python3"
        source = f"deb {uri} {release} main"
        said("mmdebstrap", "--quiet", "--variant=minbase", include, release, part, source)
        part.rename(kept)
    tree = folder / "tree"
    tree.mkdir()
    said("tar", "--extract", "--file", kept, "--directory", tree, "--exclude=./dev/*", "--numeric-owner")
    said("mknod", "-m", "666", tree / "dev/null", "c", "1", "3")
    said("mknod", "-m", "666", tree / "dev/urandom", "c", "1", "9")
    return tree


def package(folder: Path) -> Path:
    """Build our own package for this Debian, or take the one that DEB names."""
    if os.environ.get("DEB"):
        return Path(os.environ["DEB"])
    said(sys.executable, ROOT / "systemd/deb.py", "--into", folder)
    (made,) = folder.glob("dicom-gateway_*.deb")
    return made
