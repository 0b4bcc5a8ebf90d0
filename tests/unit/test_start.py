"""What a start of the service imports: each library costs a small machine time and memory, every time."""

from __future__ import annotations

import subprocess
import sys

WANTED_BY = {
    "jsonschema": "a command",
    "urllib3": "an archive on the web",
    "watchdog": "a drop folder",
    "prometheus_client": "a collector of metrics",
    "pynetdicom": "an emulated modality",
    "pydicom": "a compressed object",
    "numpy": "a compressed object",
}


def test_a_start_does_not_wait_for_what_only_some_boxes_need():
    words = "import sys, gateway.cli.run_cmd, gateway.app; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True, timeout=60)
    assert "gateway.app" in done.stdout.split()
    assert not WANTED_BY.keys() & set(done.stdout.split())
