"""The service as systemd sees it: ready, alive, reloaded, stopped; and one process per spool."""

from __future__ import annotations

import socket
import subprocess
import sys
import time

import pytest

from gateway.model.errors import SpoolError
from gateway.supervisor import RESTARTS, Supervisor


def test_systemd_hears_ready_watchdog_status_and_stopping(make_box, tmp_path):
    place = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(place))
        systemd.settimeout(10)
        box = make_box().start(env={"NOTIFY_SOCKET": str(place)})
        heard = systemd.recv(4096)
        while b"WATCHDOG=1" not in heard:
            heard += systemd.recv(4096)
        assert b"READY=1" in heard
        assert b"STATUS=" in heard
        assert box.stop() == 0
        while b"STOPPING=1" not in heard:
            heard += systemd.recv(4096)


def test_two_services_never_share_a_spool(make_box):
    box = make_box().start()
    second = subprocess.run(
        [sys.executable, "-m", "gateway", "--config", str(box.config), "run"], capture_output=True, text=True
    )
    assert second.returncode == 75
    assert "another process" in second.stderr


def test_a_port_in_use_is_told_with_the_fix(make_box):
    with socket.create_server(("127.0.0.1", 0)) as other:
        box = make_box()
        box.config.write_text(box.config.read_text().replace(f"port = {box.port}", f"port = {other.getsockname()[1]}"))
        run = subprocess.run(
            [sys.executable, "-m", "gateway", "--config", str(box.config), "run"], capture_output=True, text=True
        )
    assert run.returncode == 78
    assert "another program" in run.stderr


def test_a_room_that_breaks_is_started_again_until_its_budget_is_spent():
    supervisor = Supervisor(lambda _: None)
    lives = []

    def breaks(stop, beat):
        lives.append(time.monotonic())
        raise ValueError("a bug")

    supervisor.room("bug", breaks)
    supervisor.watch(lambda: "")
    assert len(lives) == RESTARTS + 1
    assert supervisor.exit_code == 1


def test_a_room_that_is_not_vital_may_break_without_end(monkeypatch):
    monkeypatch.setattr("gateway.supervisor.REST_S", 0.01)
    supervisor, lives = Supervisor(lambda _: None), []

    def breaks(stop, beat):
        lives.append(1)
        if len(lives) > 3 * RESTARTS:
            supervisor.end()
        raise SpoolError("nobody cares")

    supervisor.room("health", breaks, vital=False)
    supervisor.watch(lambda: "")
    assert len(lives) > 3 * RESTARTS
    assert supervisor.exit_code == 0


def test_a_storage_fault_ends_the_process_with_75_at_once():
    supervisor = Supervisor(lambda _: None)

    def breaks(stop, beat):
        raise SpoolError("the disk is gone")

    supervisor.room("spool", breaks)
    supervisor.watch(lambda: "")
    assert supervisor.exit_code == 75


def test_rooms_end_when_they_are_told_to():
    supervisor = Supervisor(lambda _: None)
    supervisor.room("a", lambda stop, beat: stop.wait(30))
    assert supervisor.finish("a", 5)


@pytest.mark.parametrize("command", [["status"], ["queue", "list"], ["queue", "hold", "--all"]])
def test_commands_say_69_when_nobody_runs_and_nothing_is_here(tmp_path, command):
    config = tmp_path / "g.toml"
    config.write_text('[gateway]\ndata_dir = "data"\n')
    run = subprocess.run(
        [sys.executable, "-m", "gateway", "--config", str(config), *command], capture_output=True, text=True
    )
    assert run.returncode == 69
    assert "hint" in run.stderr


def test_init_writes_what_check_finds_good(tmp_path):
    base = [sys.executable, "-m", "gateway", "--config", str(tmp_path / "g.toml")]
    made = subprocess.run([*base, "init", "--archive", "PACS@pacs.example.org:104"], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    assert subprocess.run([*base, "config", "check"]).returncode == 0
    assert subprocess.run([*base, "init"], capture_output=True).returncode == 78


def test_every_problem_of_a_file_is_reported_at_once_with_its_line(tmp_path):
    config = tmp_path / "g.toml"
    config.write_text(
        '[gateway]\nae_titel = "X"\nid = "Not Good"\n[[destination]]\nname = "p"\nkind = "dimse"\nhost = "h"\n'
        'port = 0\nae_title = "P"\n[[route]]\nto = ["nowhere"]\n'
    )
    run = subprocess.run(
        [sys.executable, "-m", "gateway", "--config", str(config), "config", "check"], capture_output=True, text=True
    )
    assert run.returncode == 78
    for line in (":2: gateway.ae_titel", ":3: gateway.id", ":8: destination[0].port", ":11: route[0].to"):
        assert line in run.stdout, run.stdout
    assert "ae_title" in run.stdout


def test_the_demo_proves_itself():
    run = subprocess.run(
        [sys.executable, "-m", "gateway", "demo", "--studies", "2", "--images", "6", "--json"],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert '"complete": true' in run.stdout
