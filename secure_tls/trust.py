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

    ``bundles`` holds the authorities of the trust domains that have some of their own (gRFC A87
    has the idea); ``authorities`` are everybody else's. ``trust_domains`` are the SPIFFE trust
    domains whose members are let in, None for all. With ``refuse_stale_lists`` a certificate is
    only good while there is a fresh revocation list of every authority on its path. Two are equal
    whose lists are the very same.
    """

    authorities: tuple[x509.Certificate, ...] = field(repr=False)
    bundles: Mapping[str, tuple[x509.Certificate, ...]] = field(
        default_factory=lambda: _NO_BUNDLES, repr=False
    )
    revoked: RevocationLists | None = None
    trust_domains: frozenset[str] | None = None
    refuse_stale_lists: bool = False

    def admits(self, trust_domain: str | None) -> bool:
        """Whether members of this trust domain are let in; None is for those of no domain."""
        return self.trust_domains is None or trust_domain in self.trust_domains

    def authorities_of(self, trust_domain: str | None) -> tuple[x509.Certificate, ...]:
        """The only authorities that may vouch for members of this trust domain."""
        return self.bundles.get(trust_domain or "", self.authorities)
