"""The root tree: Debian's packages (kept between builds), our package, and what makes a box of them."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from image.board import HERE, PYTHON, SUITE, Board

ROOT = HERE.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dicom-gateway" / "image"
"""Outside of the clone, so that a fresh one finds it. Packages are as old as it: a release starts with an empty one."""
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
USER = 900
"""systemd gives numbers to users of its own from 999 down, so this one stays free."""
FORMAT = "1"
"""Changes when the way to make a base tree does."""


def default_version() -> str:
    """Return the version of the project."""
    found = re.search(r'__version__ = "(.+?)"', (ROOT / "gateway/__init__.py").read_text())
    assert found
    return found[1]


def sources(board: Board) -> list[str]:
    """Return lines of sources.list for the suite, from the mirrors that this machine's own apt uses."""
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(ORIGIN)|$(RELEASE)|$(REPO_URI)", "Created-By: Packages"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    mirror = security = None
    for line in sorted(set(listed)):
        origin, release, uri = line.split("|")
        if origin == "Debian":
            if release.endswith("-security"):
                security = security or uri
            elif "-" not in release:
                mirror = mirror or uri
    if not mirror:
        raise SystemExit("apt on this machine knows no Debian mirror: run `apt-get update`, or add one to its sources")
    parts = " ".join(board.components)
    lines = [f"deb {mirror} {suite} {parts}" for suite in (SUITE, f"{SUITE}-updates")]
    return lines + ([f"deb {security} {SUITE}-security {parts}"] if security else [])


def _initramfs(board: Board) -> dict[str, str]:
    """Return files of /etc/initramfs-tools by name."""
    hook = (HERE / "initramfs-hook").read_text()
    return {
        "initramfs.conf": (HERE / "initramfs.conf").read_text(),
        "hooks/box": hook.replace("@MODULES@", " ".join((board.folder / "modules").read_text().split())),
    }


def debian(board: Board, variant: str, packages: list[str], to: Path, *more: str) -> None:
    """Put packages of the suite, and what they need, into a tar or a folder; `more` are arguments of mmdebstrap."""
    words = [
        "mmdebstrap",
        f"--variant={variant}",
        f"--architectures={board.arch}",
        f"--keyring={KEYRING}",
        f"--include={','.join(packages)}",
        '--aptopt=APT::Install-Recommends "false"',
        *more,
        SUITE,
        str(to),
    ]
    subprocess.run([*words, *sources(board)], check=True)


def base(board: Board) -> Path:
    """Return a tar of Debian with the packages of this board; made when no equal one is kept."""
    asked = [FORMAT, SUITE, board.arch, *board.packages, *board.without, *board.silenced, *_initramfs(board).values()]
    key = hashlib.sha256("\n".join(asked).encode()).hexdigest()[:16]
    kept = CACHE / f"{board.arch}-{key}.tar"
    if kept.exists():
        kept.touch()
        return kept
    CACHE.mkdir(parents=True, exist_ok=True)
    for stale in CACHE.glob(f"{board.arch}-*.tar"):
        stale.unlink()
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        settings = Path(scratch, "initramfs-tools")
        for name, text in _initramfs(board).items():
            file = settings / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        (settings / "hooks/box").chmod(0o755)
        part = Path(scratch, "base.tar")
        debian(
            board,
            "essential",
            board.packages,
            part,
            *(f"--dpkgopt=path-exclude={pattern}" for pattern in board.without),
            # The initramfs is made when the kernel comes: it must find its settings then.
            f"--essential-hook=copy-in {settings} /etc",
            *(
                f'--essential-hook=install -D -m 755 /dev/null "$1{path}" && echo "#!/bin/sh" >"$1{path}"'
                for path in board.silenced
            ),
            "--dpkgopt=force-confold",
        )
        part.rename(kept)
    return kept


def package(board: Board, out: Path) -> Path:
    """Return our own package for this board and its Python."""
    made = out / "deb"
    shutil.rmtree(made, ignore_errors=True)
    subprocess.run(
        [sys.executable, "systemd/deb.py", "--arch", board.arch, "--python", PYTHON, "--into", str(made)],
        cwd=ROOT,
        check=True,
    )
    (deb,) = made.glob("*.deb")
    return deb


@contextmanager
def unpacked(board: Board, out: Path) -> Iterator[Path]:
    """Yield a folder with the base tree, gone afterwards."""
    kept = base(board)
    with tempfile.TemporaryDirectory(dir=out) as scratch:
        root = Path(scratch, "root")
        root.mkdir()
        keep = ["--numeric-owner", "--preserve-permissions", "--xattrs", "--xattrs-include=*"]
        subprocess.run(["tar", "--extract", *keep, "--file", str(kept), "--directory", str(root)], check=True)
        yield root


def fill(root: Path, board: Board, version: str, ca: Path, deb: Path, add: tuple[Path, ...]) -> None:
    """Turn Debian into the box: our package, its settings, and nothing that asks a person."""
    _user(root)
    quiet = {**os.environ, "SYSTEMD_LOG_LEVEL": "err"}  # systemctl warns that a chroot has no /proc; links need none
    subprocess.run(["dpkg", f"--root={root}", "--install", str(deb)], check=True, stdout=subprocess.DEVNULL, env=quiet)
    for layer in (HERE / "root", board.folder / "root", *add):
        lay(layer, root)
    if board.header_pins:
        drop_in = root / "usr/lib/systemd/system/dicom-gateway.service.d"
        drop_in.mkdir()
        shutil.copyfile(ROOT / "hardware/dicom-gateway-hardware.conf", drop_in / "hardware.conf")
    _template(root / "etc/rauc/system.conf.in", board, version)
    shutil.copy(ca, root / "etc/rauc/ca.pem")
    for folder in ("state", "data", "boot/config"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "usr/lib/os-release").write_text(_os_release(root, version))
    (root / "etc/hostname").write_text("dicom-gateway\n")
    # Empty: each start makes one in memory. Nothing on the box goes by it.
    (root / "etc/machine-id").write_text("")
    resolver = root / "etc/resolv.conf"
    resolver.unlink(missing_ok=True)
    resolver.symlink_to("../run/systemd/resolve/stub-resolv.conf")
    # Else the first boot of each slot would do again what the packages did when they were installed.
    for folder in ("etc", "var"):
        (root / folder / ".updated").touch()
        shutil.copystat(root / "usr", root / folder / ".updated")
    _units(root)
    for name in ("vmlinuz.old", "initrd.img.old"):
        (root / name).unlink(missing_ok=True)


def lay(layer: Path, root: Path) -> None:
    """Lay a folder over the tree. Rights are ours: those of a clone depend on the umask of whoever made it."""
    for path in sorted(layer.rglob("*")):
        target = root / path.relative_to(layer)
        if path.is_symlink():
            target.unlink(missing_ok=True)
            target.symlink_to(path.readlink())
        elif path.is_dir():
            if not target.is_dir():
                target.mkdir()
                target.chmod(0o755)
        else:
            shutil.copyfile(path, target)
            target.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)


def _user(root: Path) -> None:
    """Give our user its number, before the package asks for any: `data` belongs to that number in every version."""
    for name, line in (
        ("passwd", f"dicom-gateway:x:{USER}:{USER}:DICOM edge gateway:/var/lib/dicom-gateway:/usr/sbin/nologin"),
        ("group", f"dicom-gateway:x:{USER}:"),
        ("shadow", "dicom-gateway:!*:1::::::"),
    ):
        with (root / "etc" / name).open("a") as file:
            file.write(line + "\n")


def _template(path: Path, board: Board, version: str) -> None:
    settings = "\n".join(f"{key}={value}" for key, value in board.bootloader.items())
    text = path.read_text()
    for word, value in (("COMPATIBLE", board.compatible), ("VERSION", version), ("BOOTLOADER", settings)):
        text = text.replace(f"@{word}@", value)
    slots = board.folder / "rauc.conf"
    path.with_suffix("").write_text(text + (slots.read_text() if slots.exists() else ""))
    path.unlink()


def _os_release(root: Path, version: str) -> str:
    kept = [
        line
        for line in (root / "usr/lib/os-release").read_text().splitlines()
        if not line.startswith(("PRETTY_NAME=", "IMAGE_"))
    ]
    name = [f'PRETTY_NAME="DICOM edge gateway {version}"', "IMAGE_ID=dicom-gateway", f"IMAGE_VERSION={version}"]
    return "\n".join([*kept, *name]) + "\n"


NEVER = (
    *("getty@.service", "serial-getty@.service", "container-getty@.service", "console-getty.service"),
    *("getty-static.service", "debug-shell.service", "systemd-firstboot.service"),
    *("systemd-networkd-wait-online.service", "systemd-machine-id-commit.service", "systemd-homed.service"),
    *("dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer", "grub-common.service"),
    *("systemd-binfmt.service", "systemd-sysext.socket", "systemd-rfkill.socket", "systemd-rfkill.service"),
    *("dev-hugepages.mount", "dev-mqueue.mount", "sys-kernel-debug.mount", "sys-kernel-tracing.mount"),
    *("sys-kernel-config.mount", "sys-fs-fuse-connections.mount", "systemd-pstore.service"),
    *("sleep.target", "suspend.target", "hibernate.target"),
    *("systemd-network-generator.service", "systemd-networkd-persistent-storage.service"),
    *("systemd-udev-load-credentials.service", "systemd-user-sessions.service", "systemd-modules-load.service"),
    *("systemd-journal-flush.service", "systemd-repart.service", "modprobe@drm.service"),
    *("proc-sys-fs-binfmt_misc.automount", "systemd-ask-password-console.path", "systemd-ask-password-wall.path"),
    *("run-lock.mount", "systemd-initctl.socket"),
)
"""No login at any console; nothing that waits for a person, writes to a read-only root, or has no use here."""
ALWAYS = (
    *("systemd-networkd.service", "systemd-resolved.service", "systemd-timesyncd.service", "nftables.service"),
    *("var.mount", "etc-dicom\\x2dgateway.mount", "var-lib-dicom\\x2dgateway.mount"),
    *("dicom-gateway-provision.service", "dicom-gateway-confirm.service"),
    *("dicom-gateway-console@tty1.service", "dicom-gateway-update.path"),
)
NO_GENERATORS = (
    *("systemd-cryptsetup-generator", "systemd-fstab-generator"),
    *("systemd-getty-generator", "systemd-gpt-auto-generator", "systemd-hibernate-resume-generator"),
    *("systemd-integritysetup-generator", "systemd-rc-local-generator", "systemd-run-generator"),
    *("systemd-ssh-generator", "systemd-system-update-generator", "systemd-sysv-generator"),
    *("systemd-veritysetup-generator",),
)
"""Programs that look at each start for what the box never has: tables of disks, logins, scripts of SysV."""


def _units(root: Path) -> None:
    generators = root / "etc/systemd/system-generators"
    generators.mkdir(parents=True, exist_ok=True)
    for name in NO_GENERATORS:
        (generators / name).symlink_to("/dev/null")
    # `systemctl --root` of the building machine may be another release: links are what it would make.
    subprocess.run(["systemctl", f"--root={root}", "--quiet", "mask", *NEVER], check=True)
    subprocess.run(["systemctl", f"--root={root}", "--quiet", "enable", *ALWAYS], check=True)
    subprocess.run(["systemctl", f"--root={root}", "--quiet", "set-default", "multi-user.target"], check=True)
