"""Which client certificates are good now: authorities by trust domain, and revocation lists."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from secure_tls import pem

if TYPE_CHECKING:
    from secure_tls.crl import RevocationList

_MOST_INTERMEDIATES = 4
_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


@dataclass(frozen=True, slots=True, eq=False)
class Trust:
    """What is trusted: an immutable snapshot, replaced whole.

    ``bundles`` holds the authorities of the trust domains that have some of their own (gRFC A87
    has the idea); ``authorities`` are everybody else's. A client of a domain is verified by that
    domain's alone.
    """

    authorities: tuple[x509.Certificate, ...] = field(repr=False)
    bundles: Mapping[str, tuple[x509.Certificate, ...]] = field(repr=False)
    revoked: RevocationList | None = None

    def trusted_until(self, trust_domain: str | None, leaf: bytes, sent: bytes) -> float:
        """Until when a chain leads from the certificate to an authority of its domain, in seconds
        since the epoch; 0 where none does.

        ``leaf`` and ``sent`` are PEM: the certificate, and what the client sent with it. TLS has
        verified the chain when the connection was opened; this says whether it still would.
        """
        authorities = self.bundles.get(trust_domain or "", self.authorities)
        try:
            certificate = x509.load_pem_x509_certificate(leaf)
            intermediates = [
                each
                for block in _BLOCK.findall(sent)[:_MOST_INTERMEDIATES]
                if pem.is_ca(each := x509.load_pem_x509_certificate(block))
            ]
        except pem.MALFORMED:
            return 0.0
        return _until(certificate, intermediates, authorities)


def _until(
    certificate: x509.Certificate,
    intermediates: Sequence[x509.Certificate],
    authorities: Sequence[x509.Certificate],
) -> float:
    """Climb to an authority by whichever way lasts longest."""
    until = 0.0
    for authority in authorities:
        if _issued(authority, certificate):
            until = max(until, authority.not_valid_after_utc.timestamp())
    for number, intermediate in enumerate(intermediates):
        if _issued(intermediate, certificate):
            others = [*intermediates[:number], *intermediates[number + 1 :]]
            end = intermediate.not_valid_after_utc.timestamp()
            until = max(until, min(end, _until(intermediate, others, authorities)))
    return until


def _issued(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
