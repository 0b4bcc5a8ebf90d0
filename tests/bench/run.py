"""Everything that is measured, side by side with peers, in one run. `make bench`.

`--quick` for a smaller one; names of parts to run these alone. `BENCH_DIR` says where the work is done: put it on the
disk that is meant. Ours keeps its full promise (flushes, ledger); the peers do not flush. Only ratios travel.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from compression import codecs, lines
from fleet import fleet
from health import health
from latency import echo_beside_load, response_time
from reception import big, reception, tls, while_forwarding
from resources import forwarding, idle, memory, recovery

RECEPTION = (reception, tls, big, while_forwarding, response_time, echo_beside_load, idle, memory)
DELIVERY = (forwarding, recovery, codecs, lines)
HEALTH = (health, fleet)
PARTS = RECEPTION + DELIVERY + HEALTH


def main() -> None:
    quick = "--quick" in sys.argv
    wanted = [name for name in sys.argv[1:] if not name.startswith("-")]
    with tempfile.TemporaryDirectory(prefix="gateway-bench-", dir=os.environ.get("BENCH_DIR")) as name:
        for part in PARTS:
            if not wanted or part.__name__ in wanted:
                work = Path(name) / part.__name__
                work.mkdir()
                part(work, quick)


if __name__ == "__main__":
    main()
