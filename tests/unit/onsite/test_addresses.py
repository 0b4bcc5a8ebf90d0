"""The addresses of the box, held against what `hostname -I` says, without a netlink socket."""

from __future__ import annotations

import subprocess
import sys

from gateway.onsite.addresses import addresses


def test_it_names_the_addresses_that_other_programs_name():
    said = subprocess.run(["hostname", "-I"], capture_output=True, text=True).stdout.split()
    assert set(addresses().values()) <= set(said)
    assert bool(addresses()) == any("." in address for address in said)


def test_it_takes_no_socket_that_the_units_deny(tmp_path):
    code = "from gateway.onsite.addresses import addresses; addresses()"
    trace = tmp_path / "trace"
    subprocess.run(["strace", "-f", "-o", trace, "-e", "trace=socket", sys.executable, "-c", code], check=True)
    assert "AF_INET" in trace.read_text()
    assert "AF_NETLINK" not in trace.read_text()
