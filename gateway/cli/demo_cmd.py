"""`dicom-gateway demo`: scanner, gateway and archive on this machine, and the proof that all arrived."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import click

from gateway.cli.context import echo_table, print_json
from gateway.control import ask
from gateway.emulator.modality import Modality
from gateway.emulator.oracle import prove
from gateway.emulator.pacs import Pacs
from gateway.emulator.sender import Sent
from gateway.emulator.study import ct_study
from gateway.model.errors import GatewayError, NotRunning

PATIENCE_S = 120.0

CONFIG = """\
[gateway]
id = "demo"
data_dir = "data"
control_socket = "control.sock"

[[listener]]
address = "127.0.0.1"
port = {port}

[spool]
reserve_bytes = 0
high_water_percent = 100

[[destination]]
name = "archive"
kind = "dimse"
compression = "off"
host = "127.0.0.1"
port = {archive}
ae_title = "PACS"
retry_first_s = 0.2
retry_ceiling_s = 1.0
"""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@click.command()
@click.option("--studies", default=3, show_default=True)
@click.option("--images", default=20, show_default=True, help="Images per study.")
@click.option("--json", "as_json", is_flag=True, help="Print the proof as JSON.")
@click.pass_context
def demo(ctx: click.Context, studies: int, images: int, as_json: bool) -> None:
    """Let studies walk from an emulated CT to an archive that goes away half-way; exit 0 only if all arrived."""
    with tempfile.TemporaryDirectory(prefix="dicom-gateway-demo-") as name:
        proof = _Demo(Path(name), studies, images, quiet=as_json).run()
    if as_json:
        print_json(proof)
    else:
        _print(proof)
    if not proof["complete"]:
        ctx.exit(1)


def _print(proof: dict[str, object]) -> None:
    rows = proof["studies"]
    assert isinstance(rows, list)
    echo_table(
        [
            [
                str(i + 1),
                *(str(row[key]) for key in ("sent", "acknowledged", "delivered", "verified")),
                f"{row['seconds']:.2f}",
            ]
            for i, row in enumerate(rows)
        ],
        ["study", "sent", "acknowledged", "delivered", "verified", "seconds"],
    )
    if proof["complete"]:
        click.echo("✔ every object arrived, byte for byte, though the archive went away half-way")
    else:
        click.echo("✖ not every object arrived: see the table")


class _Demo:
    """One run, in a folder that is thrown away."""

    def __init__(self, folder: Path, studies: int, images: int, *, quiet: bool) -> None:
        self._folder = folder
        self._studies = studies
        self._images = images
        self._total = studies * images
        self._live = sys.stderr.isatty() and not quiet
        self._quiet = quiet
        self._acknowledged = 0
        self._archive = Pacs()

    def _say(self, text: str) -> None:
        if not self._quiet:
            click.echo(f"\r\x1b[K{text}" if self._live else text, err=self._live)

    def _tell(self) -> None:
        if self._live:
            done = f"acknowledged {self._acknowledged:4}   delivered {len(self._archive.received):4}   of {self._total}"
            click.echo(f"\r\x1b[K{done}", nl=False, err=True)

    def run(self) -> dict[str, object]:
        """Run it all and return the proof."""
        self._archive.start()
        port = _free_port()
        config = self._folder / "gateway.toml"
        config.write_text(CONFIG.format(port=port, archive=self._archive.port))
        with open(self._folder / "gateway.log", "wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "gateway", "--config", str(config), "run"], stdout=log, stderr=log
            )
        try:
            self._await_start(process)
            self._say(f"gateway on port {port}, archive on port {self._archive.port}")
            sent = self._send(port)
            self._await_delivery()
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(15)
            self._archive.stop()
        studies = prove(sent, self._archive.received)
        return {
            "complete": len(studies) == self._studies and all(study.complete for study in studies),
            "studies": [
                {
                    "sent": study.sent,
                    "acknowledged": study.acknowledged,
                    "delivered": study.delivered,
                    "verified": study.verified,
                    "seconds": round(study.seconds, 3),
                }
                for study in studies
            ],
        }

    def _await_start(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and process.poll() is None:
            try:
                ask(self._folder / "control.sock", {"do": "status"})
                return
            except NotRunning:
                time.sleep(0.1)
        raise GatewayError("the gateway did not start:\n" + (self._folder / "gateway.log").read_text()[-2000:])

    def _send(self, port: int) -> list[Sent]:
        """Send every study; the archive goes away when a third has been acknowledged, and comes back later."""
        modality = Modality("127.0.0.1", port, "EDGEGW", "CT1", None)
        away = threading.Event()

        def told(_: Sent) -> None:
            self._acknowledged += 1
            if self._acknowledged >= self._total // 3 and not away.is_set():
                away.set()
                self._archive.stop()
                self._say("the archive goes away; the scanner does not notice")
            self._tell()

        sent: list[Sent] = []
        for study in range(self._studies):
            sent += modality.send(ct_study(study + 1, self._images), told)
            self._say(f"study {study + 1}: {sum(one.acknowledged for one in sent)} objects in custody so far")
        if away.is_set():
            waiting = self._total - len({one.sop_instance_uid for one in self._archive.received})
            self._say(f"the archive comes back; {waiting} objects waited for it")
            self._archive.start()
        return sent

    def _await_delivery(self) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            self._tell()
            status = ask(self._folder / "control.sock", {"do": "status"})
            if status["held"] == 0:
                break
            time.sleep(0.1)
        if self._live:
            click.echo("", err=True)
