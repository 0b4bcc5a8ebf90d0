"""One association as acceptor: a blocking loop around the table in `upper_layer.py`, with its messages."""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from dataclasses import dataclass

from gateway.dicom import negotiation
from gateway.dicom.command import (
    C_CANCEL_RQ,
    C_ECHO_RQ,
    C_STORE_RQ,
    MAX_COMMAND_BYTES,
    RESPONSE,
    Command,
    read_command,
    response_pdu,
)
from gateway.dicom.negotiation import ACCEPTANCE, Context, Malformed, decide, read_request
from gateway.dicom.pdu_stream import Control, Fragment, Patience, PduStream, PeerClosed
from gateway.dicom.services import AssociationFacts, StorageDoor, StoreSink
from gateway.dicom.upper_layer import Action, Event, State, step
from gateway.model.errors import Refused
from gateway.model.transfer_syntax import VERIFICATION_SOP_CLASS

log = logging.getLogger("gateway.dicom")

SUCCESS = 0x0000
PROCESSING_FAILURE = 0x0110
SOP_CLASS_NOT_SUPPORTED = 0x0122
UNRECOGNIZED_OPERATION = 0x0211
MISTYPED_ARGUMENT = 0x0212


@dataclass
class _Message:
    """A request on its way in: its command, then its data set."""

    context_id: int
    command: Command | None = None
    sink: StoreSink | None = None
    status: int | None = None
    """The answer, when it is known before the data set ended: the rest is drained."""
    comment: str = ""


class Association:
    """Serves one connection to its end; `run` is a thread's whole life."""

    def __init__(
        self, connection: socket.socket, address: str, port: int, door: StorageDoor, max_pdu_bytes: int, wait: Patience
    ) -> None:
        self._connection = connection
        self._facts = AssociationFacts(address, "", "", port)
        self._door = door
        self._max_pdu_bytes = max_pdu_bytes
        self._wait = wait
        self._stream = PduStream(connection, wait)
        self._state = State.AWAITING_REQUEST
        self._artim_at = time.monotonic() + wait.artim_s
        self._contexts: dict[int, Context] = {}
        self._command = bytearray()
        self._message: _Message | None = None
        self._stored = 0
        self._stopping = False

    def run(self) -> None:
        """Serve until the connection ends; never raises."""
        try:
            self._serve()
        except Exception:  # the network door: whatever a stranger's bytes did to us, nobody is told of a success
            log.exception("association_failed from=%s", self._facts.address)
            self._fail_message()
        finally:
            self._drop_message()
            with contextlib.suppress(OSError):
                self._connection.close()

    def stop(self) -> None:
        """End soon, from another thread: now when nothing is under way, else when the message is done."""
        self._stopping = True
        self._stream.cut_at = time.monotonic() + self._wait.finish_s
        if self._stream.idle and self._message is None:
            with contextlib.suppress(OSError):
                self._connection.shutdown(socket.SHUT_RD)

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
        if self._stopping and self._message is None and not self._command and self._state is State.ESTABLISHED:
            return Event.GIVE_UP, None
        patience = self._wait.idle_s
        if self._state is not State.ESTABLISHED:
            patience = self._artim_at - time.monotonic()
        try:
            got = self._stream.read(patience)
        except PeerClosed:
            return Event.CONNECTION_CLOSED, None
        except TimeoutError:
            return Event.TIME_OUT, None
        except Malformed as error:
            log.warning("pdu_malformed from=%s reason=%r", self._facts.address, str(error))
            return Event.INVALID_PDU, None
        if isinstance(got, Fragment):
            return Event.P_DATA, got
        return Event(got.kind), got

    def _act(self, action: Action, event: Event, got: Control | Fragment | None) -> None:
        if action is Action.DECIDE and isinstance(got, Control):
            self._decide(got.body)
        elif action is Action.SEND_RELEASE:
            self._say_last(negotiation.RELEASE_RP)
            log.info("association_released from=%s stored=%d", self._facts.address, self._stored)
        elif action is Action.SEND_ABORT:
            log.warning("association_aborted from=%s by=us event=%s", self._facts.address, event.name)
            self._say_last(negotiation.abort_pdu())
        elif action is Action.CLOSE:
            if event is Event.ABORT or self._message is not None:
                log.warning("association_aborted from=%s by=peer event=%s", self._facts.address, event.name)
        elif action is Action.IGNORE and event is Event.INVALID_PDU:
            self._state = State.CLOSED  # what follows cannot be told apart: closing is all that is left

    def _say(self, pdu: bytes) -> None:
        self._connection.settimeout(self._wait.reply_s)
        try:
            self._connection.sendall(pdu)
        except OSError:
            self._state = State.CLOSED

    def _say_last(self, pdu: bytes) -> None:
        self._drop_message()
        self._artim_at = time.monotonic() + (0.5 if self._stopping else self._wait.artim_s)
        self._say(pdu)

    def _decide(self, body: bytes) -> None:
        """Accept or reject the association."""
        try:
            request = read_request(body)
        except Malformed as error:
            log.warning("request_malformed from=%s reason=%r", self._facts.address, str(error))
            _, self._state = step(self._state, Event.INVALID_PDU)
            self._say_last(negotiation.abort_pdu(reason=6))
            return
        self._facts = AssociationFacts(
            self._facts.address, request.calling_ae_title, request.called_ae_title, self._facts.listener_port
        )
        rejection = self._door.admit(self._facts)
        if rejection is not None:
            _, self._state = step(self._state, Event.REJECT)
            self._say_last(negotiation.reject_pdu(rejection.result, rejection.source, rejection.reason))
            return
        contexts = [decide(proposed) for proposed in request.contexts]
        self._contexts = {context.context_id: context for context in contexts}
        _, self._state = step(self._state, Event.ACCEPT)
        self._say(negotiation.accept_pdu(request, contexts, self._max_pdu_bytes))
        accepted = sum(context.result == ACCEPTANCE for context in contexts)
        log.info("association_accepted from=%s contexts=%d of=%d", self._facts.address, accepted, len(contexts))

    def _take(self, fragment: Fragment) -> None:
        """Add a fragment to the message it belongs to."""
        if fragment.is_command:
            if len(self._command) + len(fragment.payload) > MAX_COMMAND_BYTES or self._message is not None:
                self._break("a command where a data set was due, or without end")
                return
            self._command += fragment.payload
            if fragment.ends_message:
                self._begin(fragment.context_id)
            return
        message = self._message
        if message is None or message.context_id != fragment.context_id:
            self._break("a data set without its command")
            return
        if message.sink is not None and message.status is None:
            try:
                message.sink.write(fragment.payload)
            except Refused as refusal:
                message.status, message.comment = refusal.status, refusal.detail
        if fragment.ends_message:
            self._end(message)

    def _break(self, reason: str) -> None:
        log.warning("message_malformed from=%s reason=%r", self._facts.address, reason)
        _, self._state = step(self._state, Event.INVALID_PDU)
        self._say_last(negotiation.abort_pdu())

    def _begin(self, context_id: int) -> None:
        """A command is whole: answer it, or open a place for its data set."""
        try:
            command = read_command(bytes(self._command))
        except Malformed as error:
            self._break(str(error))
            return
        self._command.clear()
        if command.field == C_CANCEL_RQ or command.field & RESPONSE:
            return  # nothing of ours can be cancelled, and we asked for nothing
        message = _Message(context_id, command)
        context = self._contexts.get(context_id)
        if context is None or context.result != ACCEPTANCE:
            message.status, message.comment = SOP_CLASS_NOT_SUPPORTED, "presentation context was not accepted"
        elif command.field == C_ECHO_RQ:
            message.status = SUCCESS
        elif command.field != C_STORE_RQ:
            message.status, message.comment = UNRECOGNIZED_OPERATION, "service not offered"
        elif context.abstract_syntax == VERIFICATION_SOP_CLASS:
            message.status, message.comment = SOP_CLASS_NOT_SUPPORTED, "not a storage context"
        elif not command.has_data_set or not command.affected_sop_instance_uid:
            message.status, message.comment = MISTYPED_ARGUMENT, "C-STORE without data set or SOP Instance UID"
        else:
            self._open(message, context, command)
        if command.has_data_set:
            self._message = message
        else:
            self._end(message)

    def _open(self, message: _Message, context: Context, command: Command) -> None:
        try:
            message.sink = self._door.store(
                self._facts,
                (context.abstract_syntax, context.transfer_syntax),
                command.affected_sop_class_uid,
                command.affected_sop_instance_uid,
                command.priority,
            )
        except Refused as refusal:
            message.status, message.comment = refusal.status, refusal.detail

    def _end(self, message: _Message) -> None:
        """The message is whole: answer it."""
        if message.status is None and message.sink is not None:
            try:
                message.status = message.sink.finish()
                self._stored += 1
            except Refused as refusal:
                message.status, message.comment = refusal.status, refusal.detail
        self._message = None
        self._answer(message)

    def _answer(self, message: _Message) -> None:
        status = PROCESSING_FAILURE if message.status is None else message.status
        if status not in (SUCCESS,) and message.comment:
            log.warning("refused from=%s status=0x%04X reason=%r", self._facts.address, status, message.comment)
        if message.command is not None:
            self._say(response_pdu(message.context_id, message.command, status, message.comment))

    def _fail_message(self) -> None:
        message, self._message = self._message, None
        if message is not None and message.command is not None:
            if message.sink is not None:
                message.sink.abandon()
            self._say(response_pdu(message.context_id, message.command, PROCESSING_FAILURE, "gateway error"))
        self._say(negotiation.abort_pdu())

    def _drop_message(self) -> None:
        message, self._message = self._message, None
        if message is not None and message.sink is not None:
            message.sink.abandon()
