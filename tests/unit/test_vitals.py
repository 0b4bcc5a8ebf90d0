"""What the house says of itself."""

from __future__ import annotations

import hashlib
import subprocess
import sys

from gateway.vitals import sbom_digest


def test_the_digest_of_what_is_installed_is_that_of_what_pip_lists():
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "list", "--format=freeze", "--disable-pip-version-check"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    pairs = sorted(
        (name.lower().replace("_", "-").replace(".", "-"), version)
        for name, _, version in (w.partition("==") for w in listed)
    )
    text = "".join(f"{name}=={version}\n" for name, version in pairs)
    assert sbom_digest() == hashlib.sha256(text.encode()).hexdigest()
