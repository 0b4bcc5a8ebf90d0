"""Requests to the web service of one destination: authorised, over connections that are kept, with replies that end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import urllib3

from gateway.config.destinations import ClientTls, StowDestination
from gateway.identity.bounded_http import POOLS
from gateway.identity.credentials import Outgoing, credential_of
from gateway.identity.tls import client_context
from gateway.model.errors import IdentityError

MAX_REPLY_BYTES = 4 << 20
HOSTS = 2
"""Connections are kept to the service and to its token service."""


class WebFailed(Exception):
    """Nobody answered, or we could not say who we are; the text says why, for a person."""


@dataclass(frozen=True, slots=True)
class WebAnswer:
    """What a web service said, in no more than `MAX_REPLY_BYTES`."""

    status: int
    media_type: str
    reply: bytes
    retry_after: str = ""
    """As it came (RFC 9110 10.2.3); empty: the service does not say."""
    date: str = ""
    """The service's clock, as it came; empty: it has none."""


class WebClient:
    """Authorised requests over kept-alive connections to the service of one destination. Used by one thread."""

    def __init__(self, settings: StowDestination) -> None:
        """Raises IdentityError when the `tls` or the `auth` table cannot be used."""
        timeout = urllib3.Timeout(connect=min(20.0, settings.timeout_s), read=settings.timeout_s)
        secure: dict[str, Any] = {}
        if settings.url.startswith("https:"):
            tls = settings.tls or ClientTls.model_validate({})
            secure = {"ssl_context": client_context(tls)}
            if tls.server_name:
                secure |= {"server_hostname": tls.server_name, "assert_hostname": tls.server_name}
        if settings.proxy:
            self._pool: urllib3.PoolManager = urllib3.ProxyManager(
                settings.proxy, HOSTS, timeout=timeout, retries=False, **secure
            )
        else:
            self._pool = urllib3.PoolManager(HOSTS, timeout=timeout, retries=False, **secure)
        self._pool.pool_classes_by_scheme = POOLS
        self._credential = credential_of(settings.auth, self._post_form)

    def _post_form(self, url: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
        """Ask a token service; raises OSError."""
        try:
            answer = self._exchange("POST", url, body, headers)
        except WebFailed as error:
            raise OSError(str(error)) from error
        except urllib3.exceptions.HTTPError as error:
            raise OSError(_words(error)) from error
        return answer.status, answer.reply

    def _exchange(self, method: str, url: str, body: Iterable[bytes] | bytes, headers: Mapping[str, str]) -> WebAnswer:
        response = self._pool.request(
            method, url, body=body, headers=dict(headers), redirect=False, preload_content=False
        )
        whole = False
        try:
            reply = response.read(MAX_REPLY_BYTES + 1)
            whole = len(reply) <= MAX_REPLY_BYTES
        finally:
            if not whole:  # what may still come must not be taken for the next reply
                response.close()
            response.release_conn()
        if not whole:
            raise WebFailed("the service's reply has no end")
        told = (response.headers.get(name, "") for name in ("Retry-After", "Date"))
        return WebAnswer(response.status, response.headers.get("Content-Type", ""), reply, *told)

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        open_body: Callable[[], Iterable[bytes]] = tuple,
        open_unsent: Callable[[], Iterable[bytes]] | None = None,
    ) -> WebAnswer:
        """Send a request, once more when the service no longer knows a token that it gave us; raises WebFailed.

        `open_body` opens the body from its beginning, `open_unsent` the same bytes for a signature; what they raise
        passes through.
        """
        outgoing = Outgoing(method, url, open_unsent or open_body)
        answer = self._authorised(outgoing, headers, open_body)
        if answer.status == 401 and self._credential.renew():
            answer = self._authorised(outgoing, headers, open_body)
        return answer

    def _authorised(
        self, outgoing: Outgoing, headers: Mapping[str, str], open_body: Callable[[], Iterable[bytes]]
    ) -> WebAnswer:
        try:
            ours = self._credential.headers(outgoing)
            return self._exchange(outgoing.method, outgoing.url, open_body() or b"", {**headers, **ours})
        except IdentityError as error:
            raise WebFailed(error.detail) from error
        except urllib3.exceptions.HTTPError as error:
            raise WebFailed(_words(error)) from error

    def close(self) -> None:
        """Close kept-alive connections."""
        self._pool.clear()


def _words(error: urllib3.exceptions.HTTPError) -> str:
    """Say what broke, without the addresses and objects that urllib3 puts into its texts."""
    names = {
        urllib3.exceptions.SSLError: "TLS failed: the service's certificate is not trusted, or ours is refused",
        urllib3.exceptions.NameResolutionError: "the host name is not known",
        urllib3.exceptions.NewConnectionError: "cannot connect",
        urllib3.exceptions.ConnectTimeoutError: "cannot connect in time",  # the two above are kinds of it
        urllib3.exceptions.ReadTimeoutError: "the service did not answer in time",
        urllib3.exceptions.ProtocolError: "the connection broke",
    }
    return next((words for kind, words in names.items() if isinstance(error, kind)), type(error).__name__)
