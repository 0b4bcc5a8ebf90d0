"""An emulated archive: stores what it gets byte for byte, writes down its SHA-256, commits, and misbehaves by rule."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Literal, TextIO

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset

from gateway.emulator import pdu
from gateway.emulator.acceptor import Acceptor, Gone, Line
from gateway.emulator.link import Link, Over
from gateway.emulator.pdu import Context, Message
from gateway.emulator.profile import IMPLICIT, Network
from gateway.emulator.rules import STATUS, Rule, Rules
from gateway.emulator.services import COMMITMENT, COMMITMENT_INSTANCE
from gateway.emulator.shelf import Received, Shelf, received

C_ECHO = 0x0030
MAX_PDU = 131072
REJECTED = bytes((0, 2, 3, 1))
"""A-ASSOCIATE-RJ: transient, by the provider, temporary congestion (PS3.8 9.3.4)."""
PROCESSING_FAILURE, NO_SUCH_INSTANCE = 0x0110, 0x0112


@dataclass(frozen=True, slots=True)
class Commits:
    """How the archive commits to what it has."""

    report: Literal["same", "new", "later", "never"] = "same"
    """On the association of the request, on one that it opens, on the next that the peer opens, or not at all."""
    after_s: float = 0.0
    port: int = 104
    """Where the peer listens, for `new`."""
    fail_every: int = 0
    """Says of every so many-th instance that it does not have it; 0 means of none."""


@dataclass(slots=True)
class _Association:
    line: Line
    calling: str
    called: str
    syntaxes: dict[int, tuple[str, str]] = field(default_factory=dict)
    """Context -> SOP class, Transfer Syntax."""
    message_id: int = 0


class Pacs:
    """A C-STORE SCP on one port, which can go away and come back."""

    def __init__(
        self,
        port: int = 0,
        *,
        ae_title: str = "PACS",
        address: str = "127.0.0.1",
        folder: Path | None = None,
        log: TextIO | None = None,
        delay_s: float = 0.0,
        busy_for_first: int = 0,
        rules: Sequence[Rule] = (),
        refuse_syntaxes: Sequence[str] = (),
        commits: Commits | None = None,
        shelf: Shelf | None = None,
    ) -> None:
        """`refuse_syntaxes` are Transfer Syntaxes that it does not take; `shelf` may be shared with other doors."""
        usual = [Rule(do="slow", seconds=delay_s)] if delay_s else []
        usual += [Rule(do="busy", count=busy_for_first)] if busy_for_first else []
        self.rules = Rules([*usual, *rules])
        self.shelf = shelf or Shelf(folder, log)
        self._refused, self._commits = set(refuse_syntaxes), commits or Commits()
        self._waiting: dict[str, list[Dataset]] = {}
        """Calling AE title -> reports for its next association."""
        self._lock = threading.Lock()
        self._acceptor = Acceptor(self._serve, address, port, f"archive {ae_title}")

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._acceptor.port

    @property
    def received(self) -> list[Received]:
        """Everything that came, whether it was kept or not."""
        return self.shelf.received

    def start(self) -> None:
        """Listen; the first time on a free port if none was named. Raises OSError."""
        self._acceptor.start()

    def stop(self) -> None:
        """Go away: break off what is open, close the port."""
        self._acceptor.stop()

    def _serve(self, line: Line) -> None:
        kind, body = line.read()
        if kind != pdu.ASSOCIATE_RQ:
            return
        for rule in self.rules.strike("associate"):
            if rule.do in STATUS:
                line.send(pdu.pdu(pdu.ASSOCIATE_RJ, REJECTED))
                raise Gone("rejected")
            self._misbehave(line, rule)
        here = _Association(line, _text(body[20:36]), _text(body[4:20]))
        line.send(pdu.pdu(pdu.ASSOCIATE_AC, self._accepted(body, here)))
        self._tell_waiting(here)
        while True:
            asked = line.message(lambda: self._strike(line, "inside"))
            self._answer(here, asked)

    def _accepted(self, body: bytes, here: _Association) -> bytes:
        """An A-ASSOCIATE-AC: of each context the first syntax that is not refused; roles as they were proposed."""
        answers, roles = b"", b""
        for one, role in pdu.proposed(body):
            roles += role
            if one is None:
                continue
            taken = next((uid for uid in one.syntaxes if _text(uid) not in self._refused), None)
            if taken is not None:
                here.syntaxes[one.number] = (_text(one.abstract), _text(taken))
            answers += pdu.answered_context(one.number, taken)
        return pdu.associate_ac(body[:68], answers, MAX_PDU, roles)

    def _answer(self, here: _Association, asked: Message) -> None:
        field = asked.number(pdu.FIELD)
        if field == pdu.C_STORE:
            status = self._store(here, asked)
            self._respond(here, asked, status, {pdu.INSTANCE: asked.command.get(pdu.INSTANCE, b"")})
        elif field == C_ECHO:
            self._strike(here.line, "echo")
            self._respond(here, asked, 0)
        elif field == pdu.N_ACTION:
            self._commit(here, asked)
        elif not field & pdu.RESPONSE:
            self._respond(here, asked, 0x0211)  # unrecognized operation

    def _respond(self, here: _Association, asked: Message, status: int, more: dict[int, bytes] | None = None) -> None:
        named = asked.command.get(pdu.CLASS) or asked.command.get(pdu.REQUESTED_CLASS, b"")
        elements = {
            pdu.CLASS: named,
            pdu.FIELD: pdu.us(asked.number(pdu.FIELD) | pdu.RESPONSE),
            pdu.ANSWERED: asked.command.get(pdu.MESSAGE, b""),
            pdu.STATUS: pdu.us(status),
            **(more or {}),
        }
        here.line.send(*pdu.message(asked.context, elements, None, MAX_PDU))

    def _store(self, here: _Association, asked: Message) -> int:
        uid = asked.uid(pdu.INSTANCE)
        sop_class, syntax = here.syntaxes.get(asked.context, (asked.uid(pdu.CLASS), IMPLICIT))
        status, lies = 0x0000, False
        for rule in self.rules.strike("store"):
            status = STATUS.get(rule.do, status)
            lies = lies or rule.do == "lie"
            self._misbehave(here.line, rule)
        if not lies:
            self.shelf.note(received(uid, asked.data, syntax, status, here.calling), sop_class, asked.data)
        self._strike(here.line, "stored")
        return status

    def _strike(self, line: Line, on: str) -> None:
        for rule in self.rules.strike(on):
            self._misbehave(line, rule)

    def _misbehave(self, line: Line, rule: Rule) -> None:
        """Do what a rule says on the connection; statuses are whoever's who answers. Raises Gone."""
        if rule.do == "slow":
            self._acceptor.stopping.wait(rule.seconds)
        elif rule.do == "hang":
            self._acceptor.stopping.wait()
            raise Gone("stopped")
        elif rule.do == "abort":
            line.send(pdu.pdu(pdu.ABORT, bytes((0, 0, 2, 0))))
            raise Gone("aborted")
        elif rule.do == "close":
            raise Gone("closed")
        elif rule.do == "reset":
            line.reset()

    def _commit(self, here: _Association, asked: Message) -> None:
        _, syntax = here.syntaxes.get(asked.context, ("", IMPLICIT))
        for rule in self.rules.strike("commit"):
            if rule.do in STATUS:
                self._respond(here, asked, PROCESSING_FAILURE)
                return
            self._misbehave(here.line, rule)
        request = read_dataset(BytesIO(asked.data), syntax == IMPLICIT, True)
        more = {pdu.INSTANCE: pdu.even(COMMITMENT_INSTANCE), pdu.ACTION_TYPE: pdu.us(1)}
        self._respond(here, asked, 0, more)
        report = self._report(request)
        how = self._commits
        if how.report == "never":
            return
        if how.report == "same":
            self._acceptor.stopping.wait(how.after_s)
            self._tell(here, asked.context, report)
        elif how.report == "later":
            with self._lock:
                self._waiting.setdefault(here.calling, []).append(report)
        else:
            peer = (here.line.socket.getpeername()[0], how.port)
            threading.Thread(target=self._call, args=(peer, here, report), name="report", daemon=True).start()

    def _report(self, request: Dataset) -> Dataset:
        report, kept, failed = Dataset(), [], []
        report.TransactionUID = request.TransactionUID
        for number, item in enumerate(request.ReferencedSOPSequence, 1):
            forgotten = self._commits.fail_every and number % self._commits.fail_every == 0
            if self.shelf.has(str(item.ReferencedSOPInstanceUID)) and not forgotten:
                kept.append(item)
            else:
                item.FailureReason = NO_SUCH_INSTANCE
                failed.append(item)
        if kept:
            report.ReferencedSOPSequence = kept
        if failed:
            report.FailedSOPSequence = failed
        return report

    def _tell_waiting(self, here: _Association) -> None:
        context = next((number for number, (uid, _) in here.syntaxes.items() if uid == COMMITMENT), None)
        if context is None:
            return
        with self._lock:
            reports = self._waiting.pop(here.calling, [])
        self._acceptor.stopping.wait(self._commits.after_s if reports else 0)
        for report in reports:
            self._tell(here, context, report)

    def _tell(self, here: _Association, context: int, report: Dataset) -> None:
        """Send a report on this association; its answer is read like whatever else comes."""
        here.message_id += 1
        elements = {pdu.MESSAGE: pdu.us(here.message_id), **_event(report)}
        _, syntax = here.syntaxes[context]
        here.line.send(*pdu.message(context, elements, _encoded(report, implicit=syntax == IMPLICIT), 16000))

    def _call(self, peer: tuple[str, int], here: _Association, report: Dataset) -> None:
        """Open an association for a report, as SCP of the service (PS3.4 J.3.3)."""
        self._acceptor.stopping.wait(self._commits.after_s)
        link = Link(peer, Network(ae_title=here.called), here.calling, 10.0)
        try:
            context = Context(1, COMMITMENT.encode(), (IMPLICIT.encode(),))
            link.open([context], pdu.roles(COMMITMENT, scu=False, scp=True))
            link.answer(link.request(1, _event(report), _encoded(report, implicit=True)))
            link.release()
        except Over:
            link.break_off()


def _event(report: Dataset) -> dict[int, bytes]:
    return {
        pdu.CLASS: pdu.even(COMMITMENT),
        pdu.FIELD: pdu.us(pdu.N_EVENT_REPORT),
        pdu.INSTANCE: pdu.even(COMMITMENT_INSTANCE),
        pdu.EVENT_TYPE: pdu.us(2 if "FailedSOPSequence" in report else 1),
    }


def _encoded(dataset: Dataset, *, implicit: bool) -> bytes:
    file = DicomBytesIO()
    file.is_implicit_VR, file.is_little_endian = implicit, True
    write_dataset(file, dataset)
    return file.getvalue()


def _text(value: bytes) -> str:
    return value.decode("latin-1").strip("\0 ")
