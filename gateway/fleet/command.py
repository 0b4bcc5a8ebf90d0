"""A command to one box or many: written, signed, sent, and followed to its end.

What a box checks is in `gateway/health/README.md`; the broker only carries it.
"""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from gateway.fleet.desk import BOX_NAME, Desk, known_boxes
from gateway.fleet.inventory import Heard
from gateway.fleet.keys import SigningKey
from gateway.fleet.settings import BrokerSettings
from gateway.model import topics
from gateway.model.errors import GatewayError
from gateway.model.payloads import faults, schema, verbs

MAX_LIFE_S = 900
"""A box obeys nothing that lives longer."""
MAX_CONFIG_BYTES = 32768
ENDED = ("successful", "failed", "rejected")
NO_SUBSCRIBERS, FAILURE = 0x10, 0x80


class NotACommand(GatewayError):
    """This is no command that a box knows."""

    exit_code = 2


def argument_schema(verb: str) -> dict[str, Any]:
    """Return the schema of a verb's arguments; raises NotACommand."""
    for rule in schema("body")["allOf"]:
        if rule["if"]["properties"]["type"]["const"] == verb:
            found: dict[str, Any] = rule["then"]["properties"]["args"]
            return found
    raise NotACommand(f"{verb!r} is no command", hint="there are: " + ", ".join(verbs()))


def arguments(verb: str, words: Iterable[str]) -> dict[str, Any]:
    """Read `name=value` words by the schema of the verb; `name=@FILE` takes a file's text. Raises NotACommand."""
    form = argument_schema(verb)
    known = form["properties"]
    found: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or name not in known:
            raise NotACommand(f"{word!r} is no argument of {verb}", hint="it takes: " + (", ".join(known) or "none"))
        found[name] = _read(value, known[name].get("type"))
    if "config" in found and "sha256" in known:
        found.setdefault("sha256", hashlib.sha256(found["config"].encode()).hexdigest())
    missing = [name for name in form.get("required", []) if name not in found]
    if missing:
        raise NotACommand(f"{verb} needs {', '.join(missing)}", hint=f"as {missing[0]}=VALUE")
    return found


def _read(value: str, kind: str | None) -> Any:
    if kind == "integer" and re.fullmatch(r"-?\d{1,18}", value):
        return int(value)
    if kind == "boolean" and value in ("true", "false"):
        return value == "true"
    if value.startswith("@"):
        try:
            return Path(value[1:]).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise NotACommand(f"{value[1:]} cannot be read: {error}") from None
    return value


def chosen(broker: BrokerSettings, tenant: str, wanted: str) -> list[str]:
    """Return the boxes that `wanted` names: names and globs, separated by commas. A glob asks the broker which there
    are. Raises NotACommand, Unreachable."""
    words = [word for word in wanted.split(",") if word]
    globs = [word for word in words if re.search(r"[*?\[]", word)]
    found = dict.fromkeys(word for word in words if word not in globs)
    for name in found:
        if not BOX_NAME.fullmatch(name) or name in topics.RESERVED:
            raise NotACommand(f"{name!r} is no name of a box", hint="it is made of a-z, 0-9 and -")
    if globs:
        there = known_boxes(broker, tenant)
        for pattern in globs:
            found.update(dict.fromkeys(fnmatch.filter(there, pattern)))
    if not found:
        raise NotACommand(f"{wanted!r} fits none of the boxes of {tenant}")
    return list(found)


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked of each box."""

    verb: str
    args: Mapping[str, Any]
    life_s: int
    """So long after it was sent no box takes it any more."""
    by: str = ""
    reason: str = ""


def write(order: Order, tenant: str, box: str, seq: int, now: float) -> dict[str, Any]:
    """Return a command for one box, in the words of `body.v1.json`; raises NotACommand when it breaks them."""
    body = {
        "v": 1,
        "id": str(uuid4()),
        "tenant": tenant,
        "target": box,
        "type": order.verb,
        "args": dict(order.args),
        "iat": int(now),
        "exp": int(now) + min(order.life_s, MAX_LIFE_S),
        "seq": seq,
        **{name: text for name, text in (("by", order.by), ("reason", order.reason)) if text},
    }
    wrong = faults("body", body)
    if wrong:
        raise NotACommand(f"a box would not understand this: {', '.join(wrong)}")
    return body


def seal(document: Mapping[str, Any], key: SigningKey) -> bytes:
    """Return the envelope of a document: its bytes, and the signature over these very bytes (RFC 8032)."""
    signed = json.dumps(document, separators=(",", ":"), sort_keys=True).encode()
    parts = {"body": base64.b64encode(signed).decode(), "sig": base64.b64encode(key.sign(signed)).decode()}
    return json.dumps({**parts, "kid": key.kid}, separators=(",", ":")).encode()


@dataclass(slots=True)
class Outcome:
    """How far a command to one box is."""

    box: str
    id: str
    status: str = "sent"
    """`sent`, `accepted`, `executing`, `successful`, `failed`, `rejected`; or `undelivered`, `unanswered`."""
    code: str = ""
    values: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def ended(self) -> bool:
        """Nothing more will come."""
        return self.status in (*ENDED, "undelivered")


Tell = Callable[[Outcome], None]


class Errand:
    """One order to several boxes."""

    def __init__(self, broker: BrokerSettings, tenant: str, order: Order, key: SigningKey, tell: Tell) -> None:
        """`tell` hears of each step of each box."""
        self._broker, self._tenant, self._order, self._key, self._tell = broker, tenant, order, key, tell
        self._outcomes: dict[str, Outcome] = {}
        self._began = 0.0

    def run(self, boxes: Sequence[str], patience_s: float) -> list[Outcome]:
        """Send to each box, and wait until all have ended or for so long; raises Unreachable, IdentityError,
        NotACommand. A box that said nothing until then is `unanswered`: away, or it does not know the key."""
        bodies = {}
        for box in boxes:
            now = time.time()
            bodies[box] = write(self._order, self._tenant, box, self._key.next_seq(now), now)
        with Desk(self._broker, self._hear) as desk:
            desk.subscribe(*(f"{topics.box(self._tenant, b)}/res/{self._order.verb}/{bodies[b]['id']}" for b in boxes))
            self._began = time.monotonic()
            for box, body in bodies.items():
                self._send(desk, box, body)
            desk.wait(lambda: all(o.ended for o in self._outcomes.values()), patience_s)
        for outcome in self._outcomes.values():
            if outcome.status == "sent":
                self._step(outcome, "unanswered", "no_answer")
        return list(self._outcomes.values())

    def _send(self, desk: Desk, box: str, body: Mapping[str, Any]) -> None:
        outcome = self._outcomes[str(body["id"])] = Outcome(box, str(body["id"]))
        topic = f"{topics.box(self._tenant, box)}/cmd/{self._order.verb}/{outcome.id}"
        reason = desk.publish(topic, seal(body, self._key), expiry_s=int(body["exp"] - body["iat"]))
        if reason == NO_SUBSCRIBERS:
            self._step(outcome, "undelivered", "nobody_there")
        elif reason >= FAILURE:
            self._step(outcome, "undelivered", f"refused_0x{reason:02x}")

    def _hear(self, heard: Heard) -> None:
        """Take a result; one that breaks the schema, or is of another command, is none."""
        try:
            told = json.loads(heard.payload)
        except (ValueError, RecursionError):
            return
        if heard.retained or faults("res", told) or (outcome := self._outcomes.get(told["id"])) is None:
            return
        topic = f"{topics.box(self._tenant, outcome.box)}/res/{told['type']}/{told['id']}"
        if heard.topic == topic and not outcome.ended:
            outcome.values = told.get("values", {})
            self._step(outcome, told["status"], told["code"])

    def _step(self, outcome: Outcome, status: str, code: str) -> None:
        outcome.status, outcome.code = status, code
        outcome.seconds = round(time.monotonic() - self._began, 3)
        self._tell(outcome)


def desire(
    broker: BrokerSettings, tenant: str, boxes: Sequence[str], config: str | None, version: int, key: SigningKey | None
) -> list[str]:
    """Let the broker keep for each box a signed, retained document with the configuration that it shall have; without
    one (None), take back what is there. Returns the boxes for which the broker refused. Raises NotACommand,
    Unreachable. A box puts each newer version on trial once, when it is connected."""
    refused = []
    with Desk(broker, lambda heard: None) as desk:
        for box in boxes:
            payload = b""
            if config is not None and key is not None:
                digest = hashlib.sha256(config.encode()).hexdigest()
                document = {"v": 1, "tenant": tenant, "target": box, "version": version}
                document |= {"config": config, "sha256": digest}
                if faults("desired", document):
                    raise NotACommand("a box would not understand this", hint=f"{MAX_CONFIG_BYTES} letters at most")
                payload = seal(document, key)
            if desk.publish(topics.desired(tenant, box), payload, retain=True) >= FAILURE:
                refused.append(box)
    return refused
