"""The Debian package: what is in it (quick), and that it works where it is installed (long)."""

from __future__ import annotations

import hashlib
import shutil
import signal
import subprocess
import time
from importlib.util import module_from_spec, spec_from_file_location

import pytest

from gateway.config.load import problems
from tests.appliance import debian
from tests.appliance.debian import ROOT, said
from tests.conftest import until
from tests.ports import free_port
from tests.story.test_scanner_to_archive import send

pytestmark = pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="this is no Debian: dpkg-deb is not installed")


@pytest.fixture(scope="module")
def deb():
    spec = spec_from_file_location("deb", ROOT / "systemd/deb.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def hollow(deb, monkeypatch):
    """Builds everything but what pip brings."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")

    def only_ourselves(site, python, machine, scratch):
        (site / "gateway.py").write_text(f"{python} {machine}\n")

    monkeypatch.setattr(deb, "install_packages", only_ourselves)
    return deb


def test_it_holds_what_a_box_needs_and_belongs_to_root(hollow, tmp_path):
    package = hollow.build("arm64", "3.13", tmp_path)
    assert package.name.endswith("+deb13_arm64.deb")
    listing = said("dpkg-deb", "--contents", package)
    for name in (
        "./usr/bin/dicom-gateway -> ../lib/dicom-gateway/bin/dicom-gateway",
        "./usr/lib/dicom-gateway/bin/python3 -> /usr/bin/python3.13",
        "./usr/lib/systemd/system/dicom-gateway.service",
        "./usr/lib/systemd/system/dicom-gateway-console@.service",
        "./usr/lib/sysusers.d/dicom-gateway.conf",
        "./usr/lib/udev/rules.d/60-dicom-gateway.rules",
        "./etc/dicom-gateway/credentials/",
    ):
        assert name in listing
    assert {line.split()[1] for line in listing.splitlines()} == {"root/root"}
    assert "Architecture: arm64" in said("dpkg-deb", "--info", package)
    assert said("dpkg-deb", "--info", package, "conffiles") == "/etc/dicom-gateway/gateway.toml\n"
    assert "python3 (>= 3.13), python3 (<< 3.14)" in said("dpkg-deb", "--field", package, "Depends")


def test_the_same_tree_gives_the_same_bytes(hollow, tmp_path):
    first = hollow.build("amd64", "3.11", tmp_path / "a").read_bytes()
    time.sleep(1.1)
    assert hollow.build("amd64", "3.11", tmp_path / "b").read_bytes() == first


def test_as_delivered_the_configuration_is_valid_and_starts_nothing(deb, tmp_path):
    path = tmp_path / "gateway.toml"
    path.write_text(deb.unconfigured())
    assert problems(path) == []
    condition = next(
        line for line in (ROOT / "systemd/dicom-gateway.service").read_text().splitlines() if "ExecCondition" in line
    )
    pattern = condition.split('"')[1].replace("\\\\", "\\")
    assert subprocess.run(["grep", "-qE", pattern, path]).returncode == 1
    path.write_text("".join(line.removeprefix("# ") for line in path.read_text().splitlines(keepends=True)[3:]))
    assert subprocess.run(["grep", "-qE", pattern, path]).returncode == 0
    assert problems(path) == []


def test_every_library_that_it_needs_is_locked_for_each_target(deb):
    for python in deb.DEBIAN_OF:
        for machine in deb.MACHINES.values():
            environment = deb.target(python, machine)
            names = deb.needed(environment)
            assert {"numpy", "pydicom", "cryptography", "gpiod"} <= set(names)
            assert {"pytest", "mypy", "imagecodecs"}.isdisjoint(names)
            assert all("--hash=sha256:" in line for line in deb.locked(names, environment).values())
    assert deb.locked(["numpy"], deb.target("3.11", "x86_64")) != deb.locked(["numpy"], deb.target("3.13", "x86_64"))


def test_its_scripts_are_posix_shell(deb):
    for path in sorted((ROOT / "systemd/debian").glob("p*")):
        assert subprocess.run(["dash", "-n", path]).returncode == 0, path.name


@pytest.mark.long
@pytest.mark.timeout(900)
def test_installed_into_a_fresh_debian_it_checks_receives_and_leaves_what_it_holds(tmp_path, ct_files, digest_of):
    fresh, package = debian.fresh(tmp_path), debian.package(tmp_path)
    if shutil.which("lintian"):
        lint = subprocess.run(["lintian", "--fail-on", "error,warning", package], capture_output=True, text=True)
        assert lint.returncode == 0, lint.stdout
    shutil.copy(package, fresh / "tmp/gateway.deb")

    def inside(*words: object) -> str:
        return said("chroot", fresh, *words)

    inside("dpkg", "--install", "/tmp/gateway.deb")
    assert inside("dicom-gateway", "--version").startswith("dicom-gateway, version ")
    assert "good" in inside("dicom-gateway", "config", "check")
    assert inside("stat", "--format=%U:%G %a", "/etc/dicom-gateway").strip() == "root:dicom-gateway 2770"
    port = free_port()
    (fresh / "etc/dicom-gateway/gateway.toml").write_text(
        f'[gateway]\ncontrol_socket = "/var/lib/dicom-gateway/c.sock"\n[[listener]]\nport = {port}\n'
        'address = "127.0.0.1"\n[spool]\nreserve_bytes = 0\nhigh_water_percent = 100\n'
    )
    inside("install", "-d", "-o", "dicom-gateway", "-g", "dicom-gateway", "/var/lib/dicom-gateway")
    with open(tmp_path / "log", "wb") as log:
        words = ["chroot", "--userspec=dicom-gateway:dicom-gateway", fresh, "dicom-gateway", "run"]
        service = subprocess.Popen([*map(str, words)], stdout=log, stderr=log)
    try:
        assert until(lambda: (fresh / "var/lib/dicom-gateway/c.sock").exists(), 60), (tmp_path / "log").read_text()
        assert until(lambda: send(port, *ct_files).returncode == 0, 20), (tmp_path / "log").read_text()
        assert '"accepted": 12' in inside("dicom-gateway", "status", "--json")
    finally:
        service.send_signal(signal.SIGTERM)
        assert service.wait(30) == 0
    objects = sorted((fresh / "var/lib/dicom-gateway/objects").rglob("*.dcm"))
    assert {digest_of(path) for path in objects} == {digest_of(path) for path in ct_files}
    before = {path: hashlib.sha256(path.read_bytes()).digest() for path in objects}
    inside("dpkg", "--remove", "dicom-gateway")
    assert (fresh / "etc/dicom-gateway/gateway.toml").exists()
    inside("dpkg", "--purge", "dicom-gateway")
    assert not (fresh / "etc/dicom-gateway").exists()
    assert not (fresh / "usr/lib/dicom-gateway").exists()
    assert {path: hashlib.sha256(path.read_bytes()).digest() for path in objects} == before
