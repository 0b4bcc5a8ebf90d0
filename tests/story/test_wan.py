"""A bad line between real peers: DCMTK stores over it, and the command says what it carried."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys

import pytest

from gateway.emulator.line import Line
from gateway.emulator.wan import Wan


def dcmtk(command: str, wan_port: int, *more: str) -> int:
    return subprocess.run(
        [command, *more[:-1], "-aec", "ANY", "127.0.0.1", str(wan_port), *more[-1:]], capture_output=True, timeout=60
    ).returncode


def test_dcmtk_echoes_and_stores_over_a_far_slow_wandering_line(make_archive, ct_files, digest_of, tmp_path):
    archive = make_archive().start()
    with Wan(Line(round_trip_ms=20, rate_mbit_s=50, jitter_ms=10), ("127.0.0.1", archive.port)) as wan:
        assert dcmtk("echoscu", wan.port) == 0
        assert dcmtk("storescu", wan.port, "+sd", str(ct_files[0].parent)) == 0
    assert archive.digests() == {digest_of(path) for path in ct_files}


def test_dcmtk_sees_a_cut_as_a_failure_and_stores_when_the_line_is_good_again(make_archive, ct_files, digest_of):
    archive = make_archive().start()
    with Wan(Line(cut_after_bytes=300_000), ("127.0.0.1", archive.port)) as wan:
        assert dcmtk("storescu", wan.port, str(ct_files[0])) != 0
        wan.set_line(Line())
        assert dcmtk("storescu", wan.port, str(ct_files[0])) == 0
    assert digest_of(ct_files[0]) in archive.digests()


def command(*options: str, far_port: int) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "gateway", "emulate", "wan", "--to", f"127.0.0.1:{far_port}", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def silent_side():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_carries_until_it_is_told_to_stop_and_then_says_what_it_carried(number, silent_side):
    with command("--rtt-ms", "10", "--mbit", "50", "--cut-after-bytes", "9", far_port=silent_side) as process:
        port = int(process.stdout.readline().removeprefix("listening on "))
        with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
            sock.sendall(b"more than nine bytes")
            with pytest.raises(ConnectionResetError):
                sock.recv(1)
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    told = json.loads(out)
    assert (told["connections"], told["cuts"], told["bytes_up"], told["bytes_down"]) == (1, 1, 9, 0)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--mbit", "0"), "rate_mbit_s must be more than 0"),
        (("--refuse", "--black-hole"), "either refuses or swallows"),
        (("--address", "192.0.2.1"), "cannot listen"),
    ],
)
def test_the_command_says_why_a_line_cannot_be(options, reason, silent_side):
    with command(*options, far_port=silent_side) as process:
        _, err = process.communicate(timeout=20)
    assert process.returncode == 2
    assert reason in err
