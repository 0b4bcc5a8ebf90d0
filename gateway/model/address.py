"""IP addresses as peers have them."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address


def address_of(text: str) -> IPv4Address | IPv6Address | None:
    """Read an address without its interface (RFC 4007), an IPv4 address in IPv6 clothes as IPv4; None if it is none."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
