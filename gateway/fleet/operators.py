"""Who may acknowledge: whoever knows the operator token or, when there is none, whoever is on this machine itself.

A name is kept in a signed cookie for a working day; the key of the signature lives as long as the process. A form
counts only with the token that was made for that cookie, and from our own page (no forged cross-site requests).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import time
from collections import deque
from urllib.parse import urlsplit

from gateway.fleet.server import Request
from gateway.model.errors import GatewayError

COOKIE = "fleet-operator"
SIGNED_IN_S = 12 * 3600
MAX_NAME = 40
MAX_FAILURES, FAILURES_S = 10, 60.0


class Denied(GatewayError):
    """This may not be done, or not from here."""


class Operators:
    """Threads may share it."""

    def __init__(self, token: str | None) -> None:
        self._token = token
        self._key = secrets.token_bytes(32)
        self._failures: deque[float] = deque(maxlen=MAX_FAILURES)

    def way_in(self, request: Request) -> str:
        """Return how this caller could sign in: by "token", by its "name" alone, or "" (not at all)."""
        if self._token is not None:
            return "token"
        return "name" if request.local else ""

    def name(self, request: Request) -> str:
        """Return who asks; empty when nobody is signed in."""
        if not self.way_in(request):
            return ""
        spelled, _, rest = request.cookies.get(COOKIE, "").partition(".")
        until, _, mac = rest.partition(".")
        if not hmac.compare_digest(mac.encode(), self._mac(f"{spelled}.{until}").encode()):
            return ""
        try:
            return base64.urlsafe_b64decode(spelled).decode() if time.time() < int(until) else ""
        except (ValueError, binascii.Error):
            return ""

    def sign_in(self, request: Request) -> str:
        """Return the Set-Cookie value for the form of somebody who signs in; raises Denied."""
        way = self.way_in(request)
        if not way:
            raise Denied(
                "here nobody can sign in: there is no operator token, and this is not the monitor's own machine"
            )
        self._must_be_ours(request)
        name = " ".join(request.form.get("name", "").split())
        if not 0 < len(name) <= MAX_NAME or not name.isprintable():
            raise Denied(f"a name has 1 to {MAX_NAME} characters")
        if way == "token":
            self._must_know(request.form.get("token", ""))
        signed = f"{base64.urlsafe_b64encode(name.encode()).decode()}.{int(time.time()) + SIGNED_IN_S}"
        return self._cookie(f"{signed}.{self._mac(signed)}", SIGNED_IN_S, request.secure)

    def sign_out(self, request: Request) -> str:
        """Return the Set-Cookie value that forgets who it was; raises Denied."""
        self.check(request)
        return self._cookie("", 0, request.secure)

    def form_token(self, request: Request) -> str:
        """Return what a form of ours must hold to count."""
        return self._mac("form:" + request.cookies.get(COOKIE, ""))

    def check(self, request: Request) -> str:
        """Return who sends this form; raises Denied unless somebody is signed in and it is a form of ours."""
        self._must_be_ours(request)
        name = self.name(request)
        if not name:
            raise Denied("sign in first")
        given = request.form.get("form_token", "")
        if not hmac.compare_digest(given.encode(), self._mac("form:" + request.cookies.get(COOKIE, "")).encode()):
            raise Denied("this form is not of this page, or too old: load the page again")
        return name

    def _must_be_ours(self, request: Request) -> None:
        origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site", "same-origin")
        if site not in ("same-origin", "none"):
            raise Denied("this form was sent by another site")
        if origin is not None and urlsplit(origin).netloc.lower() != request.headers.get("host", "").lower():
            raise Denied("this form was sent by another site")

    def _must_know(self, token: str) -> None:
        now = time.monotonic()
        if len(self._failures) == MAX_FAILURES and now - self._failures[0] < FAILURES_S:
            raise Denied("too many wrong tokens; wait a minute")
        if self._token is None or not hmac.compare_digest(token.strip().encode(), self._token.encode()):
            self._failures.append(now)
            raise Denied("this is not the operator token")

    def _mac(self, text: str) -> str:
        return hmac.new(self._key, text.encode("utf-8", "replace"), hashlib.sha256).hexdigest()

    @staticmethod
    def _cookie(value: str, age_s: int, secure: bool) -> str:
        return f"{COOKIE}={value}; Max-Age={age_s}; Path=/; HttpOnly; SameSite=Strict" + ("; Secure" if secure else "")
