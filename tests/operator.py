"""Somebody who signs commands; the envelope is written from its description, not by our code."""

from __future__ import annotations

import base64
import json
import time
import uuid

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


class Operator:
    def __init__(self, kid: str = "ops-1", role: str = "admin") -> None:
        self.kid, self.role = kid, role
        self.key = Ed25519PrivateKey.generate()
        self._seq = 0

    @property
    def public(self) -> str:
        raw = self.key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return base64.b64encode(raw).decode()

    def entry(self, **more) -> str:
        facts = {"kid": self.kid, "role": self.role, "public_key": self.public, **more}
        return "[[key]]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in facts.items())

    def body(self, verb: str, args: dict | None = None, **other) -> dict:
        self._seq += 1
        now = int(time.time())
        return {
            "v": 1,
            "id": str(uuid.uuid4()),
            "tenant": "default",
            "target": "gateway",
            "type": verb,
            "args": args or {},
            "iat": now,
            "exp": now + 600,
            "seq": self._seq,
            **other,
        }

    def seal(self, body: dict | bytes, **other) -> bytes:
        signed = body if isinstance(body, bytes) else json.dumps(body).encode()
        envelope = {
            "body": base64.b64encode(signed).decode(),
            "sig": base64.b64encode(self.key.sign(signed)).decode(),
            "kid": self.kid,
            **other,
        }
        return json.dumps(envelope).encode()
