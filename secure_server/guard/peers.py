"""Who is on the wire, from what the transport verified; parsed once a certificate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from secure_server.bounded import Bounded
from secure_server.guard.refusal import Answer, Refusal
from secure_tls.crl import RevocationList
from secure_tls.errors import PeerError
from secure_tls.peer import Peer, parse_peer

_MOST_PEERS = 10_000
_SECURE_TRANSPORTS = (b"ssl", b"tls")  # gRPC is about to rename the one to the other
_VERSIONS = {"1.2": (b"TLSv1.2", b"TLSv1.3"), "1.3": (b"TLSv1.3",)}


@dataclass(slots=True)
class _Parsed:
    peer: Peer
    checked_against: RevocationList | None


class Peers:
    """Turns gRPC's ``auth_context`` into a ``Peer``, or refuses.

    gRPC verified the chain when the connection was opened. What can change since, the dates and the
    revocation list, is asked on every call: a connection outlives both.
    """

    def __init__(
        self,
        *,
        trust_domains: frozenset[str],
        minimum_tls: str,
        revocation_list: RevocationList | None = None,
    ) -> None:
        """Admit peers of these SPIFFE trust domains, over TLS ``1.2`` or ``1.3`` at least."""
        self._trust_domains = trust_domains
        self._versions = _VERSIONS[minimum_tls]
        self._parsed: Bounded[bytes, _Parsed] = Bounded(_MOST_PEERS)
        self.revocation_list = revocation_list

    def knows(self, transport: Mapping[str, Sequence[bytes]]) -> bool:
        """Whether ``identify`` would parse nothing."""
        certificates = transport.get("x509_pem_cert")
        return not certificates or self._parsed.get(certificates[0]) is not None

    def identify(self, transport: Mapping[str, Sequence[bytes]], now: float) -> Peer | None:
        """Return the peer, or None for TLS without a client certificate. Raises ``Refusal``."""
        if not transport or transport["transport_security_type"][0] not in _SECURE_TRANSPORTS:
            raise _refused("plaintext", "The connection is not TLS.")
        if transport["ssl_tls_version"][0] not in self._versions:
            raise _refused("tls_version", "The connection's TLS version is below the minimum.")
        certificates = transport.get("x509_pem_cert")
        if not certificates:
            return None
        pem = certificates[0]
        parsed = self._parsed.get(pem)
        if parsed is None:
            parsed = _Parsed(self._parse(pem), None)
            self._parsed.put(pem, parsed)
        peer = parsed.peer
        if not peer.is_valid_at(now):
            raise _refused("certificate_dates", "The client certificate is not valid now.", peer)
        revocation_list = self.revocation_list
        if parsed.checked_against is not revocation_list and revocation_list is not None:
            if revocation_list.is_revoked(peer.issuer, peer.serial):
                raise _refused("certificate_revoked", "The client certificate is revoked.", peer)
            parsed.checked_against = revocation_list
        return peer

    def _parse(self, pem: bytes) -> Peer:
        try:
            peer = parse_peer(pem)
        except PeerError as error:
            raise _refused(error.code, str(error)) from None
        if peer.trust_domain not in self._trust_domains:
            raise _refused(
                "trust_domain",
                f"The client certificate's trust domain, {peer.trust_domain!r}, is not configured.",
                peer,
            )
        return peer


def _refused(code: str, detail: str, peer: Peer | None = None) -> Refusal:
    unverified = {"spiffe_id": peer.spiffe_id} if peer is not None and peer.spiffe_id else {}
    return Refusal(Answer.CREDENTIALS_REFUSED, code, detail, unverified)
