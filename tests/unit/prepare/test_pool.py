"""A worker is confined, and what becomes of it is the affair of its own work alone. Work is given as an expression."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.model.errors import PrepareError
from gateway.model.transfer_syntax import EXPLICIT_LE, RLE_LOSSLESS
from gateway.prepare import confine
from gateway.prepare import pool as pool_module
from gateway.prepare.pool import WorkerLost, WorkerPool
from gateway.prepare.transcode import transcode

AT_ONCE = "__import__('signal').raise_signal(9)"
FOR_EVER = "[0 for _ in iter(int, 1)]"
PID = "__import__('os').getpid()"
OPEN = (
    "[(n, o.readlink(f'/proc/self/fd/{n}') + (' writing' if f.fcntl(n, f.F_GETFL) & 3 == o.O_WRONLY else '')) "
    "for o, f in [(__import__('os'), __import__('fcntl'))] for n in range(1024) if o.path.exists(f'/proc/self/fd/{n}')]"
)
"""The descriptors that a worker has."""
EXISTS = "lambda: __import__('os').path.exists({!r})"


@pytest.fixture
def pool():
    made = WorkerPool(2)
    yield made
    made.close()


@pytest.fixture
def exit_codes(monkeypatch):
    """The fork server may be late to tell them: then it would only be known that the worker ended."""
    monkeypatch.setattr(pool_module, "BEAT_S", 60.0)


def ask(pool, expression, cpu_s=30.0, deadline_s=60.0, beat=lambda: None):
    return pool.run(eval, expression, cpu_s=cpu_s, deadline_s=deadline_s, beat=beat)


def errno_of(call: str) -> str:
    """An expression: the errno that a C function of libc ends with, 0 if it did what it was asked."""
    return (
        f"(lambda c: (lambda libc: c.get_errno() if libc.{call} == -1 else 0)(c.CDLL(None, use_errno=True)))"
        "(__import__('ctypes'))"
    )


@pytest.mark.parametrize(
    "call",
    [
        "socket(2, 1, 0)",
        "socket(10, 2, 0)",
        "socket(1, 1, 0)",
        "connect(0, 0, 0)",
        "execve(b'/bin/true', 0, 0)",
        "ptrace(16, 1, 0, 0)",
        "syscall(425, 1, 0)",
        "syscall(438, 0, 0, 0)",
    ],
)
def test_network_and_other_programs_are_out_of_reach(pool, call):
    assert ask(pool, errno_of(call)) == 1  # EPERM


@pytest.mark.usefixtures("exit_codes")
def test_a_python_socket_cannot_be_opened_and_the_pool_goes_on(pool):
    with pytest.raises(WorkerLost, match="exit code 1"):
        ask(pool, "__import__('socket').create_connection(('127.0.0.1', 9))")
    assert pool.lost == 1
    assert ask(pool, "1 + 1") == 2


def test_a_worker_has_no_descriptor_but_its_own(pool):
    with open("/etc/hostname"), open("/dev/null"):  # what the gateway has open is not handed down
        opened = ask(pool, OPEN)
    assert [number for number, _ in opened][:3] == [0, 1, 2]
    assert sorted(target.split()[0].split(":")[0] for number, target in opened if number > 2) == ["pipe", "pipe"], (
        opened
    )


def test_limits_are_set_and_reception_comes_first(pool):
    limits = ask(
        pool,
        "[list(__import__('resource').getrlimit(n)) for n in map(__import__('resource').__dict__.get, "
        "('RLIMIT_AS', 'RLIMIT_FSIZE', 'RLIMIT_CORE'))]",
    )
    assert limits == [[1 << 30] * 2, [16 << 30] * 2, [0, 0]]
    assert ask(pool, "__import__('os').nice(0)") == min(19, os.nice(0) + confine.NICENESS)
    status = ask(pool, "open('/proc/self/status').read()")
    assert "NoNewPrivs:\t1" in status and "Seccomp:\t2" in status


def test_a_worker_that_allocates_too_much_is_lost(pool):
    with pytest.raises(WorkerLost):
        ask(pool, "len(bytearray(1 << 31))")
    assert ask(pool, "len(bytearray(1 << 27))") == 1 << 27


def test_a_file_cannot_grow_without_end(pool, tmp_path):
    with pytest.raises(WorkerLost):
        ask(pool, f"__import__('os').truncate({os.fspath(tmp_path / 'f')!r}, (16 << 30) + 1)")


@pytest.mark.timeout(300)  # a worker comes last in the queue for the processor
@pytest.mark.usefixtures("exit_codes")
def test_a_worker_that_burns_processor_time_is_ended(pool):
    with pytest.raises(WorkerLost, match=f"-{signal.SIGXCPU.value}"):
        ask(pool, FOR_EVER, cpu_s=1.0, deadline_s=250.0)
    assert ask(pool, "1") == 1


def test_processor_time_is_counted_for_each_piece_of_work(pool):
    now = "__import__('time').process_time()"
    piece = f"(lambda until: sum(0 for _ in iter(lambda: {now} < until, False)))({now} + 0.7)"
    pids = {ask(pool, f"({piece}, {PID})[1]", cpu_s=1.0) for _ in range(4)}
    assert len(pids) == 1, "one worker did 2.8 s of work, in pieces of less than its second"


def test_a_worker_that_sleeps_past_its_deadline_is_ended(pool):
    pid = ask(pool, PID)
    with pytest.raises(WorkerLost, match="no answer"):
        ask(pool, "__import__('time').sleep(100)", deadline_s=0.5)
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.usefixtures("exit_codes")
def test_the_work_beside_a_killed_worker_is_done(pool):
    with ThreadPoolExecutor(2) as threads:
        beside = threads.submit(ask, pool, f"(__import__('time').sleep(2), {PID})[1]")
        time.sleep(0.5)
        for _ in range(3):
            with pytest.raises(WorkerLost, match="-9"):
                ask(pool, AT_ONCE)
        assert beside.result() > 0
    assert pool.lost == 3


def test_a_worker_that_died_with_nothing_to_do_costs_no_work(pool, wait_until):
    os.kill(ask(pool, PID), signal.SIGKILL)
    assert wait_until(lambda: not pool._idle[0].alive)
    assert ask(pool, "1") == 1
    assert pool.lost == 1


def ended(pid: int) -> bool:
    """Whether a process is over, be it that its parent has not heard of it yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_the_fork_server_may_die_too(pool, wait_until):
    ask(pool, "1")
    (server,) = {ask(pool, "__import__('os').getppid()")}
    os.kill(server, signal.SIGKILL)
    assert wait_until(lambda: ended(server))
    assert ask(pool, "1") == 1


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ("b'x' * 60_000 + b'x' * 60_000", "no end"),
        ("b'no json\\n'", "cannot be understood"),
        ("b'[' * 60_000 + b'\\n'", "cannot be understood"),
        ("b'[]\\n'", "is none"),
        ("b'{\"made\": 1'", "no answer"),
    ],
)
def test_nonsense_from_a_worker_is_no_answer(pool, said, fault):
    pipe = next(number for number, target in ask(pool, OPEN) if number > 2 and target.endswith("writing"))
    deadline_s = 2.0 if fault == "no answer" else 60.0
    with pytest.raises(WorkerLost, match=fault):
        ask(pool, f"(__import__('os').write({pipe}, {said}), __import__('time').sleep(60))", deadline_s=deadline_s)
    assert ask(pool, "1") == 1


def test_a_refusal_is_no_loss(pool, tmp_path):
    pid, nothing = ask(pool, PID), tmp_path / "nothing"
    nothing.touch()
    with pytest.raises(PrepareError, match="no Pixel Data"):
        pool.run(transcode, nothing, 0, EXPLICIT_LE, RLE_LOSSLESS, tmp_path / "out", cpu_s=30.0, deadline_s=100.0)
    assert ask(pool, PID) == pid and pool.lost == 0


def test_who_waits_is_seen_to_live(pool, tmp_path):
    ask(pool, "1")
    beats, enough = [], tmp_path / "enough"

    def beat() -> None:
        beats.append(1)
        if len(beats) >= 3:
            enough.touch()

    wait = f"[t.sleep(0.05) for t in [__import__('time')] for _ in iter({EXISTS.format(os.fspath(enough))}, True)]"
    ask(pool, wait, deadline_s=20 * pool_module.BEAT_S, beat=beat)
    assert len(beats) >= 3


def test_no_more_work_at_a_time_than_places():
    pool = WorkerPool(1)
    beats = []
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(ask, pool, f"(__import__('time').sleep(1.5), {PID})[1]")
        time.sleep(0.3)
        second = threads.submit(ask, pool, PID, beat=lambda: beats.append(1))
        assert first.result() == second.result()
    assert beats
    pool.close()


def test_workers_end_with_a_gateway_that_is_killed(tmp_path, wait_until):
    """Even in the middle of work: nobody is left to read the answer, or to count the processor time."""
    code = (
        "import threading, time\n"
        "from gateway.prepare.pool import WorkerPool\n"
        "if __name__ == '__main__':\n"
        "    pool = WorkerPool(1)\n"
        f"    print(pool.run(eval, {PID!r}, cpu_s=60, deadline_s=60), flush=True)\n"
        "    pool.run(eval, \"__import__('time').sleep(300)\", cpu_s=60, deadline_s=300)\n"
    )
    script = tmp_path / "parent.py"
    script.write_text(code)
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    worker = int(parent.stdout.readline())
    time.sleep(0.5)
    parent.kill()
    parent.wait()
    assert wait_until(lambda: not Path(f"/proc/{worker}").exists())


def test_a_kernel_without_filters_is_told_of_and_the_work_goes_on(monkeypatch, caplog):
    monkeypatch.setattr(pool_module._Worker, "ask", _unconfined(pool_module._Worker.ask))
    pool = WorkerPool(1)
    assert ask(pool, "1") == 1
    with pytest.raises(WorkerLost):
        ask(pool, AT_ONCE)
    assert ask(pool, "1") == 1
    assert sum("worker_unconfined" in record.message for record in caplog.records) == 1
    pool.close()


def _unconfined(honest):
    def ask(self, piece, deadline_s, beat):
        answer = honest(self, piece, deadline_s, beat)
        return {"unconfined": "no system call filter"} if piece is None else answer

    return ask


@pytest.mark.parametrize("machine", ["riscv64", "armv7l"])
def test_an_unknown_machine_is_not_filtered_by_wrong_numbers(monkeypatch, machine):
    monkeypatch.setattr(confine.platform, "machine", lambda: machine)
    assert machine in confine._filter_calls(None)


def filtered(machine, architecture, number) -> bool:
    """Run the filter as the kernel does: true when the call is denied."""
    program = confine._program(machine)
    steps = [struct.unpack_from("@HBBI", program, at) for at in range(0, len(program), 8)]
    at, word = 0, 0
    while True:
        code, then, otherwise, value = steps[at]
        at += 1
        if code == 0x20:
            word = {0: number, 4: architecture}[value]
        elif code == 0x06:
            return value != 0x7FFF0000
        else:
            at += then if (word >= value if code == 0x35 else word == value) else otherwise


@pytest.mark.parametrize("name", ["x86_64", "aarch64"])
def test_the_filter_denies_what_it_names_and_nothing_else(name):
    """The kernel runs it only for the machine that the test is on."""
    machine = confine._MACHINES[name]
    denied = {number for number in range(600) if filtered(machine, machine.architecture, number)}
    assert denied == set(machine.denied.values())
    assert filtered(machine, machine.architecture, 0x40000029)
    assert filtered(machine, 0x40000003, 3)
