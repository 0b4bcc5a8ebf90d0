"""Freed memory goes back to the system though something between it lives on, and is found again by every thread."""

import re
import subprocess
import sys

import pytest

from gateway import heap
from gateway.supervisor import Supervisor

SCATTERED = """
from gateway import heap
from tests.guard import resident_kb
import os
blocks = [bytearray(3000) for _ in range(20_000)]
kept = blocks[::50]
del blocks
before = resident_kb(os.getpid())
heap.give_back()
print(before - resident_kb(os.getpid()))
"""
BUSY = """
import ctypes, threading
from gateway.supervisor import Supervisor
Supervisor(print)
libc = ctypes.CDLL(None)
libc.fdopen.restype = ctypes.c_void_p
together = threading.Barrier(9)
def work():
    kept = [bytearray(3000) for _ in range(100)]
    together.wait()
    together.wait()
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads:
    thread.start()
together.wait()
del (first := [bytearray(4_000_000)])[:]
second = bytearray(4_000_000)
out = ctypes.c_void_p(libc.fdopen(1, b"w"))
libc.malloc_info(0, out)
third = bytearray(500_000)
libc.malloc_info(0, out)
del third
libc.malloc_info(0, out)
libc.fflush(None)
together.wait()
"""
needs_glibc = pytest.mark.skipif(not hasattr(heap._libc, "malloc_trim"), reason="this C library gives back by itself")


@needs_glibc
def test_threads_share_two_arenas_and_large_blocks_stay_mapped():
    done = subprocess.run([sys.executable, "-c", BUSY], capture_output=True, text=True, check=True, timeout=60)
    assert len(re.findall("<heap nr=", done.stdout)) == 3 * heap.ARENAS, "told three times"
    before, after, _ = map(int, re.findall(r'<total type="mmap" count="\d+" size="(\d+)"', done.stdout))
    assert before >= 4_000_000, "the first large block that was freed raised the limit"
    assert after == before, "a block of a transfer is mapped each time"
    *_, used, freed = re.findall(r'</heap>\n<total.*\n(?:<total.*\n)*<system type="current" size="(\d+)"', done.stdout)
    assert freed == used, "a block of a transfer is asked of the system each time"


def test_the_watch_gives_freed_memory_back(monkeypatch):
    supervisor = Supervisor(lambda word: None)
    monkeypatch.setattr("gateway.supervisor.PULSE_S", 0.01)
    monkeypatch.setattr("gateway.supervisor.HEAP_S", 0.0)
    monkeypatch.setattr(heap, "give_back", supervisor.end)
    supervisor.watch(lambda: "")  # ends by giving back


@needs_glibc
def test_what_was_freed_between_what_lives_on_is_given_back():
    done = subprocess.run([sys.executable, "-c", SCATTERED], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 20_000  # of 60 MB
