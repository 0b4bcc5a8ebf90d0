"""Which instances a web archive finds, by QIDO-RS (PS3.18 10.6)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

from gateway.config.destinations import StowDestination
from gateway.confirm.evidence import Unanswered
from gateway.confirm.query import Key
from gateway.identity.web_client import WebClient, WebFailed

PAGE = 1000
"""Instances per answer; a service may give fewer."""


class Qido:
    """A QIDO-RS service, at the url where STOW-RS is."""

    def __init__(self, settings: StowDestination) -> None:
        """Raises IdentityError when the `tls` or the `auth` table cannot be used."""
        self._url = settings.url.rstrip("/")
        self._client = WebClient(settings)

    def found(self, key: Key, beat: Callable[[], None]) -> set[str]:
        """Page through the instances."""
        found: set[str] = set()
        while True:
            beat()
            page = list(self._page(key, len(found)))
            fresh = set(page) - found
            found |= fresh
            if not fresh:
                return found

    def _page(self, key: Key, offset: int) -> Iterator[str]:
        study, series, instance = (quote(uid, safe="") for uid in key)
        page = f"limit={PAGE}&offset={offset}"
        url = f"{self._url}/{study}/series/{series}/instances?{page}"
        if instance:
            url = f"{self._url.removesuffix('/studies')}/instances?SOPInstanceUID={instance}&{page}"
        try:
            answer = self._client.request("GET", url, {"Accept": "application/dicom+json"})
        except WebFailed as error:
            raise Unanswered(str(error)) from error
        if answer.status in (204, 404):  # nothing there; some services say it so
            return
        if answer.status != 200:
            raise Unanswered(f"QIDO-RS answered HTTP {answer.status}")
        try:
            for entry in json.loads(answer.reply):
                yield _first(entry)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            raise Unanswered("the answer of QIDO-RS cannot be read") from error

    def close(self) -> None:
        """Close kept-alive connections."""
        self._client.close()


def _first(entry: Any) -> str:
    return str(entry["00080018"]["Value"][0])
