"""The units give the gateway what it needs, and nothing else."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[2] / "systemd"
MOST_EXPOSURE = 15
"""In tenths: systemd's own scale goes from 0 (nothing is allowed) to 100."""

pytestmark = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")


def security(unit: Path) -> subprocess.CompletedProcess[str]:
    words = ["systemd-analyze", "security", "--offline=true", f"--threshold={MOST_EXPOSURE}", "--no-pager", str(unit)]
    return subprocess.run(words, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("name", ["dicom-gateway.service", "dicom-gateway-console@.service"])
def test_a_unit_that_faces_people_or_peers_is_confined(name: str) -> None:
    seen = security(UNITS / name)
    print(seen.stdout.strip().splitlines()[-1])
    assert seen.returncode == 0, seen.stdout[-3000:] + seen.stderr


def test_the_check_of_confinement_notices_an_open_unit(tmp_path: Path) -> None:
    text = (UNITS / "dicom-gateway.service").read_text().replace("ProtectSystem=strict\n", "").replace("User=", "#")
    (tmp_path / "dicom-gateway.service").write_text(text)
    assert security(tmp_path / "dicom-gateway.service").returncode != 0


def test_what_the_update_unit_mounts_is_seen_by_rauc() -> None:
    """systemd.exec(5): each of these gives a unit mounts of its own, which no other unit sees."""
    own = ("Private", "Protect", "ReadWritePaths", "ReadOnlyPaths", "Inaccessible", "Bind", "Root", "TemporaryFile")
    lines = (UNITS / "dicom-gateway-update.service").read_text().splitlines()
    assert [line for line in lines if line.startswith(own)] == []
