"""The unit by which central IT runs the monitor may do next to nothing, and starts what there is."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from gateway.fleet.settings import StoreSettings

UNIT = Path(__file__).parents[3] / "gateway/fleet/examples/dicom-gateway-fleet.service"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_the_unit_is_one_and_confined(tmp_path):
    words = ["systemd-analyze", "security", "--offline=true", "--threshold=15", "--no-pager", str(UNIT)]
    judged = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert judged.returncode == 0, judged.stdout[-2000:] + judged.stderr
    (tmp_path / UNIT.name).write_text(UNIT.read_text().replace("/usr/bin/dicom-gateway", "/bin/true"))
    words = ["systemd-analyze", "verify", "--man=no", str(tmp_path / UNIT.name)]
    read = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert UNIT.name not in read.stderr, read.stderr


def test_the_database_is_where_the_unit_lets_it_be():
    assert f"StateDirectory={StoreSettings().path.parent.name}\n" in UNIT.read_text()
