"""What the control socket can be asked: each action is a function from a request to a plain answer."""

from __future__ import annotations

import base64
import logging
import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gateway import __version__
from gateway.arrive.part10_file import take
from gateway.control import Action
from gateway.model.errors import GatewayError, Refused
from gateway.model.instance import Door, Origin
from gateway.model.lifecycle import Delivery, DeliveryEvent
from gateway.report import delivery_rows, instance_page, report, study_rows
from gateway.send.couriers import COURIERS
from gateway.spool.ledger import Ledger
from gateway.spool.receipt import canonical, statement

if TYPE_CHECKING:
    from gateway.app import Gateway

log = logging.getLogger("gateway.actions")

MOVE_BATCH = 500
"""Deliveries moved in one transaction: scanners wait no longer than for that."""


def _seqs(gateway: Gateway, request: Mapping[str, Any], states: list[Delivery]) -> list[int]:
    """Return the instances a request names: by the beginning of their object id, or all in given states."""
    names = request.get("objects") or []
    if not names:
        return gateway.spool.reader.seqs(states, request.get("destination"))
    return [gateway.spool.reader.one(str(name)).seq for name in names]


def _operate(gateway: Gateway, request: Mapping[str, Any], event: DeliveryEvent, states: list[Delivery]) -> int:
    seqs, destination = _seqs(gateway, request, states), request.get("destination")
    return gateway.spool.change(lambda ledger: ledger.operate(seqs, destination, event))


def _retry(gateway: Gateway, request: Mapping[str, Any]) -> int:
    seqs, destination = _seqs(gateway, request, [Delivery.QUEUED, Delivery.HELD]), request.get("destination")

    def again(ledger: Ledger) -> int:
        released = ledger.operate(seqs, destination, DeliveryEvent.RELEASED_BY_OPERATOR)
        return max(released, ledger.retry_now(seqs, destination))

    changed = gateway.spool.change(again)
    for name, lane in gateway.lanes.items():
        if destination in (None, name):
            lane.retry_now()
    return changed


def _move(gateway: Gateway, request: Mapping[str, Any]) -> int:
    """Give what waits for a destination that is no longer configured to one that is; return how many went.

    Who gets de-identified objects only gets no others by this way either: a delivery keeps its recipe.
    """
    source, target = str(request["from"]), str(request["to"])
    known = [destination.name for destination in gateway.settings.destination]
    if source in known:
        raise GatewayError(
            f"'{source}' is configured, and its deliveries are its own",
            hint="take it out of the configuration and reload; where both stay, `to_first_of` in a route fails over",
        )
    if target not in known:
        raise GatewayError(f"no destination '{target}'", hint=f"known: {', '.join(known)}")
    recipes = [
        " ".join(route.recipe)
        for route in gateway.settings.route
        if route.deidentify and target in (*route.to, *route.to_first_of)
    ]
    moved = 0
    while step := gateway.spool.change(lambda ledger: ledger.move(source, target, MOVE_BATCH, recipes)):
        moved += step
    if moved:
        log.warning("moved from=%s to=%s objects=%d", source, target, moved)
    elif recipes:
        raise GatewayError(
            f"'{target}' gets de-identified objects, and nothing that waits for '{source}' would leave as such",
            hint="name another destination; `queue export` copies what waits",
        )
    return moved


def import_fds(gateway: Gateway, fds: list[int]) -> list[dict[str, Any]]:
    """Take custody of files that came as descriptors; one answer per file, in order."""
    answers: list[dict[str, Any]] = []
    for fd in fds:
        with os.fdopen(os.dup(fd), "rb") as file:
            try:
                taken = take(gateway.reception, file, Origin(Door.IMPORT))
            except Refused as refusal:
                answers.append({"taken": False, "status": refusal.status, "reason": refusal.detail})
                continue
        receipt = taken.receipt
        answers.append(
            {
                "taken": True,
                "object_id": receipt.object_id,
                "duplicate": receipt.duplicate,
                "conflict": receipt.conflict,
            }
        )
    return answers


def _echo(gateway: Gateway, request: Mapping[str, Any]) -> dict[str, Any]:
    lane = gateway.lanes.get(str(request["destination"]))
    if lane is None:
        raise GatewayError(f"no destination '{request['destination']}'", hint=f"known: {', '.join(gateway.lanes)}")
    courier = COURIERS[lane.settings.kind](lane.settings, gateway.settings.gateway.ae_title)
    started = time.monotonic()
    try:
        verdict = courier.probe()
    finally:
        courier.close()
    return {
        "destination": lane.name,
        "outcome": verdict.outcome.value,
        "text": verdict.text,
        "seconds": time.monotonic() - started,
    }


def _pause(gateway: Gateway, request: Mapping[str, Any]) -> None:
    """Let nothing leave for a destination for so long; 0 ends it. A restart ends it too: nothing waits by oversight."""
    lane = gateway.lanes.get(str(request["destination"]))
    if lane is None:
        raise GatewayError(f"no destination '{request['destination']}'", hint=f"known: {', '.join(gateway.lanes)}")
    lane.pause(float(request["for_s"]))
    log.warning("destination_paused dest=%s for_s=%d", lane.name, request["for_s"])


def _receipt(gateway: Gateway, request: Mapping[str, Any]) -> dict[str, Any]:
    """Sign what is known of a study; the text of the receipt is exactly what was signed."""
    key = gateway.signing_key()
    settings, study_uid = gateway.settings, str(request["study"])
    said = statement(gateway.spool.reader, study_uid, settings.gateway.id, key.fingerprint, time.time())
    signed = canonical(said)
    return {
        "complete": said["complete"],
        "text": signed.decode(),
        "signature": base64.b64encode(key.sign(signed)).decode(),
        "public_key": key.public_pem,
    }


def _status(gateway: Gateway) -> dict[str, Any]:
    spool = gateway.spool
    answer = report(spool.reader, spool.capacity(), gateway.settings.spool.study_short_alarm_s)
    answer["running"] = True
    answer["version"] = __version__
    answer["uptime_s"] = round(time.monotonic() - gateway.started_at, 1)
    answer["ledger_fault"] = gateway.spool.committer.fault
    answer["listeners"] = [
        {"port": listener.port, "associations": listener.associations} for listener in gateway.listeners
    ]
    answer["bandwidth"] = gateway.line.report()
    answer["workers_lost"] = gateway.workers_lost
    answer["mqtt"] = gateway.health.line() if gateway.health else None
    for name, lane in gateway.lanes.items():
        health = lane.health
        row = answer["destinations"].setdefault(name, {})
        row["well"] = not health.ill
        row["reason"] = health.reason
        row["paused_for_s"] = max(0.0, round(health.paused_until - time.monotonic(), 1))
        row["confirm"] = lane.settings.confirm
        row["unanswered"] = gateway.evidence[name].reason if name in gateway.evidence else ""
        row["rate"] = lane.throughput.report(time.monotonic())
        row["bandwidth"] = lane.limits["destination"].report()
        row["limited_by"] = lane.limited_by() if row.get("backlog_objects") else None
        row["compression"] = lane.shaper.report()
        row["retry_in_s"] = max(0.0, round(health.retry_at - time.monotonic(), 1)) if health.ill else 0.0
    for name, row in answer["destinations"].items():
        row["configured"] = name in gateway.lanes
    return answer


def actions(gateway: Gateway) -> dict[str, Action]:
    """Return every action by name."""
    reader = gateway.spool.reader
    held, queued = [Delivery.HELD], [Delivery.QUEUED]
    return {
        "status": lambda request, fds: _status(gateway),
        "queue_list": lambda request, fds: delivery_rows(reader, request),
        "queue_show": lambda request, fds: instance_page(reader, str(request["object"])),
        "queue_retry": lambda request, fds: _retry(gateway, request),
        "queue_hold": lambda request, fds: _operate(gateway, request, DeliveryEvent.HELD_BY_OPERATOR, queued),
        "queue_move": lambda request, fds: _move(gateway, request),
        "queue_release": lambda request, fds: _operate(gateway, request, DeliveryEvent.RELEASED_BY_OPERATOR, held),
        "studies": lambda request, fds: study_rows(reader, request),
        "receipt": lambda request, fds: _receipt(gateway, request),
        "receipt_key": lambda request, fds: gateway.signing_key().public_pem,
        "study_settle": lambda request, fds: gateway.spool.change(
            lambda ledger: ledger.announced.settle(str(request["study"]))
        ),
        "import": lambda request, fds: import_fds(gateway, fds),
        "echo": lambda request, fds: _echo(gateway, request),
        "lane_pause": lambda request, fds: _pause(gateway, request),
        "log_level": lambda request, fds: gateway.log_level.set(str(request["level"]), float(request["for_s"])),
        "inventory": lambda request, fds: list(reader.inventory()),
        "reload": lambda request, fds: gateway.request_reload(),
    }
