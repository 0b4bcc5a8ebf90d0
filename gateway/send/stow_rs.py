"""`kind = "stow"`: one instance per STOW-RS request (PS3.18 10.5), streamed, judged by the instance's own outcome."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from gateway.config.destinations import StowDestination
from gateway.dicom.part10 import meta_bytes
from gateway.dicom.status import verdict_of
from gateway.identity.web_client import WebAnswer, WebClient, WebFailed
from gateway.model.transfer_syntax import EXPLICIT_LE, LOSSLESS
from gateway.model.verdict import Blame, Verdict
from gateway.send.courier import Body, Consignment
from gateway.send.http_status import asked_wait_s, heeded, verdict_of_http

FAILED_SOP_SEQUENCE, REFERENCED_SOP_SEQUENCE = "00081198", "00081199"
REFERENCED_SOP_INSTANCE_UID, FAILURE_REASON, WARNING_REASON = "00081155", "00081197", "00081196"


def _numbers(attribute: Any) -> list[Any]:
    return list(attribute.get("Value", [])) if isinstance(attribute, dict) else []


def _outcomes_json(reply: bytes) -> dict[str, int]:
    """Return SOP Instance UID -> status from a DICOM JSON reply; raises ValueError, TypeError, AttributeError."""
    document = json.loads(reply)
    if isinstance(document, list):
        document = document[0]
    found: dict[str, int] = {}
    for tag, reason, default in (
        (REFERENCED_SOP_SEQUENCE, WARNING_REASON, 0x0000),
        (FAILED_SOP_SEQUENCE, FAILURE_REASON, 0x0110),
    ):
        for entry in _numbers(document.get(tag)):
            uid = _numbers(entry.get(REFERENCED_SOP_INSTANCE_UID))
            status = _numbers(entry.get(reason))
            if uid:
                found[str(uid[0])] = int(status[0]) if status else default
    return found


def _outcomes_xml(reply: bytes) -> dict[str, int]:
    """Return the same from a Native DICOM Model reply (PS3.19 A.1)."""
    if b"<!DOCTYPE" in reply or b"<!ENTITY" in reply:
        raise ValueError("a reply with a document type is not read")
    found: dict[str, int] = {}
    for attribute in ElementTree.fromstring(reply):
        tag = attribute.get("tag")
        if tag not in (REFERENCED_SOP_SEQUENCE, FAILED_SOP_SEQUENCE):
            continue
        for entry in attribute:
            values = {
                inner.get("tag"): "".join(inner.itertext()).strip() for inner in entry if inner.get("tag") is not None
            }
            reason = values.get(FAILURE_REASON if tag == FAILED_SOP_SEQUENCE else WARNING_REASON)
            default = 0x0110 if tag == FAILED_SOP_SEQUENCE else 0x0000
            found[values.get(REFERENCED_SOP_INSTANCE_UID, "")] = int(reason) if reason else default
    return found


def outcome_of(reply: bytes, media_type: str, sop_instance_uid: str) -> int | None:
    """Return the status that a store response gives for one instance; None when it does not name it."""
    try:
        found = _outcomes_json(reply) if "json" in media_type else _outcomes_xml(reply)
    except (ValueError, TypeError, AttributeError, IndexError, KeyError, ElementTree.ParseError):
        return None
    return found.get(sop_instance_uid)


def judge(status: int, outcome: int | None) -> Verdict:
    """Return the verdict from the HTTP status and the instance's own outcome; the latter wins where there is one.

    202 and 409 come with success for some instances of a request; a 2xx without a word about ours is no evidence
    that it was stored, and the same instance again is harmless. A 200 names all of them (PS3.18 10.5.3.3): one that
    does not comes from somebody else, the page of a guest network most of all.
    """
    if outcome is not None and status in (200, 202, 409):
        if outcome == 0x0000:
            return Verdict.accepted(status, "stored")
        if outcome == 0x0110 and status == 409:
            return Verdict.refused(status, "the service refused the instance (0x0110)")
        return verdict_of(outcome)
    if status == 200:
        return Verdict.deferred(
            Blame.DESTINATION, status, "the reply does not name the instance: is the url that of a STOW-RS service?"
        )
    if 200 <= status < 300:
        return Verdict.deferred(Blame.INSTANCE, status, f"no word about the instance (HTTP {status})")
    if 300 <= status < 400:
        return Verdict.deferred(Blame.DESTINATION, status, "redirected elsewhere: check the url of the destination")
    return verdict_of_http(status)


def _as_patient_as_asked(verdict: Verdict, answer: WebAnswer) -> Verdict:
    return heeded(verdict, asked_wait_s(answer.retry_after, answer.date, datetime.now(UTC)))


class StowRs:
    """Carries instances to a STOW-RS service over kept-alive connections."""

    def __init__(self, settings: StowDestination, calling_ae_title: str) -> None:
        """Raises IdentityError when the `tls` table cannot be used."""
        self._url = settings.url
        self._source_ae = calling_ae_title
        self._client = WebClient(settings)

    def prepare(self, offers: Sequence[tuple[str, str]]) -> None:
        """Nothing to agree on beforehand."""

    def deliver(self, consignment: Consignment) -> Verdict:
        """Carry one instance."""
        boundary = uuid4().hex
        meta = meta_bytes(
            consignment.sop_class_uid,
            consignment.sop_instance_uid,
            consignment.transfer_syntax_uid,
            source_ae=self._source_ae,
        )
        head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode() + meta
        tail = f"\r\n--{boundary}--\r\n".encode()

        def whole(body: Body) -> Iterator[bytes]:
            yield head
            for block in body():
                yield bytes(block)
            yield tail

        unsent = consignment.unsent or consignment.body
        headers = {
            "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
            "Content-Length": str(len(head) + consignment.length + len(tail)),
            "Accept": "application/dicom+json",
        }
        try:
            answer = self._client.request(
                "POST", self._url, headers, lambda: whole(consignment.body), lambda: whole(unsent)
            )
        except WebFailed as error:
            return Verdict.deferred(Blame.DESTINATION, text=str(error))
        outcome = outcome_of(answer.reply, answer.media_type, consignment.sop_instance_uid)
        return _as_patient_as_asked(judge(answer.status, outcome), answer)

    def accepts(self, sop_class_uid: str) -> frozenset[str] | None:
        """A service does not say beforehand what it takes: every one takes Explicit VR Little Endian (PS3.18 8.7.3),
        and what it refuses of the lossless ones is remembered by the lane."""
        return frozenset({EXPLICIT_LE}) | LOSSLESS

    def probe(self) -> Verdict:
        """OPTIONS; any answer but one that names the destination as ill shows that somebody is there."""
        try:
            answer = self._client.request("OPTIONS", self._url, {})
        except WebFailed as error:
            return Verdict.deferred(Blame.DESTINATION, text=str(error))
        status = answer.status
        if status in (401, 403, 407, 429) or (status >= 500 and status != 501):
            verdict = verdict_of_http(status)
            ill = Verdict.deferred(Blame.DESTINATION, verdict.code, verdict.text)
            return _as_patient_as_asked(ill, answer)
        return Verdict.accepted(status, f"the service answers (HTTP {status})")

    def close(self) -> None:
        """Close kept-alive connections."""
        self._client.close()
