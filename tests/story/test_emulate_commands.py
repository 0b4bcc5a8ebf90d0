"""`emulate` on the command line: a RIS, an archive and a scanner, each its own process, and what they print."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest
from click.testing import CliRunner

from gateway.cli.emulate_cmd import emulate as emulate_group

EMULATE = (sys.executable, "-m", "gateway", "emulate")


class Served:
    """A command that serves until it is told to stop; what it said at first, and at last."""

    def __init__(self, *words: str, lines: int) -> None:
        self.process = subprocess.Popen([*EMULATE, *words], stdout=subprocess.PIPE, text=True)
        self.said = [self.process.stdout.readline().strip() for _ in range(lines)]

    @property
    def port(self) -> str:
        return self.said[0].rpartition(" ")[2]

    def stop(self) -> tuple[int, str]:
        self.process.send_signal(signal.SIGTERM)
        rest, _ = self.process.communicate(timeout=20)
        return self.process.returncode, rest.strip()


def emulate(*words: str, code: int = 0) -> str:
    told = subprocess.run([*EMULATE, *words], capture_output=True, text=True, timeout=60)
    assert told.returncode == code, told.stdout + told.stderr
    return told.stdout + told.stderr


def test_a_scanner_asks_stores_and_is_promised(tmp_path):
    ris = Served("ris", "--patients", "2", "--scanner", "cr", "--log", str(tmp_path / "steps"), lines=1)
    archive = Served(
        "pacs", "--http-port", "0", "--rule", "do=busy count=1", "--folder", str(tmp_path / "kept"), lines=2
    )
    try:
        to, ris_at = f"127.0.0.1:{archive.port}", f"RIS@127.0.0.1:{ris.port}"
        text = emulate(
            *("modality", "cr", "--to", to, "-aec", "PACS", "--worklist", ris_at, "--mpps", ris_at, "--commit", to),
            *("--quirk", "Q20", "--quirk", "Q13.piece=5000", "--studies", "2", "--images", "1", "--side", "64"),
            *("--pace", "0", "--rounds", "3", "--json", "--log", str(tmp_path / "sent")),
        )
    finally:
        (_, told_ris), (_, told_archive) = ris.stop(), archive.stop()
    *sent, total = [json.loads(line) for line in text.splitlines()]
    assert total["complete"] and total["from_worklist"] == 2 and total["steps"] == ["COMPLETED", "COMPLETED"]
    assert total["commitment"] == {"asked": 2, "kept": 2, "failed": 0}
    assert [one["status"] for one in sent] == [0xA700, 0, 0]
    assert "STOW-RS at http://127.0.0.1:" in archive.said[1] and told_archive == "3 instances received"
    assert told_ris.endswith("2 procedure steps") and len((tmp_path / "steps").read_text().splitlines()) == 4
    logged = {json.loads(line)["sha256"] for line in (tmp_path / "sent").read_text().splitlines()}
    assert logged == {one["sha256"] for one in sent if one["status"] == 0}
    assert len(list((tmp_path / "kept").iterdir())) == 2


def within(*words: str, code: int = 0) -> str:
    """What needs no process of its own."""
    told = CliRunner().invoke(emulate_group, words)
    assert told.exit_code == code, told.output
    return told.output


def test_profiles_and_quirks_are_described_for_people_and_machines():
    told = json.loads(within("modality", "--list", "--json"))
    assert told["profiles"]["ct"]["network"]["association"] == "series"
    assert told["quirks"]["Q13"]["sets"]["network"] == {"max_pdu": 0, "piece": 200000}
    text = within("modality", "--list")
    assert all(word in text for word in ("mr-enhanced", "Q30", "same-uid", "pynetdicom#646"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("modality",), "which PROFILE?"),
        (("modality", "nosuch", "--to", "h:1"), "no profile 'nosuch'"),
        (("modality", "ct"), "either --to or --folder"),
        (("modality", "ct", "--to", "h:1", "--quirk", "Q1="), "--quirk takes NAME"),
        (("modality", "ct", "--to", "h"), "--to takes HOST:PORT"),
        (("pacs", "--rule", "do=nosuch"), "rule 'do=nosuch'"),
        (("clinic", "nosuch"), "no scenario 'nosuch'"),
    ],
)
def test_what_was_said_wrong_is_said(words, said):
    assert said in within(*words, code=2)


def test_a_scanner_that_reaches_nobody_says_why(port):
    text = emulate("modality", "pdf", "--to", f"127.0.0.1:{port()}", "--pace", "0", code=1)
    assert "0 of 1 acknowledged" in text and "1 times: no connection" in text
