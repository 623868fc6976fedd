"""SPIFFE IDs, the names of workloads, parsed strictly."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from secure_tls.errors import SpiffeIDError

_SCHEME = "spiffe://"
# SPIFFE-ID standard, section 2.3: the limits, in bytes, that every implementation supports.
_MAX_ID = 2048
_MAX_TRUST_DOMAIN = 255
# \Z and not $, which would let a line break follow.
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]+\Z")
_SEGMENT = re.compile(r"[A-Za-z0-9._-]+\Z")


def check_trust_domain(text: str) -> str:
    """Return ``text`` if it is a trust domain name (SPIFFE-ID, section 2.1).

    Raises ``SpiffeIDError``: empty, longer than 255 bytes, or another character than lower-case
    letters, digits, dots, dashes and underscores (so no port and no user information).
    """
    if not text:
        raise SpiffeIDError(
            "trust_domain", "The trust domain is empty: name one, like example.org."
        )
    if len(text) > _MAX_TRUST_DOMAIN:
        raise SpiffeIDError("trust_domain", "The trust domain is longer than 255 bytes.")
    if not _TRUST_DOMAIN.match(text):
        raise SpiffeIDError(
            "trust_domain",
            f"{text!a} is no trust domain: it consists of lower-case letters, digits, dots, "
            "dashes and underscores.",
        )
    return text


def _check_path(path: str) -> None:
    if not path:
        return
    for segment in path[1:].split("/"):
        if not segment:
            raise SpiffeIDError(
                "path", "A SPIFFE ID's path has no empty segments and no trailing slash."
            )
        if segment in {".", ".."}:
            raise SpiffeIDError("path", "A SPIFFE ID's path has no dot segments.")
        # This also refuses percent-encoding, a query and a fragment.
        if not _SEGMENT.match(segment):
            raise SpiffeIDError(
                "path",
                f"The path segment {segment[:80]!a} has other characters than letters, digits, "
                "dots, dashes and underscores.",
            )


@dataclass(frozen=True, slots=True)
class SpiffeID:
    """A SPIFFE ID (SPIFFE-ID standard, section 2): ``spiffe://`` trust domain and path.

    ``path`` is empty, or starts with a slash. An ID has exactly one spelling, so IDs are equal if
    and only if their texts are.
    """

    trust_domain: str
    path: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``text``. Raises ``SpiffeIDError``."""
        # Non-ASCII is refused below, so each character is one byte.
        if len(text) > _MAX_ID:
            raise SpiffeIDError("length", "The SPIFFE ID is longer than 2048 bytes.")
        if not text.startswith(_SCHEME):
            raise SpiffeIDError("scheme", "A SPIFFE ID starts with spiffe:// in lower case.")
        trust_domain, slash, rest = text.removeprefix(_SCHEME).partition("/")
        check_trust_domain(trust_domain)
        path = slash + rest
        _check_path(path)
        return cls(trust_domain, path)

    def __str__(self) -> str:
        return f"{_SCHEME}{self.trust_domain}{self.path}"
