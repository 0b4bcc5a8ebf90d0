"""A disk is measured, suspected where it can be, worn in, and caught when it breaks its word."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from dataclasses import replace

import pytest
from click.testing import CliRunner

from gateway.cli import bench_cmd, cli
from gateway.onsite import burn_in
from gateway.onsite.burn_in import BLOCK, Device, Flushes, kept, measure, promise, suspicions

HONEST = Flushes(0.002, 0.005, 0.02, 0.0001, 200e6)
DRIVE = Device("sda", "ext4", "Fine Drive", "write back", False)


@pytest.mark.parametrize(
    ("flushes", "device", "words"),
    [
        (replace(HONEST, median_s=5e-6), DRIVE, "met no device"),
        (replace(HONEST, median_s=2e-4), replace(DRIVE, rotational=True), "less than the disk needs to turn"),
        (replace(HONEST, large_bytes_per_s=40e9), DRIVE, "no drive writes so fast"),
        (HONEST, replace(DRIVE, file_system="tmpfs"), "tmpfs"),
    ],
)
def test_a_disk_that_cannot_have_written_is_suspected(flushes, device, words):
    (found,) = suspicions(flushes, device)
    assert words in found


def test_an_honest_disk_is_not_suspected():
    assert list(suspicions(HONEST, DRIVE)) == []


def test_measuring_leaves_nothing_behind(tmp_path):
    found = measure(tmp_path, 20)
    assert 0 < found.median_s <= found.longest_s
    assert list(tmp_path.iterdir()) == []


def test_what_the_kernel_says_of_a_disk(tmp_path):
    number = tmp_path.stat().st_dev
    major_minor = f"{os.major(number)}:{os.minor(number)}"
    disk = tmp_path / "sys/devices/nvme0n1"
    (disk / "part/x").mkdir(parents=True)
    (disk / "queue").mkdir()
    (disk / "device").mkdir()
    (disk / "queue/rotational").write_text("0\n")
    (disk / "queue/write_cache").write_text("write back\n")
    (disk / "device/model").write_text("Drive 1\n")
    (tmp_path / "sys/dev/block").mkdir(parents=True)
    (tmp_path / "sys/dev/block" / major_minor).symlink_to(disk / "part")
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/mountinfo").write_text(f"1 0 {major_minor} / / rw,noatime shared:1 - ext4 /dev/x rw\n")
    assert burn_in.device_of(tmp_path, tmp_path) == Device("nvme0n1", "ext4", "Drive 1", "write back", False)


def test_a_disk_that_gives_back_what_was_written_is_good(tmp_path):
    seen = burn_in.burn_in(tmp_path, 4 * BLOCK, 0.0, lambda seen: None)
    assert (seen.written_bytes, seen.read_bytes, seen.wrong_blocks, seen.faults) == (4 * BLOCK, 4 * BLOCK, 0, 0)
    assert list(tmp_path.iterdir()) == []
    assert bench_cmd.judged(seen)[0]


def test_a_bit_that_flips_and_a_read_that_fails_are_found(tmp_path, monkeypatch):
    read = os.pread

    def rotten(fd, length, at):
        if at == 2 * BLOCK:
            raise OSError(errno.EIO, "I/O error")
        found = bytearray(read(fd, length, at))
        found[99] ^= at == BLOCK
        return bytes(found)

    monkeypatch.setattr(os, "pread", rotten)
    seen = burn_in.burn_in(tmp_path, 4 * BLOCK, 0.0, lambda seen: None)
    assert (seen.wrong_blocks, seen.faults, seen.first_wrong) == (1, 1, "block 1 of pass 0")
    assert not bench_cmd.judged(seen)[0]


def test_a_drive_that_swaps_two_blocks_is_found(tmp_path, monkeypatch):
    read = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, length, at: read(fd, length, {0: BLOCK, BLOCK: 0}.get(at, at)))
    assert burn_in.burn_in(tmp_path, 3 * BLOCK, 0.0, lambda seen: None).wrong_blocks == 2


def test_what_was_promised_is_counted_and_a_hole_in_it_is_seen(tmp_path):
    path, told = tmp_path / "p", []
    promise(path, told.append, 20)
    assert told[-1] == kept(path) == 20
    with open(path, "r+b") as file:
        file.seek(12 * burn_in.RECORD_BYTES + 7)
        file.write(b"\0")
    assert kept(path) == 12


def test_each_number_is_told_only_after_its_flush(tmp_path):
    """As another program sees it: no number is printed before the fdatasync that keeps it."""
    code = "import os, sys; from pathlib import Path; from gateway.onsite.burn_in import promise; "
    code += "promise(Path(sys.argv[1]), lambda number: os.write(1, b'.'), 5)"
    trace = tmp_path / "trace"
    calls = "trace=write,pwrite64,fdatasync"
    words = ["strace", "-f", "-o", str(trace), "-e", calls, sys.executable, "-c", code, str(tmp_path / "p")]
    subprocess.run(words, check=True, capture_output=True)
    calls = [line.split()[1].split("(")[0] for line in trace.read_text().splitlines() if "(" in line]
    assert "".join({"pwrite64": "p", "fdatasync": "f", "write": "w"}[call] for call in calls).endswith("pfw" * 5)


def test_doctor_says_it_in_lines_and_by_exit_code(tmp_path):
    config = tmp_path / "gateway.toml"
    config.write_text('[gateway]\ndata_dir = "data"\n[spool]\nreserve_bytes = 0\n')
    (tmp_path / "data").mkdir()
    promise(tmp_path / "data/.plug-test", lambda number: None, 9)
    words = ["--config", str(config), "doctor"]
    outcome = CliRunner().invoke(cli, [*words, "--plug-last", "9"])
    assert outcome.exit_code == 0, outcome.output
    assert "keeps its word" in outcome.output
    promise(tmp_path / "data/.plug-test", lambda number: None, 9)
    outcome = CliRunner().invoke(cli, [*words, "--plug-last", "10"])
    assert outcome.exit_code == 1
    assert "THE DRIVE LIES" in outcome.output
    outcome = CliRunner().invoke(cli, [*words, "--bench", "0"])
    assert "flush of 4 KiB: median" in outcome.output
