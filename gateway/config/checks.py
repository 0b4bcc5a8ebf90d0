"""What the schema cannot see: tables that contradict each other, and things outside the file.

These rules read the raw document, so that they speak even while the schema still has complaints.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gateway.config.deidentify import key_fault
from gateway.config.lines import Key

Finding = tuple[Key, str]
Raw = Mapping[str, Any]

_LOOKS_LIKE_IPV4 = re.compile(r"^[\d.]+$")


def findings(raw: Raw, folder: Path) -> Iterator[Finding]:
    """Yield (key, sentence) for every contradiction; relative paths are looked up in `folder`."""
    yield from _names_used_twice(raw)
    yield from _unknown_names(raw)
    yield from _unknown_deidentify(raw)
    yield from _keys(raw, folder)
    yield from _missing_codecs(raw)
    yield from _ports_used_twice(raw)
    yield from _addresses(raw)
    yield from files(raw, folder)
    yield from _folders(raw, folder)


def near(word: str, known: list[str]) -> str:
    """Return "; did you mean …?" when one of `known` is spelled much like `word`, else nothing."""
    match = get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean '{match[0]}'?" if match else ""


def _tables(raw: Raw, kind: str) -> Iterator[tuple[Key, Raw]]:
    tables = raw.get(kind)
    for index, table in enumerate(tables if isinstance(tables, list) else []):
        if isinstance(table, dict):
            yield (kind, index), table


def _names_used_twice(raw: Raw) -> Iterator[Finding]:
    for kind in ("destination", "modality", "morph", "deidentify"):
        seen: set[str] = set()
        for key, table in _tables(raw, kind):
            name = table.get("name")
            if isinstance(name, str) and name in seen:
                yield (*key, "name"), f"{kind} name '{name}' is used twice"
            elif isinstance(name, str):
                seen.add(name)


def _unknown_names(raw: Raw) -> Iterator[Finding]:
    for named_by, kind in (("to", "destination"), ("morph", "morph")):
        known = [str(table.get("name")) for _, table in _tables(raw, kind)]
        for key, route in _tables(raw, "route"):
            names = route.get(named_by)
            for index, name in enumerate(names if isinstance(names, list) else []):
                if isinstance(name, str) and name not in known:
                    yield (*key, named_by, index), f"no {kind} is called '{name}'{near(name, known)}"


def _unknown_deidentify(raw: Raw) -> Iterator[Finding]:
    known = [str(table.get("name")) for _, table in _tables(raw, "deidentify")]
    for key, route in _tables(raw, "route"):
        name = route.get("deidentify")
        if isinstance(name, str) and name not in known:
            yield (*key, "deidentify"), f"no [[deidentify]] is called '{name}'{near(name, known)}"


def _keys(raw: Raw, folder: Path) -> Iterator[Finding]:
    for key, table in _tables(raw, "deidentify"):
        path = table.get("key_file")
        sentence = key_fault(folder / path) if isinstance(path, str) and "\0" not in path else ""
        if sentence:
            yield (*key, "key_file"), sentence


def _missing_codecs(raw: Raw) -> Iterator[Finding]:
    for key, destination in _tables(raw, "destination"):
        if destination.get("compression") == "htj2k" and importlib.util.find_spec("imagecodecs") is None:
            yield (*key, "compression"), "htj2k takes an extra: pip install 'dicom-edge-gateway[htj2k]'"


def _ports_used_twice(raw: Raw) -> Iterator[Finding]:
    """Two listeners collide on one port when their address is the same or one binds every address."""
    everywhere = {"0.0.0.0", "::"}
    taken: dict[object, list[str]] = {}
    for key, listener in _tables(raw, "listener"):
        port, address = listener.get("port", 11112), str(listener.get("address", "0.0.0.0"))
        others = taken.setdefault(port, [])
        if address in others or (others and (address in everywhere or everywhere.intersection(others))):
            yield (*key, "port"), f"port {port} is taken by another [[listener]]"
        others.append(address)


def _addresses(raw: Raw) -> Iterator[Finding]:
    for key, listener in _tables(raw, "listener"):
        address = listener.get("address")
        if isinstance(address, str) and not _is_address(address):
            yield (*key, "address"), f"'{address}' is not an IPv4 or IPv6 address"
    for key, destination in _tables(raw, "destination"):
        host, url = destination.get("host"), destination.get("url")
        if isinstance(host, str) and (not host.strip() or (_LOOKS_LIKE_IPV4.match(host) and not _is_address(host))):
            yield (*key, "host"), f"'{host}' is neither a host name nor an IPv4 or IPv6 address"
        if isinstance(url, str):
            yield from (((*key, "url"), sentence) for sentence in _url_faults(url))


def _is_address(text: str) -> bool:
    try:
        ip_address(text.partition("%")[0])  # a link-local address may name its interface (RFC 4007)
    except ValueError:
        return False
    return True


def _url_faults(url: str) -> Iterator[str]:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        yield f"is not a URL: {error}"
        return
    if not host:
        yield "names no host"
    if parts.username or parts.password:
        yield "holds a user name or password; secrets stand in files of their own"


def files(raw: Any, folder: Path, key: Key = ()) -> Iterator[Finding]:
    """Yield (key, sentence) where a key that ends in `_file` names no file that can be read."""
    if isinstance(raw, list):
        for index, element in enumerate(raw):
            yield from files(element, folder, (*key, index))
    elif isinstance(raw, dict):
        for name, value in raw.items():
            if isinstance(value, (dict, list)):
                yield from files(value, folder, (*key, name))
            elif name.endswith("_file") and isinstance(value, str):
                sentence = _file_fault(folder / value)
                if sentence:
                    yield (*key, name), sentence


def _file_fault(path: Path) -> str:
    try:
        if not path.exists():
            return f"there is no file {path}"
        if not path.is_file():
            return f"{path} is not a file"
    except (OSError, ValueError):
        return f"{path} cannot be looked at"
    return "" if os.access(path, os.R_OK) else f"{path} cannot be read by this user"


def _folders(raw: Raw, folder: Path) -> Iterator[Finding]:
    """A drop folder may be absent (it is made), but not be a file, watched twice, or fed by ourselves."""
    watched: list[Path] = []
    for key, table in _tables(raw, "folder"):
        if not isinstance(table.get("path"), str):
            continue
        path = Path(os.path.normpath(folder / table["path"]))
        if path.exists() and not path.is_dir():
            yield (*key, "path"), f"{path} is not a folder"
        if any(path.is_relative_to(other) or other.is_relative_to(path) for other in watched):
            yield (*key, "path"), f"{path} is watched by another [[folder]] already"
        watched.append(path)
    for key, table in _tables(raw, "destination"):
        if table.get("kind") == "folder" and isinstance(table.get("path"), str):
            path = Path(os.path.normpath(folder / table["path"]))
            if path.exists() and not path.is_dir():
                yield (*key, "path"), f"{path} is not a folder"
            if any(path.is_relative_to(other) for other in watched):
                yield (*key, "path"), f"{path} lies in a drop folder: what is sent would come in again"
