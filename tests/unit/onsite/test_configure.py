"""A folder CONFIG is taken as a whole or not at all, whatever is in it and whenever the power goes."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest
import trustme
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from gateway.cli import cli
from gateway.config.load import load
from gateway.identity.device import own_certificate, request
from gateway.model.errors import ConfigError
from gateway.onsite import install
from gateway.onsite.folder import read, remove_secrets
from gateway.onsite.install import ensure_key, finish, take

GOOD = """[gateway]
id = "ct1-gateway"
ae_title = "EDGE1"
[[listener]]
port = 104
"""
WITH_BROKER = (
    GOOD
    + """[mqtt]
host = "mqtt.example.org"
user = "box"
password_file = "password.txt"
tls = { ca_file = "ca.pem", cert_file = "device.pem", key_file = "device.key" }
"""
)
PASSWORD = b"secret of the canary\n"


@pytest.fixture
def home(tmp_path):
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
def config(tmp_path):
    folder = tmp_path / "CONFIG"
    folder.mkdir()
    (folder / "gateway.toml").write_text(GOOD)
    return folder


@pytest.fixture
def with_broker(config):
    (config / "gateway.toml").write_text(WITH_BROKER)
    (config / "password.txt").write_bytes(PASSWORD)
    trustme.CA().cert_pem.write_to_path(str(config / "ca.pem"))
    return config


def configure(home: Path, *words: object):
    return CliRunner().invoke(cli, ["--config", str(home / "gateway.toml"), "configure", *map(str, words)])


def test_a_good_configuration_is_taken_and_the_answer_says_what_to_type_into_the_scanner(home, config):
    assert configure(home, config).exit_code == 0
    assert load(home / "gateway.toml").settings.gateway.id == "ct1-gateway"
    said = (config / "result.txt").read_bytes().decode()
    assert "TAKEN." in said
    assert "EDGE1" in said
    assert "port 104" in said
    assert "\r\n" in said


def test_a_byte_order_mark_and_lines_of_another_system_are_fine(home, config):
    (config / "gateway.toml").write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert configure(home, config).exit_code == 0
    assert (home / "gateway.toml").read_text() == GOOD


def test_names_in_capitals_are_found(home, config):
    (config / "gateway.toml").rename(config / "GATEWAY.TOML")
    assert configure(home, config).exit_code == 0


def test_secrets_move_to_the_box_and_leave_the_folder(home, with_broker):
    assert configure(home, with_broker).exit_code == 0
    assert (home / "password.txt").read_bytes() == PASSWORD
    assert not (with_broker / "password.txt").exists()
    assert (with_broker / "ca.pem").exists()
    assert "password.txt" in (with_broker / "result.txt").read_text()
    assert "canary" not in (with_broker / "result.txt").read_text()
    assert {path.stat().st_mode & 0o777 for path in home.iterdir() if path.is_file()} == {0o640}


def test_a_bad_configuration_changes_nothing_and_is_explained_with_its_lines(home, config):
    assert configure(home, config).exit_code == 0
    before = {path.name: path.read_bytes() for path in home.iterdir() if path.name != "result.txt"}
    (config / "gateway.toml").write_text(GOOD.replace("port = 104", "port = 0\ncolour = 1"))
    outcome = configure(home, config)
    assert outcome.exit_code == 78
    said = (config / "result.txt").read_text()
    assert "NOT TAKEN. The box goes on with the configuration that it had." in said
    assert "line 5: listener[0].port" in said
    assert "line 6: listener[0].colour: unknown key" in said
    assert ".incoming" not in said
    assert {path.name: path.read_bytes() for path in home.iterdir() if path.name in before} == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: (folder / "gateway.toml").rename(folder / "gateway.toml.txt"), "rename it to gateway.toml"),
        (lambda folder: (folder / "gateway.toml").write_bytes(b"\xff\xfe[\x00"), "UTF-8"),
        (lambda folder: (folder / "ca.pem").unlink(), "there is no file ca.pem"),
        (lambda folder: (folder / "ca.pem").write_text("nothing"), "must be PEM"),
        (lambda folder: (folder / "gateway.toml").write_text(WITH_BROKER.replace("ca.pem", "../ca.pem")), "plain file"),
        (lambda folder: (folder / "device.key").write_text("mine"), "never leaves it"),
        (lambda folder: (folder / "gateway.toml").write_bytes(b"#" * 2_000_000), "longer than"),
    ],
    ids=["called-txt", "utf-16", "missing", "not-pem", "elsewhere", "key-brought", "too-long"],
)
def test_each_mistake_is_told_in_words(home, with_broker, change, words):
    change(with_broker)
    assert configure(home, with_broker).exit_code == 78
    said = (with_broker / "result.txt").read_text()
    assert words in said
    assert "waits for a configuration" in said
    assert not (home / "gateway.toml").exists()
    assert (with_broker / "password.txt").exists()


def test_a_link_on_a_stick_brings_no_file_of_the_box(home, with_broker, tmp_path):
    (tmp_path / "shadow").write_text("secret of the box")
    (with_broker / "password.txt").unlink()
    (with_broker / "password.txt").symlink_to(tmp_path / "shadow")
    assert configure(home, with_broker).exit_code == 78
    assert not (home / "password.txt").exists()


def test_root_moves_and_writes_nothing_by_way_of_a_link_that_the_service_laid(home, config, tmp_path):
    elsewhere = tmp_path / "etc"
    elsewhere.mkdir()
    (elsewhere / "shadow").write_text("secret of the box")
    for name in (install.INCOMING, install.PART, "gateway.toml", "result.txt", ".result.txt.part", ".device.key.part"):
        (home / name).symlink_to(elsewhere if "incoming" in name else elsewhere / "shadow")
    configure(home, config)
    assert [path.name for path in elsewhere.iterdir()] == ["shadow"]
    assert (elsewhere / "shadow").read_text() == "secret of the box"
    assert not (home / "shadow").exists()


def test_the_key_is_made_on_the_box_its_request_is_written_out_and_the_certificate_comes_back(home, with_broker):
    assert configure(home, with_broker).exit_code == 0
    key = load_pem_private_key((home / "device.key").read_bytes(), None)
    csr = x509.load_pem_x509_csr((with_broker / "device.csr").read_bytes())
    assert csr.is_signature_valid
    assert csr.subject.rfc4514_string() == "CN=ct1-gateway"
    spki = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert csr.public_key().public_bytes(*spki) == key.public_key().public_bytes(*spki)
    assert not any(b"PRIVATE KEY" in path.read_bytes() for path in with_broker.iterdir())
    certificate = own_certificate((home / "device.key").read_bytes(), "as-if-by-another")
    (with_broker / "device.pem").write_bytes(certificate)
    assert configure(home, with_broker).exit_code == 0
    assert (home / "device.pem").read_bytes() == certificate


def test_openssl_verifies_the_request(home, config, tmp_path):
    (tmp_path / "r.csr").write_bytes(request(ensure_key(home), "box"))
    said = subprocess.run(["openssl", "req", "-verify", "-noout", "-in", tmp_path / "r.csr"], capture_output=True)
    assert said.returncode == 0


def test_a_certificate_of_another_box_is_refused(home, with_broker, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (with_broker / "device.pem").write_bytes(own_certificate(ensure_key(other), "other"))
    assert configure(home, with_broker).exit_code == 78
    assert "does not belong to the key of this box" in (with_broker / "result.txt").read_text()


def test_a_secret_that_a_power_cut_left_behind_is_removed_by_the_next_look(home, with_broker):
    assert configure(home, with_broker).exit_code == 0
    (with_broker / "secret.gone").write_bytes(PASSWORD)
    assert configure(home, with_broker).exit_code == 0
    assert not (with_broker / "secret.gone").exists()


def test_what_was_taken_before_is_not_taken_again_so_that_a_newer_one_stays(home, config):
    assert configure(home, config).exit_code == 0
    newer = GOOD.replace("EDGE1", "EDGE2")
    (home / "gateway.toml").write_text(newer)
    assert "nothing new" in configure(home, config).output
    assert (home / "gateway.toml").read_text() == newer
    assert configure(home, "--again", config).exit_code == 0
    assert (home / "gateway.toml").read_text() == GOOD


def test_a_new_text_goes_with_the_secrets_that_the_box_has_already(home, with_broker):
    assert configure(home, with_broker).exit_code == 0
    (with_broker / "gateway.toml").write_text(WITH_BROKER.replace("EDGE1", "EDGE2"))
    assert configure(home, with_broker).exit_code == 0
    assert load(home / "gateway.toml").settings.gateway.ae_title == "EDGE2"


def test_the_laptop_makes_a_folder_that_the_box_takes_and_finds_the_mistakes_beforehand(home, tmp_path):
    stick = tmp_path / "stick"
    words = ["provision", str(stick), "--id", "ct1", "-aet", "EDGE9", "--port", "104", "--archive", "P@pacs:104"]
    made = CliRunner().invoke(cli, words)
    assert made.exit_code == 0, made.output
    assert "the box will take this" in made.output
    assert configure(home, stick / "CONFIG").exit_code == 0
    assert load(home / "gateway.toml").settings.gateway.ae_title == "EDGE9"
    path = stick / "CONFIG/gateway.toml"
    path.write_text(path.read_text().replace("port = 104", "port = 0", 1))
    checked = CliRunner().invoke(cli, ["provision", str(stick)])
    assert isinstance(checked.exception, ConfigError)
    assert "listener[0].port" in str(checked.exception)


class PowerCut(BaseException):
    """Nothing after it happens."""


CALLS = ("open", "fsync", "rename", "replace", "rmdir", "mkdir", "unlink")


class Cutter:
    """Lets so many of the calls through that change a disk, then cuts the power."""

    def __init__(self, monkeypatch, after: int) -> None:
        self.left, self.made = after, 0
        for name in CALLS:
            monkeypatch.setattr(os, name, self._counted(getattr(os, name)))

    def _counted(self, call):
        def counted(*words, **options):
            self.made += 1
            if self.made > self.left:
                raise PowerCut
            return call(*words, **options)

        return counted


def state(home: Path) -> dict[str, str]:
    names = ("gateway.toml", "password.txt", "ca.pem")
    return {name: hashlib.sha256((home / name).read_bytes()).hexdigest() for name in names if (home / name).exists()}


def test_wherever_the_power_goes_the_box_has_the_old_or_the_new_and_the_folder_its_secrets_until_then(
    tmp_path, monkeypatch
):
    def fresh(number: int) -> tuple[Path, Path]:
        home, folder = tmp_path / f"h{number}", tmp_path / f"f{number}"
        home.mkdir()
        folder.mkdir()
        for place, word in ((folder, "EDGE1"),):
            (place / "gateway.toml").write_text(WITH_BROKER.replace("EDGE1", word))
            (place / "password.txt").write_bytes(PASSWORD)
            (place / "ca.pem").write_bytes(anchor)
        take(read(folder), home, "stick")
        (folder / "gateway.toml").write_text(WITH_BROKER.replace("EDGE1", "EDGE2"))
        (folder / "password.txt").write_bytes(b"another\n")
        return home, folder

    anchor = trustme.CA().cert_pem.bytes()
    home, folder = fresh(0)
    old = state(home)
    take(read(folder), home, "stick")
    new = state(home)
    assert old != new
    seen = set()
    for cut in range(1, 200):
        home, folder = fresh(cut)
        with monkeypatch.context() as patch:
            cutter = Cutter(patch, cut)
            try:
                take(read(folder), home, "stick")
                remove_secrets(read(folder))
                done = True
            except PowerCut:
                done = False
        finish(home)
        assert state(home) in (old, new), cut
        assert (folder / "password.txt").exists() or state(home) == new
        seen.add(state(home) == new)
        take(read(folder), home, "stick")
        assert state(home) == new, cut
        assert not (home / install.INCOMING).exists()
        if done:
            break
    assert done
    assert cutter.made > 15
    assert seen == {True, False}


def test_nothing_counts_as_taken_before_all_of_it_is_on_the_disk(tmp_path, home, with_broker, monkeypatch):
    log = []
    sync, rename = os.fsync, os.rename

    def noted_sync(fd):
        log.append(("fsync", str(Path(f"/proc/self/fd/{fd}").readlink())))
        sync(fd)

    def noted_rename(old, new, **options):
        log.append(("rename", str(new)))
        rename(old, new, **options)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(os, "rename", noted_rename)
    take(read(with_broker), home, "stick")
    at = log.index(("rename", str(home / install.INCOMING)))
    flushed = {Path(path) for what, path in log[:at] if what == "fsync"}
    part = home / install.PART
    names = ("gateway.toml", "password.txt", "ca.pem", "device.pem", "device.key", install.RECORD)
    assert {part, *(part / name for name in names)} <= flushed
    assert log[at + 1] == ("fsync", str(home))
