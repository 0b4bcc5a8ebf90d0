"""A box at an address, with a rig file as a lab would write it; here the box is a process, its plug two scripts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hil.rig import box_config, load

ROOT = Path(__file__).parents[2]
RIG = """name = "a bench made of processes"
fresh = true
[box]
commitment = true
patience_s = 60
log = ["cat", "{folder}/box/gateway.log"]
[archive]
listen = "127.0.0.1:{archive}"
box_sees = "127.0.0.1:{archive}"
[broker]
listen = "127.0.0.1:{mqtt}"
box_sees = "127.0.0.1:{mqtt}"
to = "127.0.0.1:{broker}"
options = [
    "--cafile", "{folder}/broker/ca.pem",
    "--cert", "{folder}/broker/monitor.pem", "--key", "{folder}/broker/monitor.key",
]
interval_s = 2
[power]
cut = ["{folder}/off"]
restore = ["{folder}/on"]
boot_s = 60
"""
ON = """#!/bin/sh
{python} -m gateway --config {folder}/box/gateway.toml run >>{folder}/box/gateway.log 2>&1 &
echo $! >{folder}/pid
"""
OFF = """#!/bin/sh
kill -KILL $(cat {folder}/pid)
"""


@pytest.fixture
def bench(tmp_path, port, broker, make_box):
    """The rig file, and the port of the box, which is on."""
    told = {"folder": tmp_path, "archive": port(), "mqtt": port(), "broker": broker.port, "python": sys.executable}
    (tmp_path / "rig.toml").write_text(RIG.format(**told))
    for name, text in (("on", ON), ("off", OFF)):
        (tmp_path / name).write_text(text.format(**told))
        (tmp_path / name).chmod(0o755)
    broker.as_user("monitor")
    tls = "tls = " + broker.table().partition("tls = ")[2]
    box = make_box(box_config(load(tmp_path / "rig.toml"), mqtt_tls=tls, retries="retry_first_s = 0.1"))
    subprocess.run([tmp_path / "on"], check=True, cwd=ROOT)
    yield tmp_path / "rig.toml", box.port
    subprocess.run([tmp_path / "off"], check=True)


@pytest.mark.timeout(300)
def test_a_bench_is_played_from_its_rig_file(bench, tmp_path):
    rig, port = bench
    cases = ("profile-sr", "power-cut", "health", "kill", "clock-jump")
    words = [word for name in cases for word in ("--case", name)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.hil", "--target", f"127.0.0.1:{port}", "--rig", rig, "--short", "--seed", "5",
         "--out", tmp_path / "out", *words],
        cwd=ROOT, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    told = {one["name"]: one["outcome"] for one in json.loads((tmp_path / "out/report.json").read_text())["cases"]}
    passed = {"profile-sr": "passed", "power-cut": "passed", "health": "passed"}
    assert told == {**passed, "kill": "not applicable", "clock-jump": "not applicable"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--target", "192.0.2.1:104"], "needs --rig FILE"),
        (["--rig", "/nowhere.toml"], "rig.example.toml"),
        (["--case", "nonsense"], "no case 'nonsense'"),
        (["--show-config"], "needs --rig FILE"),
    ],
)
def test_what_cannot_be_played_is_told_before_anything_starts(words, told):
    done = subprocess.run([sys.executable, "-m", "tests.hil", *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and told in done.stderr
