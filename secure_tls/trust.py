"""Whom a server trusts: authorities by trust domain, and their revocation lists."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from cryptography import x509

from secure_tls.lists import RevocationLists

_NO_BUNDLES: Mapping[str, tuple[x509.Certificate, ...]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Trust:
    """What is trusted: an immutable snapshot, replaced whole.

    ``bundles`` holds the authorities of trust domains that have their own (as in gRFC A87);
    ``authorities`` are for all other peers. ``trust_domains`` are the SPIFFE trust domains whose
    members are admitted, None for all. With ``refuse_stale_lists`` a certificate is valid only
    while there is a fresh revocation list of every authority on its path. Two are equal only with
    the same ``lists`` object.
    """

    authorities: tuple[x509.Certificate, ...] = field(repr=False)
    bundles: Mapping[str, tuple[x509.Certificate, ...]] = field(
        default_factory=lambda: _NO_BUNDLES, repr=False
    )
    revoked: RevocationLists | None = None
    trust_domains: frozenset[str] | None = None
    refuse_stale_lists: bool = False

    def admits(self, trust_domain: str | None) -> bool:
        """Whether members of this trust domain are admitted; None: peers without a SPIFFE ID."""
        return self.trust_domains is None or trust_domain in self.trust_domains

    def authorities_of(self, trust_domain: str | None) -> tuple[x509.Certificate, ...]:
        """The only authorities that may issue to members of this trust domain."""
        return self.bundles.get(trust_domain or "", self.authorities)
