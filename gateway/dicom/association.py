"""One association as acceptor: a blocking loop around the table in `upper_layer.py`, with its messages."""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from dataclasses import dataclass, replace

from gateway.dicom import negotiation
from gateway.dicom.command import (
    C_CANCEL_RQ,
    MAX_COMMAND_BYTES,
    RESPONSE,
    Command,
    Response,
    read_command,
    request_command,
    request_pdus,
    response_pdus,
)
from gateway.dicom.negotiation import ACCEPTANCE, Context, Malformed, ProposedContext, decide, read_request
from gateway.dicom.negotiation import Request as AssociateRequest
from gateway.dicom.pdu_stream import Control, Fragment, Patience, PduStream, PeerClosed, Unrecognized
from gateway.dicom.services import (
    PROCESSING_FAILURE,
    SOP_CLASS_NOT_SUPPORTED,
    UNRECOGNIZED_OPERATION,
    AssociationFacts,
    Door,
    Errand,
    Receiver,
    Rejection,
    Request,
)
from gateway.dicom.upper_layer import ABORT_WHY, UNEXPECTED_PDU, Action, Event, State, step
from gateway.model.errors import Refused

log = logging.getLogger("gateway.dicom")

MAX_CONTEXTS = 128
"""As many odd context ids as a byte has (PS3.8 9.3.2.2)."""
TOO_MANY_CONTEXTS = Rejection(1, 1, 1)
MAX_UID_BYTES = 1024
"""In a proposed Transfer Syntax: far beyond the 64 of the standard, and short enough to be sent back in an item."""
ERRAND_S = 0.5
"""An association is quiet for so long before anything of ours is said on it: a peer that is about to release is not
to be surprised."""
ERRAND_ANSWER_S = 30.0
MAX_DRAIN_BYTES = 1 << 33
"""What follows a refusal is read to its end up to here; then the answer goes early, and the association ends."""


FAILED = Response(PROCESSING_FAILURE, "gateway error")


def contexts_of(request: AssociateRequest, door: Door) -> list[Context]:
    """Return one decision for each context id, the first of each id counts: two could not be told apart later."""
    first: dict[int, ProposedContext] = {}
    for proposed in request.contexts:
        first.setdefault(proposed.context_id, proposed)
    return [
        decide(
            replace(one, transfer_syntaxes=tuple(uid for uid in one.transfer_syntaxes if len(uid) <= MAX_UID_BYTES)),
            offered=door.offers(one.abstract_syntax),
        )
        for one in first.values()
    ]


@dataclass
class _Message:
    """A request whose command is whole, and whose data set may be on its way."""

    context_id: int
    command: Command
    receiver: Receiver | None = None
    answer: Response = FAILED
    """When there is no receiver: the data set is drained, and this is said."""
    drained: int = 0
    endless: bool = False
    silent: bool = False
    """It is a response: its data set is drained, and nothing said."""

    def refuse(self, status: int, comment: str) -> None:
        """Remember why; the receiver has cleaned up after itself."""
        self.receiver, self.answer = None, Response(status, comment)


class Association:
    """Serves one connection to its end; `run` is a thread's whole life."""

    def __init__(
        self, connection: socket.socket, facts: AssociationFacts, door: Door, max_pdu_bytes: int, wait: Patience
    ) -> None:
        """Take over `connection`; `facts` has no AE titles yet."""
        self._connection = connection
        self._facts = facts
        self._door = door
        self._max_pdu_bytes = max_pdu_bytes
        self._wait = wait
        self._stream = PduStream(connection, wait)
        self._state = State.AWAITING_REQUEST
        self._artim_at = time.monotonic() + wait.artim_s
        self._contexts: dict[int, Context] = {}
        self._peer_max_pdu = 0
        self._command = bytearray()
        self._command_context = 0
        self._message: _Message | None = None
        self._progress_by = 0.0
        self._progress = 0
        self._answered = 0
        self._stopping = False
        self._errand: tuple[Errand, int, float] | None = None
        """What we said, its Message ID, and until when an answer counts."""
        self._errands = 0
        self._two_way: dict[str, Context] = {}
        """By SOP class, the contexts in which we may have something to say."""

    def run(self) -> None:
        """Serve until the connection ends; never raises."""
        with contextlib.closing(self._connection):
            try:
                self._serve()
                self._drop_message()
                self._end_errand(None)
            except Exception:  # the network door: whatever a stranger's bytes did to us, nobody is told of a success
                log.exception("association_failed from=%s", self._facts.address)
                self._fail_message()
                self._end_errand(None)

    def stop(self) -> None:
        """End soon, from another thread: now when nothing is under way, else when the message is done."""
        self._stopping = True
        self._stream.cut_at = time.monotonic() + self._wait.finish_s
        if self._stream.idle and not self._under_way:
            self._shut(socket.SHUT_RD)

    def cut(self) -> None:
        """End now, from another thread: what is under way is abandoned."""
        self._shut(socket.SHUT_RDWR)

    def _shut(self, how: int) -> None:
        """Wake the thread that reads. The plain call: the one of SSLSocket would take the TLS off under its reader."""
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._connection, how)

    @property
    def _under_way(self) -> bool:
        """True from a message's first fragment to its answer."""
        return self._message is not None or bool(self._command)

    def _serve(self) -> None:
        while self._state is not State.CLOSED:
            event, got = self._next()
            action, self._state = step(self._state, event)
            if action is Action.TAKE_DATA and isinstance(got, Fragment):
                self._take(got)
            else:
                self._act(action, event, got)

    def _next(self) -> tuple[Event, Control | Fragment | None]:
        """Wait for the next event."""
        if self._leaving:
            return Event.GIVE_UP, None
        try:
            got = self._stream.read(self._patience()) if not self._two_way else self._read_between_errands()
        except PeerClosed:
            return (Event.GIVE_UP if self._leaving else Event.CONNECTION_CLOSED), None
        except TimeoutError:
            idle = self._stream.idle and not self._under_way
            return (Event.IDLE if idle and self._state is State.ESTABLISHED else Event.TIME_OUT), None
        except Unrecognized:
            return Event.UNRECOGNIZED_PDU, None
        except Malformed as error:
            log.warning("pdu_malformed from=%s reason=%r", self._facts.address, str(error))
            return Event.INVALID_PDU, None
        if isinstance(got, Fragment):
            return Event.P_DATA, got
        return Event(got.kind), got

    def _read_between_errands(self) -> Control | Fragment:
        """Read the next PDU; while none comes, say what is to be said."""
        deadline = time.monotonic() + self._patience()
        while True:
            left = deadline - time.monotonic()
            try:
                return self._stream.read(min(left, ERRAND_S))
            except TimeoutError:
                idle = self._stream.idle and not self._under_way and self._state is State.ESTABLISHED
                if left <= ERRAND_S or not idle or self._leaving:
                    raise
            self._run_errand()

    def _run_errand(self) -> None:
        if self._errand is not None:
            if time.monotonic() < self._errand[2]:
                return
            self._end_errand(None)
        errand = self._door.errand(self._facts, self._two_way.keys())
        if errand is None:
            return
        self._errands = self._errands % 65535 + 1
        self._errand = (errand, self._errands, time.monotonic() + ERRAND_ANSWER_S)
        context = self._two_way[errand.abstract_syntax]
        command = request_command(errand.field, self._errands, errand.abstract_syntax, errand.instance, errand.type_id)
        data_set = errand.data_set(context.transfer_syntax)
        self._say(request_pdus(context.context_id, command, data_set, self._peer_max_pdu))

    def _end_errand(self, status: int | None) -> None:
        errand, self._errand = self._errand, None
        if errand is not None:
            errand[0].done(status)

    @property
    def _leaving(self) -> bool:
        return self._stopping and self._state is State.ESTABLISHED and not self._under_way

    def _patience(self) -> float:
        """Return how long the next PDU may take to begin."""
        if self._state is not State.ESTABLISHED:
            return self._artim_at - time.monotonic()
        return self._progress_by - time.monotonic() if self._under_way else self._wait.idle_s

    def _count_progress(self, count: int) -> None:
        """Keep the pace of a message: a drip of small whole PDUs would satisfy every deadline of a single PDU."""
        self._progress += count
        if not self._under_way or self._progress >= self._wait.min_bytes_per_s * self._wait.idle_s:
            self._progress, self._progress_by = 0, time.monotonic() + self._wait.idle_s

    def _act(self, action: Action, event: Event, got: Control | Fragment | None) -> None:
        if action is Action.DECIDE and isinstance(got, Control):
            self._decide(got.body)
        elif action is Action.SEND_RELEASE:
            self._say_last(negotiation.RELEASE_RP)
            log.info("association_released from=%s answered=%d", self._facts.address, self._answered)
        elif action is Action.ASK_RELEASE:
            log.info("association_idle from=%s answered=%d", self._facts.address, self._answered)
            self._say_last(negotiation.RELEASE_RQ)
        elif action is Action.SEND_ABORT:
            log.warning("association_aborted from=%s by=us event=%s", self._facts.address, event.name)
            self._say_last(negotiation.abort_pdu(*ABORT_WHY.get(event, UNEXPECTED_PDU)))
        elif action is Action.CLOSE:
            if event is Event.ABORT or self._under_way:
                log.warning("association_aborted from=%s by=peer event=%s", self._facts.address, event.name)
        elif action is Action.IGNORE and event in (Event.INVALID_PDU, Event.UNRECOGNIZED_PDU):
            self._state = State.CLOSED  # what follows cannot be told apart: closing is all that is left

    def _say(self, pdu: bytes) -> None:
        try:
            self._stream.send(pdu, self._wait.reply_s)
        except OSError:
            self._state = State.CLOSED

    def _say_last(self, pdu: bytes) -> None:
        self._drop_message()
        self._say(pdu)
        self._artim_at = time.monotonic() + (0.5 if self._stopping else self._wait.artim_s)
        self._stream.cut_at = min(self._stream.cut_at, self._artim_at)

    def _decide(self, body: bytes) -> None:
        """Accept or reject the association."""
        try:
            request = read_request(body)
        except Malformed as error:
            log.warning("request_malformed from=%s reason=%r", self._facts.address, str(error))
            _, self._state = step(self._state, Event.INVALID_PDU)
            self._say_last(negotiation.abort_pdu(*ABORT_WHY[Event.INVALID_PDU]))
            return
        self._facts = replace(
            self._facts, calling_ae_title=request.calling_ae_title, called_ae_title=request.called_ae_title
        )
        crowded = len(request.contexts) > MAX_CONTEXTS
        rejection = TOO_MANY_CONTEXTS if crowded else self._door.admit(self._facts)
        if rejection is not None:
            _, self._state = step(self._state, Event.REJECT)
            self._say_last(negotiation.reject_pdu(rejection.result, rejection.source, rejection.reason))
            return
        contexts = contexts_of(request, self._door)
        self._peer_max_pdu = request.max_pdu_bytes
        self._contexts = {context.context_id: context for context in contexts}
        self._two_way = {
            context.abstract_syntax: context
            for context in contexts
            if context.result == ACCEPTANCE and context.abstract_syntax == negotiation.STORAGE_COMMITMENT
        }
        _, self._state = step(self._state, Event.ACCEPT)
        self._say(negotiation.accept_pdu(request, contexts, self._max_pdu_bytes))
        accepted = sum(context.result == ACCEPTANCE for context in contexts)
        log.info("association_accepted from=%s contexts=%d of=%d", self._facts.address, accepted, len(contexts))

    def _take(self, fragment: Fragment) -> None:
        """Add a fragment to the message it belongs to."""
        self._count_progress(len(fragment.payload))
        if fragment.context_id not in self._contexts:  # one that was refused is answered: scanners do use those
            self._break("a context that was never proposed")
            return
        if fragment.is_command:
            self._take_command(fragment)
            return
        message = self._message
        if message is None or message.context_id != fragment.context_id:
            self._break("a data set without its command")
            return
        if message.receiver is not None:
            try:
                message.receiver.write(fragment.payload)
            except Refused as refusal:
                message.refuse(refusal.status, refusal.detail)
                message.endless = refusal.endless
        else:
            message.drained += len(fragment.payload)
        if fragment.ends_message:
            self._end(message)
        elif message.endless or message.drained > MAX_DRAIN_BYTES:
            self._end(message)
            if self._state is State.ESTABLISHED:
                self._break("a refused data set without end")

    def _take_command(self, fragment: Fragment) -> None:
        if self._message is not None:
            self._break("a command where a data set was due")
        elif len(self._command) + len(fragment.payload) > MAX_COMMAND_BYTES:
            self._break("a command without end")
        elif not fragment.payload and not fragment.ends_message:
            self._break("an empty piece of a command")
        elif self._command and fragment.context_id != self._command_context:
            self._break("a command in two contexts")
        else:
            self._command_context = fragment.context_id
            self._command += fragment.payload
            if fragment.ends_message:
                self._begin(fragment.context_id)

    def _break(self, reason: str) -> None:
        log.warning("message_malformed from=%s reason=%r", self._facts.address, reason)
        _, self._state = step(self._state, Event.INVALID_PDU)
        self._say_last(negotiation.abort_pdu(*ABORT_WHY[Event.INVALID_PDU]))

    def _begin(self, context_id: int) -> None:
        """A command is whole: answer it, or open a place for its data set."""
        try:
            command = read_command(bytes(self._command))
        except Malformed as error:
            self._break(str(error))
            return
        self._command.clear()
        if command.field & RESPONSE:
            if self._errand is not None and self._errand[1] == command.answers:
                self._end_errand(command.status)
            if command.has_data_set:
                self._message = _Message(context_id, command, silent=True)
            return
        if command.field == C_CANCEL_RQ:
            return  # nothing of ours can be cancelled
        message = self._message = _Message(context_id, command)
        self._open(message)
        if not command.has_data_set:
            self._end(message)

    def _open(self, message: _Message) -> None:
        """Let the service make a place for the data set, or remember what to answer after it."""
        context = self._contexts.get(message.context_id)
        service = self._door.services.get(message.command.field)
        if context is None or context.result != ACCEPTANCE:
            message.refuse(SOP_CLASS_NOT_SUPPORTED, "presentation context was not accepted")
        elif service is None:
            message.refuse(UNRECOGNIZED_OPERATION, "service not offered")
        else:
            try:
                message.receiver = service(
                    Request(self._facts, context.abstract_syntax, context.transfer_syntax, message.command)
                )
            except Refused as refusal:
                message.refuse(refusal.status, refusal.detail)

    def _end(self, message: _Message) -> None:
        """The message is whole: answer it."""
        if message.receiver is not None:
            try:
                for response in message.receiver.finish():
                    self._answer(message, response)
            except Refused as refusal:
                message.refuse(refusal.status, refusal.detail)
        if message.receiver is None and not message.silent:
            self._answer(message, message.answer)
        self._message = None

    def _answer(self, message: _Message, response: Response) -> None:
        if response.comment:
            log.warning(
                "refused from=%s status=0x%04X reason=%r", self._facts.address, response.status, response.comment
            )
        self._answered += 1
        self._say(response_pdus(message.context_id, message.command, response, self._peer_max_pdu))

    def _fail_message(self) -> None:
        """Tell the peer of our failure, whatever was under way."""
        if self._message is not None:
            message = self._message
            self._answer(message, FAILED)
        self._say(negotiation.abort_pdu())
        self._drop_message()

    def _drop_message(self) -> None:
        message, self._message = self._message, None
        if message is not None and message.receiver is not None:
            message.receiver.abandon()
