"""`network.toml` beside `gateway.toml`: the addresses of an image's network ports. Without it each asks for one."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_address, ip_interface
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from gateway.config.base import Table
from gateway.config.checks import Finding, Raw


def _interface(value: str) -> str:
    if value != "dhcp":
        ip_interface(value)
        if "/" not in value:
            raise ValueError('say how large the network is: "192.0.2.5/24"')
    return value


def _address(value: str) -> str:
    ip_address(value)
    return value


Address = Annotated[str, AfterValidator(_address)]
Host = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.:-]{1,253}$")]


class InterfaceSettings(Table):
    """`[[interface]]`: one network port."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,15}$", description="As the box's screen names it: eth0, enp1s0.")
    address: Annotated[str, AfterValidator(_interface)] = Field(
        "dhcp", description='A fixed address with the size of its network, "192.0.2.5/24"; or "dhcp".'
    )
    gateway: Address | None = Field(
        None, description="The router, on the uplink's side only; with dhcp it comes by itself."
    )
    dns: list[Address] = Field([], description="Name servers.")
    ntp: list[Host] = Field([], description="Time servers.")


class NetworkSettings(Table):
    """The whole file."""

    interface: list[InterfaceSettings] = Field(
        [], description="The ports; those that are not named ask for an address."
    )


def contradictions(raw: Raw, folder: Path) -> Iterator[Finding]:
    """Yield what the schema cannot see: ports named twice, routers that cannot be reached, two ways out."""
    tables = raw.get("interface")
    tables = [table if isinstance(table, dict) else {} for table in tables] if isinstance(tables, list) else []
    names = [table.get("name") for table in tables]
    out = [index for index, table in enumerate(tables) if table.get("gateway") is not None]
    for index, table in enumerate(tables):
        if names[index] is not None and names.index(names[index]) < index:
            yield ("interface", index, "name"), f"interface '{names[index]}' is there twice"
        router, own = _parsed(ip_address, table.get("gateway")), _parsed(ip_interface, table.get("address", "dhcp"))
        if table.get("gateway") is not None and table.get("address", "dhcp") == "dhcp":
            yield ("interface", index, "gateway"), "comes by itself with dhcp: leave it out, or give an address"
        elif router is not None and isinstance(own, (IPv4Interface, IPv6Interface)) and router not in own.network:
            yield ("interface", index, "gateway"), f"{router} is not in the network {own.network} of this port"
    for index in out[1:]:
        yield ("interface", index, "gateway"), "there is a router already: the box has one way out"


def _parsed(parse: object, text: object) -> IPv4Address | IPv6Address | IPv4Interface | IPv6Interface | None:
    try:
        return parse(text) if isinstance(text, str) else None  # type: ignore[operator]
    except ValueError:
        return None
