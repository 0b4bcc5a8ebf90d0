"""Operators' keys: what `fleet keys` writes is what a box reads, and what it signs another implementation checks."""

from __future__ import annotations

import base64
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from gateway.fleet.keys import SigningKey, make, revoke
from gateway.identity.keyring import load_keyring
from gateway.model.errors import IdentityError


@pytest.fixture
def files(tmp_path):
    return tmp_path / "ops-1.key", tmp_path / "keyring.toml"


def test_a_key_that_was_made_is_one_that_a_box_obeys(files):
    key_file, keyring = files
    make("ops-1", "operator", key_file, keyring)
    make("eyes", "viewer", key_file.with_name("eyes.key"), keyring)
    keys = load_keyring(keyring)
    assert {kid: key.role for kid, key in keys.items()} == {"ops-1": "operator", "eyes": "viewer"}
    key = SigningKey.load(key_file)
    assert key.kid == "ops-1"
    assert keys["ops-1"].signed(b"message", key.sign(b"message"))
    assert not keys["eyes"].signed(b"message", key.sign(b"message"))
    assert key_file.stat().st_mode & 0o777 == 0o600
    assert keyring.stat().st_mode & 0o022 == 0


def test_openssl_takes_the_signature(files, tmp_path):
    key_file, keyring = files
    make("ops-1", "admin", key_file, keyring)
    (tmp_path / "m").write_bytes(b"message")
    (tmp_path / "s").write_bytes(SigningKey.load(key_file).sign(b"message"))
    raw = base64.b64decode(load_keyring(keyring)["ops-1"].public_key)
    (tmp_path / "p.der").write_bytes(bytes.fromhex("302a300506032b6570032100") + raw)  # RFC 8410
    public = ["-pubin", "-keyform", "DER", "-inkey", str(tmp_path / "p.der")]
    said = subprocess.run(
        ["openssl", "pkeyutl", "-verify", *public, "-rawin", "-in", tmp_path / "m", "-sigfile", tmp_path / "s"],
        capture_output=True,
        text=True,
    )
    assert said.returncode == 0, said.stderr


def test_a_passphrase_is_asked_for_and_kept_out_of_the_file(files):
    key_file, keyring = files
    make("ops-1", "admin", key_file, keyring, b"correct horse")
    assert b"ENCRYPTED" in key_file.read_bytes()
    with pytest.raises(IdentityError, match="passphrase"):
        SigningKey.load(key_file)
    with pytest.raises(IdentityError, match="passphrase"):
        SigningKey.load(key_file, b"wrong")
    assert SigningKey.load(key_file, b"correct horse").kid == "ops-1"


def test_nothing_is_overwritten(files):
    key_file, keyring = files
    make("ops-1", "admin", key_file, keyring)
    before = key_file.read_bytes(), keyring.read_text()
    with pytest.raises(IdentityError, match="ops-1"):
        make("ops-1", "admin", key_file.with_name("second.key"), keyring)
    with pytest.raises(IdentityError, match="is there already"):
        make("ops-2", "admin", key_file, keyring)
    assert (key_file.read_bytes(), keyring.read_text()) == before
    assert not key_file.with_name("second.key").exists()


def test_a_revoked_key_stays_in_the_ring_and_is_obeyed_no_more(files):
    key_file, keyring = files
    make("ops-1", "admin", key_file, keyring)
    make("ops-2", "admin", key_file.with_name("ops-2.key"), keyring)
    revoke("ops-1", keyring)
    assert {kid: key.revoked for kid, key in load_keyring(keyring).items()} == {"ops-1": True, "ops-2": False}
    with pytest.raises(IdentityError, match="nobody"):
        revoke("nobody", keyring)


def test_a_name_that_is_none_is_refused(files):
    for kid, role in (("Ops 1", "admin"), ("ops-1", "root"), ("a/b", "viewer")):
        with pytest.raises(IdentityError):
            make(kid, role, files[0], files[1])
    assert not files[0].exists()


def test_a_key_that_others_can_read_is_no_secret(files):
    make("ops-1", "admin", *files)
    files[0].chmod(0o640)
    with pytest.raises(IdentityError, match="others"):
        SigningKey.load(files[0])


def test_a_file_that_is_no_ed25519_key_is_said_to_be_none(files):
    files[0].write_text("nonsense")
    files[0].chmod(0o600)
    with pytest.raises(IdentityError, match="Ed25519"):
        SigningKey.load(files[0])


def test_numbers_only_rise_whatever_the_clock_does(files):
    make("ops-1", "admin", *files)
    key = SigningKey.load(files[0])
    numbers = [key.next_seq(now) for now in (1000.0, 1000.0, 50.0, 2000.0)]
    assert numbers == [1_000_000, 1_000_001, 1_000_002, 2_000_000]
    assert SigningKey.load(files[0]).next_seq(0.0) == 2_000_001


def test_a_lost_number_file_does_no_harm_while_the_clock_is_right(files):
    make("ops-1", "admin", *files)
    key = SigningKey.load(files[0])
    last = key.next_seq(1000.0)
    files[0].with_suffix(".seq").unlink()
    assert key.next_seq(1000.5) > last
    files[0].with_suffix(".seq").write_text("nonsense")
    with pytest.raises(IdentityError, match="seq"):
        key.next_seq(1000.0)


def test_no_two_operators_get_the_same_number(files):
    make("ops-1", "admin", *files)
    code = (
        "import sys; from pathlib import Path; from gateway.fleet.keys import SigningKey\n"
        "key = SigningKey.load(Path(sys.argv[1]))\n"
        "print(*[key.next_seq(0.0) for _ in range(50)])"
    )

    def draw(_):
        return subprocess.run([sys.executable, "-c", code, files[0]], capture_output=True, text=True).stdout.split()

    with ThreadPoolExecutor(2) as pool:
        drawn = [number for numbers in pool.map(draw, range(2)) for number in numbers]
    assert len(set(drawn)) == 100
