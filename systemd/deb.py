"""Builds `dicom-gateway_VERSION_ARCH.deb`: `make deb [ARCH=arm64] [TARGET_PYTHON=3.13]`.

Below /usr/lib/dicom-gateway lies a virtual environment of the wheels that requirements.lock names, with their hashes,
for the target's processor and Python: nothing is compiled, so any machine builds for any other. The same commit gives
the same bytes (SOURCE_DATE_EPOCH). An image may install the package, or unpack it and run `debian/postinst`.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from email.utils import formatdate
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
HERE = Path(__file__).parent
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
HOUSE = "usr/lib/dicom-gateway"
GLIBC = range(36, 16, -1)
"""Wheels for glibc 2.17 to 2.36, that of Debian 12."""
DEBIAN_OF = {"3.11": 12, "3.13": 13}
"""A package serves the one Python of its Debian release; its version says which."""
MAINTAINER = "DICOM edge gateway <noreply@example.org>"
EXTRAS = ("gpio",)
NOISE = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")
"""What pip notes about this machine."""
LEFT_OUT = ("pynetdicom/apps", "pynetdicom/tests", "pydicom/data/test_files", "numpy/**/tests", "numpy/**/*_tests.*.so")
"""Programs that we neither use nor want to answer for (CVE-2026-56445), and tests of others."""
UNITS = (".service", ".path", ".timer", ".socket", ".target")


def target(python: str, machine: str) -> dict[str, str]:
    """Return what environment markers are judged by (PEP 508); pip judges them by the Python that it runs in."""
    return {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "platform_machine": machine,
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }


def needed(environment: dict[str, str]) -> list[str]:
    """Return the distributions that the gateway needs at run time, by what those in our own environment say."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(word for name in EXTRAS for word in project["optional-dependencies"][name])]
    found: set[str] = set()
    while wanted:
        requirement = Requirement(wanted.pop())
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        if name in found:
            continue
        found.add(name)
        for text in metadata.requires(name) or []:
            marker = Requirement(text).marker
            if marker is None or any(
                marker.evaluate({**environment, "extra": extra}) for extra in requirement.extras or {""}
            ):
                wanted.append(text)
    return sorted(found)


def locked(names: list[str], environment: dict[str, str]) -> dict[str, str]:
    """Return what the lock says of each for this target, with its hashes."""
    found: dict[str, str] = {}
    for block in re.split(r"\n(?=\S)", (ROOT / "requirements.lock").read_text()):
        first, _, hashes = block.partition("\n")
        requirement = Requirement(first.rstrip(" \\"))
        if requirement.name in names and (requirement.marker is None or requirement.marker.evaluate(environment)):
            found[requirement.name] = f"{requirement.name}{requirement.specifier} \\\n{hashes}"
    missing = set(names) - set(found)
    if missing:
        raise SystemExit(f"requirements.lock does not name {', '.join(sorted(missing))}; make it anew")
    return found


def pip(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments], check=True)


def install_packages(site: Path, python: str, machine: str, scratch: Path) -> None:
    """Fill `site` with the locked wheels, and with ourselves."""
    environment = target(python, machine)
    lines = locked(needed(environment), environment)
    del lines["sdnotify"]  # has no wheel; it is one file of Python, which our environment got by the same lock
    (scratch / "lock").write_text("\n".join(lines.values()) + "\n")
    platforms = [f"manylinux_2_{minor}_{machine}" for minor in GLIBC] + [f"manylinux2014_{machine}"]
    abi = "cp" + python.replace(".", "")
    pip(
        *("install", "--target", str(site), "--no-deps", "--no-compile", "--only-binary", ":all:"),
        "--ignore-requires-python",  # pip judges that too by the Python that it runs in; a wheel's tag says it as well
        *("--require-hashes", "-r", str(scratch / "lock"), "--python-version", python, "--implementation", "cp"),
        *(word for name in (abi, "abi3", "none") for word in ("--abi", name)),
        *(word for name in platforms for word in ("--platform", name)),
    )
    for file in metadata.files("sdnotify") or []:
        if ".." not in file.parts and "__pycache__" not in file.parts:
            (site / file).parent.mkdir(exist_ok=True)
            shutil.copyfile(file.locate(), site / file)
    shutil.rmtree(site / "bin", ignore_errors=True)  # scripts of others, by a Python of this machine
    pip("install", "--target", str(site), "--no-deps", "--no-compile", "--no-build-isolation", str(ROOT))
    shutil.rmtree(site / "bin")
    for pattern in LEFT_OUT:
        for path in sorted(site.glob(pattern)):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
    for info in site.glob("*.dist-info"):
        for name in NOISE:
            (info / name).unlink(missing_ok=True)


def lay_out(tree: Path, python: str, machine: str, scratch: Path) -> None:
    """Put every file where it belongs."""
    house = tree / HOUSE
    site = house / f"lib/python{python}/site-packages"
    site.mkdir(parents=True)
    install_packages(site, python, machine, scratch)
    (house / "pyvenv.cfg").write_text(f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {python}\n")
    (house / "bin").mkdir()
    (house / "bin/python3").symlink_to(f"/usr/bin/python{python}")
    command = house / "bin/dicom-gateway"
    # Guarded: a worker process imports the script that it was started from.
    command.write_text(
        f'#!/{HOUSE}/bin/python3 -I\nfrom gateway.cli import main\n\nif __name__ == "__main__":\n    main()\n'
    )
    command.chmod(0o755)
    hook = house / "update"  # what a signed command calls, where there is RAUC (gateway/remote.py)
    hook.write_text('#!/bin/sh\nexec /usr/bin/dicom-gateway update request "$@"\n')
    hook.chmod(0o755)
    (tree / "usr/bin").mkdir()
    (tree / "usr/bin/dicom-gateway").symlink_to("../lib/dicom-gateway/bin/dicom-gateway")
    units = tree / "usr/lib/systemd/system"
    units.mkdir(parents=True)
    for path in sorted(HERE.iterdir()):
        if path.suffix in UNITS:
            shutil.copyfile(path, units / path.name)
    for kind, folder in (("sysusers", "sysusers.d"), ("tmpfiles", "tmpfiles.d"), ("rules", "udev/rules.d")):
        for path in sorted(HERE.glob(f"*.{kind}")):
            (tree / "usr/lib" / folder).mkdir(parents=True, exist_ok=True)
            name = path.name if kind == "rules" else f"{path.stem}.conf"
            shutil.copyfile(path, tree / "usr/lib" / folder / name)
    etc = tree / "etc/dicom-gateway"
    (etc / "credentials").mkdir(parents=True)
    (etc / "gateway.toml").write_text(unconfigured())
    documents(tree / "usr/share/doc/dicom-gateway", python)
    overrides = tree / "usr/share/lintian/overrides"
    overrides.mkdir(parents=True)
    shutil.copyfile(HERE / "debian/lintian-overrides", overrides / "dicom-gateway")


def unconfigured() -> str:
    """Return a configuration of comments only, with which the service does not start."""
    from gateway.config.template import Answers, template

    rows = template(Answers()).splitlines()
    head = [
        "# As delivered, every line is a comment, and the service does not start. Remove the first `#` of what you",
        "# need, or have a file written: dicom-gateway init --force. Then: systemctl start dicom-gateway",
    ]
    return "\n".join([rows[0], *head, *(f"# {row}" if row else "" for row in rows[1:])]) + "\n"


def documents(folder: Path, python: str) -> None:
    folder.mkdir(parents=True)
    shutil.copyfile(ROOT / "README.md", folder / "README.md")
    shutil.copyfile(HERE / "debian/copyright", folder / "copyright")
    entry = f"""dicom-gateway ({version_of(python)}) stable; urgency=medium

  * What changed stands in NEWS.gz.

 -- {MAINTAINER}  {formatdate(int(os.environ["SOURCE_DATE_EPOCH"]))}
"""
    for name, content in (("NEWS.gz", (ROOT / "CHANGELOG.md").read_bytes()), ("changelog.gz", entry.encode())):
        (folder / name).write_bytes(gzip.compress(content, mtime=0))


def version_of(python: str) -> str:
    from gateway import __version__

    return f"{__version__}+deb{DEBIAN_OF[python]}"


def control(tree: Path, python: str, arch: str) -> None:
    """Write DEBIAN/."""
    folder = tree / "DEBIAN"
    folder.mkdir()
    for name in ("postinst", "prerm", "postrm"):
        shutil.copyfile(HERE / "debian" / name, folder / name)
        (folder / name).chmod(0o755)
    files = [
        path for path in tree.rglob("*") if path.is_file() and not path.is_symlink() and folder not in path.parents
    ]
    text = (HERE / "debian/control").read_text()
    major, minor = python.split(".")
    facts = {
        "VERSION": version_of(python),
        "ARCH": arch,
        "MAINTAINER": MAINTAINER,
        "SIZE": str(sum((path.stat().st_size + 1023) // 1024 for path in files)),
        "PYTHON": python,
        "BELOW": f"{major}.{int(minor) + 1}",
    }
    (folder / "control").write_text(re.sub(r"@(\w+)@", lambda match: facts[match[1]], text))
    (folder / "conffiles").write_text("/etc/dicom-gateway/gateway.toml\n")
    sums = [f"{md5(path)}  {path.relative_to(tree)}\n" for path in sorted(files) if path.name != "gateway.toml"]
    (folder / "md5sums").write_text("".join(sums))


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def epoch() -> str:
    """Return the moment that every file gets: SOURCE_DATE_EPOCH, or that of the commit."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    ask = ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"]
    return given or subprocess.run(ask, check=True, capture_output=True, text=True).stdout.strip()


def build(arch: str, python: str, into: Path) -> Path:
    """Build the package; return its file."""
    os.environ["SOURCE_DATE_EPOCH"] = epoch()
    into.mkdir(parents=True, exist_ok=True)
    package = into / f"dicom-gateway_{version_of(python)}_{arch}.deb"
    os.umask(0o022)
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        tree.mkdir(mode=0o755)
        lay_out(tree, python, MACHINES[arch], Path(folder))
        control(tree, python, arch)
        for path in [tree, *tree.rglob("*")]:
            if not path.is_symlink():
                program = (
                    path.parent in (tree / HOUSE / "bin", tree / HOUSE, tree / "DEBIAN") and path.stat().st_mode & 0o100
                )
                path.chmod(0o755 if path.is_dir() or program else 0o644)
            os.utime(path, (int(os.environ["SOURCE_DATE_EPOCH"]),) * 2, follow_symlinks=False)
        build_command = ["dpkg-deb", "-Zxz", "-z2", "--root-owner-group", "--build", str(tree), str(package)]
        subprocess.run(build_command, check=True, stdout=subprocess.DEVNULL)
    return package


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arch", choices=MACHINES, default="amd64")
    parser.add_argument("--python", choices=DEBIAN_OF, default=f"{sys.version_info.major}.{sys.version_info.minor}")
    parser.add_argument("--into", type=Path, default=ROOT / "build")
    arguments = parser.parse_args()
    print(build(arguments.arch, arguments.python, arguments.into))


if __name__ == "__main__":
    main()
