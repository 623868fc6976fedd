"""Checks of the names that go into certificates and file names."""

from __future__ import annotations

import ipaddress
import re

from secure_tls.errors import AuthorityError

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?\Z")
_MAX_NAME = 63
# RFC 1035, section 2.3.1, with the leading digits of RFC 1123, section 2.1.
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")
_MAX_DNS_NAME = 253


def check_name(name: str) -> str:
    """Return ``name`` if it is valid for a server or client.

    It becomes a file name and a segment of a SPIFFE ID, so it is plain: at most 63 lower-case
    letters, digits, dots, dashes and underscores, with a letter or digit at both ends. Raises
    ``AuthorityError``.
    """
    if len(name) > _MAX_NAME or not _NAME.match(name):
        raise AuthorityError(
            "name",
            f"{name[:80]!a} is no name for a server or client: use at most 63 lower-case letters, "
            "digits, dots, dashes and underscores, with a letter or digit at both ends.",
        )
    return name


def check_dns_name(name: str) -> str:
    """Return ``name`` in lower case if it is a DNS host name (RFC 1123); no wildcards.

    Raises ``AuthorityError``.
    """
    lowered = name.lower()
    labels = lowered.split(".")
    # Clients would read a name that ends in a number as an IPv4 address.
    if (
        len(lowered) > _MAX_DNS_NAME
        or not all(_LABEL.match(label) for label in labels)
        or labels[-1].isdecimal()
    ):
        raise AuthorityError(
            "dns_name",
            f"{name[:80]!a} is neither a host name nor an IP address: use names like "
            "grpc.example.org (no wildcard, no final dot, no port).",
        )
    return lowered


def split_server_names(names: list[str]) -> tuple[tuple[str, ...], tuple[IPAddress, ...]]:
    """Split into DNS names and IP addresses, without repetitions, in the order given.

    Raises ``AuthorityError`` for a text that is neither.
    """
    dns_names: dict[str, None] = {}
    addresses: dict[IPAddress, None] = {}
    for name in names:
        # A zone (fe80::1%eth0) means something on one machine only, and cannot be written into a
        # certificate.
        address = None if "%" in name else _address(name)
        if address is None:
            dns_names[check_dns_name(name)] = None
        else:
            addresses[address] = None
    return tuple(dns_names), tuple(addresses)


def _address(text: str) -> IPAddress | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
