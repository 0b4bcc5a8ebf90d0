"""A process of ours that a test starts, asks to end, or kills."""

from __future__ import annotations

import signal
import subprocess


class Program:
    process: subprocess.Popen | None = None

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> int:
        """Ask it to end; return its exit code, -1 when it does not run."""
        if self.process is None or self.process.poll() is not None:
            return -1
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)
