"""What a web service asks of us beside TLS: the headers that say who we are. Secrets come from files, read anew when
they are needed, so that a rotated one is used without a restart.

Kinds: HTTP basic (RFC 7617), bearer token from a file (RFC 6750), OAuth 2 client credentials (RFC 6749 4.4), AWS
Signature Version 4. Client certificates are TLS and live in `tls.py`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, urlencode, urlsplit

from gateway.config.destinations import AuthSettings, AwsAuth, BasicAuth, BearerAuth, OAuth2Auth
from gateway.model.errors import IdentityError

FRESH_S = 60.0
"""A token is fetched anew so long before it ends: a large object may be on its way for a while."""
Post = Callable[[str, bytes, Mapping[str, str]], tuple[int, bytes]]
"""Sends a form to a token service: url, body, headers -> status, answer; raises OSError when nobody answers."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A request that is to be authorised."""

    method: str
    url: str
    body: Callable[[], Iterable[bytes]]
    """Opens the body once more, for kinds that sign its hash."""


class Credential(Protocol):
    """Says who we are."""

    def headers(self, request: Outgoing) -> dict[str, str]:
        """Return the headers to add; raises IdentityError when the secret or its service cannot be had."""
        ...

    def renew(self) -> bool:
        """The service did not know us: forget what is remembered; return whether another try makes sense."""
        ...


def secret(path: Path) -> str:
    """Return the content of a secret's file without its line end; raises IdentityError."""
    try:
        text = path.read_text(encoding="utf-8").strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise IdentityError(f"the secret {path} cannot be read: {getattr(error, 'strerror', 'not text')}") from error
    if not text:
        raise IdentityError(f"the secret {path} is empty")
    return text


class Nobody:
    """No header at all."""

    def headers(self, request: Outgoing) -> dict[str, str]:
        return {}

    def renew(self) -> bool:
        return False


class Basic:
    """User and password."""

    def __init__(self, settings: BasicAuth) -> None:
        self._settings = settings

    def headers(self, request: Outgoing) -> dict[str, str]:
        pair = f"{self._settings.user}:{secret(self._settings.password_file)}"
        return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}

    def renew(self) -> bool:
        return False


class Bearer:
    """A token that another program keeps fresh in a file."""

    def __init__(self, settings: BearerAuth) -> None:
        self._settings = settings

    def headers(self, request: Outgoing) -> dict[str, str]:
        return {"Authorization": f"Bearer {secret(self._settings.token_file)}"}

    def renew(self) -> bool:
        return False


class OAuth2:
    """Client credentials: a token for our id and secret, kept until shortly before it ends. Threads share it."""

    def __init__(self, settings: OAuth2Auth, post: Post, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._post = post
        self._clock = clock
        self._lock = threading.Lock()
        self._token = ""
        self._until = 0.0

    def headers(self, request: Outgoing) -> dict[str, str]:
        with self._lock:
            if not self._token or self._clock() >= self._until:
                self._fetch()
            return {"Authorization": f"Bearer {self._token}"}

    def renew(self) -> bool:
        with self._lock:
            self._token = ""
        return True

    def _fetch(self) -> None:
        settings = self._settings
        form = {"grant_type": "client_credentials"} | ({"scope": settings.scope} if settings.scope else {})
        pair = f"{quote(settings.client_id, safe='')}:{quote(secret(settings.client_secret_file), safe='')}"
        headers = {
            "Content-Type": "application/x-www-form-urlencoded",
            "Accept": "application/json",
            "Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}",  # RFC 6749 2.3.1
        }
        try:
            status, answer = self._post(settings.token_url, urlencode(form).encode(), headers)
        except OSError as error:
            raise IdentityError("the token service does not answer") from error
        if status != 200:
            raise IdentityError(f"the token service refused us (HTTP {status})", hint="check client_id and its secret")
        try:
            token = json.loads(answer)
            self._token = str(token["access_token"])
            lasts_s = float(token.get("expires_in", 300))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise IdentityError("the token service's answer holds no token") from error
        self._until = self._clock() + max(lasts_s - FRESH_S, lasts_s / 2)


class Aws:
    """Signature Version 4 with a key pair from files."""

    def __init__(self, settings: AwsAuth, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._settings = settings
        self._now = now

    def headers(self, request: Outgoing) -> dict[str, str]:
        digest = hashlib.sha256()
        for block in request.body():
            digest.update(block)
        settings, at = self._settings, self._now().strftime("%Y%m%dT%H%M%SZ")
        parts = urlsplit(request.url)
        signed = {"host": parts.netloc, "x-amz-content-sha256": digest.hexdigest(), "x-amz-date": at}
        if settings.session_token_file is not None:
            signed["x-amz-security-token"] = secret(settings.session_token_file)
        names = ";".join(sorted(signed))
        canonical = "\n".join(
            (
                request.method,
                quote(parts.path or "/", safe="/-_.~%"),
                "&".join(sorted(parts.query.split("&"))) if parts.query else "",
                "".join(f"{name}:{signed[name]}\n" for name in sorted(signed)),
                names,
                digest.hexdigest(),
            )
        )
        scope = f"{at[:8]}/{settings.region}/{settings.service}/aws4_request"
        to_sign = "\n".join(("AWS4-HMAC-SHA256", at, scope, hashlib.sha256(canonical.encode()).hexdigest()))
        key = b"AWS4" + secret(settings.secret_access_key_file).encode()
        for word in (at[:8], settings.region, settings.service, "aws4_request"):
            key = hmac.digest(key, word.encode(), "sha256")
        signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
        identity = f"Credential={secret(settings.access_key_id_file)}/{scope}"
        headers = {name: value for name, value in signed.items() if name != "host"}
        headers["Authorization"] = f"AWS4-HMAC-SHA256 {identity}, SignedHeaders={names}, Signature={signature}"
        return headers

    def renew(self) -> bool:
        return False


def credential_of(settings: AuthSettings | None, post: Post) -> Credential:
    """Return the credential that the `auth` table of a destination describes."""
    if settings is None:
        return Nobody()
    if isinstance(settings, BasicAuth):
        return Basic(settings)
    if isinstance(settings, BearerAuth):
        return Bearer(settings)
    return OAuth2(settings, post) if isinstance(settings, OAuth2Auth) else Aws(settings)
