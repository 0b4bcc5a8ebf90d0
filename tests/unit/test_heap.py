"""Freed memory goes back to the system though something between it lives on."""

import subprocess
import sys

import pytest

from gateway import heap

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


@pytest.mark.skipif(not hasattr(heap._libc, "malloc_trim"), reason="this C library gives back by itself")
def test_what_was_freed_between_what_lives_on_is_given_back():
    done = subprocess.run([sys.executable, "-c", SCATTERED], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 20_000  # of 60 MB
