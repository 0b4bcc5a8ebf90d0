"""The box's own signature, judged by OpenSSL."""

from __future__ import annotations

import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from gateway.identity.signing import signing_key
from gateway.model.errors import IdentityError


def verifies(tmp_path, public_pem: str, message: bytes, signature: bytes) -> bool:
    for name, content in (("key.pem", public_pem.encode()), ("message", message), ("signature", signature)):
        (tmp_path / name).write_bytes(content)
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", "key.pem", "-rawin", "-in", "message"]
    return subprocess.run([*command, "-sigfile", "signature"], cwd=tmp_path, capture_output=True).returncode == 0


def test_openssl_verifies_what_is_signed_and_nothing_else(tmp_path):
    key = signing_key(tmp_path / "identity" / "receipt.key")
    signature = key.sign(b"what was said")
    assert verifies(tmp_path, key.public_pem, b"what was said", signature)
    assert not verifies(tmp_path, key.public_pem, b"what was not said", signature)
    other = signing_key(tmp_path / "identity" / "other.key")
    assert not verifies(tmp_path, other.public_pem, b"what was said", signature)


def test_the_key_is_made_once_and_for_its_owner_alone(tmp_path):
    path = tmp_path / "identity" / "receipt.key"
    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(lambda _: signing_key(path).fingerprint, range(16)))
    assert len(set(keys)) == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [found.name for found in path.parent.iterdir()] == ["receipt.key"]


def test_the_fingerprint_is_that_of_the_public_key(tmp_path):
    key = signing_key(tmp_path / "identity" / "receipt.key")
    (tmp_path / "key.pem").write_text(key.public_pem)
    der = subprocess.run(
        ["openssl", "pkey", "-pubin", "-in", str(tmp_path / "key.pem"), "-outform", "DER"], capture_output=True
    ).stdout
    told = subprocess.run(["openssl", "sha256", "-r"], input=der, capture_output=True).stdout
    assert told.split()[0].decode() == key.fingerprint


@pytest.mark.parametrize("fault", ["others read it", "no key", "not Ed25519"])
def test_a_key_that_proves_nothing_is_refused(tmp_path, fault):
    path = tmp_path / "identity" / "receipt.key"
    signing_key(path)
    if fault == "others read it":
        path.chmod(0o640)
    elif fault == "no key":
        path.write_text("nothing")
    else:
        subprocess.run(["openssl", "genpkey", "-algorithm", "X25519", "-out", str(path)], check=True)
        path.chmod(0o600)
    with pytest.raises(IdentityError, match=r"receipt\.key"):
        signing_key(path)
