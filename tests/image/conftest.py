"""What the stories of the box share: the image, built once, and the world around a box, on this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trustme

from gateway.emulator.study import ct_study
from tests.broker import Broker
from tests.image.machine import FIRMWARE, Machine
from tests.orthanc import Orthanc
from tests.ports import free_port

ROOT = Path(__file__).parents[2]
HOST = "10.0.2.2"
"""How the guest reaches 127.0.0.1 of this machine."""
TOOLS = ("mmdebstrap", "swtpm", "mcopy", "rauc", "mksquashfs", "grub-mkimage", "zstd")
FILES = (FIRMWARE / "OVMF_CODE_4M.fd", Path("/usr/lib/grub/x86_64-efi/moddep.lst"))


def missing() -> str:
    """Say what keeps this machine from building and booting an image; empty when nothing does."""
    if os.geteuid() != 0:
        return "an image is built by root (chroot)"
    lacking = [tool for tool in TOOLS if not shutil.which(tool)] + [str(path) for path in FILES if not path.exists()]
    return f"not installed: {', '.join(lacking)}; run `.ci/setup image`" if lacking else ""


class Factory:
    """Builds images and bundles with keys of their own; what took how long is told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.keys = folder / "keys"
        self._deb: dict[str, Path] = {}

    def _package(self, arch: str) -> Path:
        if arch not in self._deb:
            into = self.folder / f"deb-{arch}"
            words = ["--arch", arch, "--python", "3.13", "--into", str(into)]
            subprocess.run([sys.executable, "systemd/deb.py", *words], cwd=ROOT, check=True, timeout=600)
            (self._deb[arch],) = into.glob("*.deb")
        return self._deb[arch]

    def build(self, version: str = "0.1.0", *more: str, arch: str = "amd64", keys: Path | None = None) -> Path:
        """Return the folder with what was built; BOX_IMAGE may name one, while somebody works on these tests."""
        if os.environ.get("BOX_IMAGE") and not more:
            return Path(os.environ["BOX_IMAGE"])
        out = self.folder / f"{version}-{arch}-{len(list(self.folder.iterdir()))}"
        begun = time.monotonic()
        words = ["--version", version, "--arch", arch, "--out", str(out), "--keys", str(keys or self.keys)]
        subprocess.run(
            [sys.executable, "-m", "image.build", *words, "--deb", str(self._package(arch)), *more],
            cwd=ROOT, check=True, timeout=1800,
        )  # fmt: skip
        print(f"built in {time.monotonic() - begun:.0f} s: version {version} for {arch}")
        return out


@pytest.fixture(scope="session")
def factory(tmp_path_factory) -> Factory:
    return Factory(tmp_path_factory.mktemp("image"))


@pytest.fixture
def make_study(tmp_path):
    """Write a CT study of so many images."""

    def make(images: int, seed: int = 7) -> list[Path]:
        folder = tmp_path / f"study{seed}"
        folder.mkdir()
        files = []
        for number, dataset in enumerate(ct_study(seed, images)):
            files.append(folder / f"{number}.dcm")
            dataset.save_as(files[-1], enforce_file_format=True)
        return files

    return make


class World:
    """An archive that takes DICOM over mutual TLS only, and a broker; both as a box inside QEMU reaches them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        ca = trustme.CA()
        ca.cert_pem.write_to_path(folder / "ca.pem")
        server = ca.issue_cert(HOST, "127.0.0.1", common_name="archive")
        client = ca.issue_cert("box.test", common_name="box")
        for name, cert in (("server", server), ("box", client)):
            cert.private_key_pem.write_to_path(folder / f"{name}.key")
            (folder / f"{name}.pem").write_bytes(b"".join(blob.bytes() for blob in cert.cert_chain_pems))
        self.archive = Orthanc(
            folder / "orthanc", free_port(), free_port(),
            DicomTlsEnabled=True, DicomTlsCertificate=str(folder / "server.pem"),
            DicomTlsPrivateKey=str(folder / "server.key"), DicomTlsTrustedCertificates=str(folder / "ca.pem"),
        )  # fmt: skip
        self.broker = Broker(folder / "broker", HOST).start()

    def config(self, more: str = "", mqtt: str = "") -> list[Path]:
        """Return the files of a folder CONFIG for a box in this world; `mqtt`: more of that table."""
        config = self.folder / "CONFIG"
        config.mkdir(exist_ok=True)
        for name in ("ca.pem", "box.pem", "box.key"):
            shutil.copy(self.folder / name, config / name)
        table = self.broker.table("ct1-gateway", mqtt, host=HOST)
        for name, kept in (("ca.pem", "mqtt-ca.pem"), ("ct1-gateway.pem", "mqtt.pem"), ("ct1-gateway.key", "mqtt.key")):
            shutil.copy(self.broker.folder / name, config / kept)
            table = table.replace(f"{self.broker.folder}/{name}", kept)
        (config / "gateway.toml").write_text(
            f"""[gateway]
id = "ct1-gateway"
[spool]
reserve_bytes = 67108864
[[listener]]
port = 104
[[destination]]
name = "pacs"
kind = "dimse"
host = "{HOST}"
port = {self.archive.dicom_port}
ae_title = "ANY"
compression = "off"
retry_first_s = 0.5
retry_ceiling_s = 2.0
tls = {{ ca_file = "ca.pem", cert_file = "box.pem", key_file = "box.key" }}
{more}
{table}""".replace("\n", "\r\n"),
            encoding="utf-8-sig",  # as a text editor of Windows writes it
        )
        return sorted(config.iterdir())

    def stop(self) -> None:
        self.archive.stop()
        self.broker.stop()


@pytest.fixture
def world(tmp_path, wait_until):
    made = World(tmp_path / "world")
    try:
        assert wait_until(made.archive.up, 60)
        yield made
    finally:
        made.stop()


@pytest.fixture
def make_machine(tmp_path):
    machines = []

    def make(image: Path, of: type[Machine] = Machine, **more) -> Machine:
        machine = of(tmp_path / f"machine{len(machines)}", image, **more)
        machines.append(machine)
        return machine

    yield make
    for machine in machines:
        machine.stop()
