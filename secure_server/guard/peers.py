"""Who is on the wire, from what the transport verified; parsed once a certificate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from secure_server.bounded import Bounded
from secure_server.guard.refusal import Answer, Refusal
from secure_tls.crl import RevocationList
from secure_tls.errors import PeerError
from secure_tls.peer import Peer, parse_peer
from secure_tls.trust import Trust

_MOST_PEERS = 10_000
_SECURE_TRANSPORTS = (b"ssl", b"tls")  # gRPC is about to rename the one to the other
_VERSIONS = {"1.2": (b"TLSv1.2", b"TLSv1.3"), "1.3": (b"TLSv1.3",)}


@dataclass(slots=True)
class _Parsed:
    peer: Peer
    checked_against: Trust | None = None
    trusted_until: float = 0.0


class Peers:
    """Turns gRPC's ``auth_context`` into a ``Peer``, or refuses.

    gRPC verified the chain when the connection was opened. What can change since is asked on every
    call, for a connection outlives it: the dates, the authorities, the revocation lists.
    ``trust`` may be replaced at any time.
    """

    def __init__(
        self,
        *,
        trust_domains: frozenset[str],
        minimum_tls: str,
        trust: Trust | None = None,
        refuse_stale_crl: bool = False,
    ) -> None:
        """Admit peers of these SPIFFE trust domains, over TLS ``1.2`` or ``1.3`` at least.

        Without ``trust`` what TLS verified when the connection was opened is believed. With
        ``refuse_stale_crl`` a certificate is only good while its issuer's revocation list is fresh.
        """
        self._trust_domains = trust_domains
        self._versions = _VERSIONS[minimum_tls]
        self._refuse_stale_crl = refuse_stale_crl
        self._parsed: Bounded[bytes, _Parsed] = Bounded(_MOST_PEERS)
        self.trust = trust

    def knows(self, transport: Mapping[str, Sequence[bytes]]) -> bool:
        """Whether ``identify`` would parse and verify nothing."""
        certificates = transport.get("x509_pem_cert")
        if not certificates:
            return True
        parsed = self._parsed.get(certificates[0])
        return parsed is not None and parsed.checked_against is self.trust

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
            parsed = _Parsed(self._parse(pem))
            self._parsed.put(pem, parsed)
        peer = parsed.peer
        if not peer.is_valid_at(now):
            raise _refused("certificate_dates", "The client certificate is not valid now.", peer)
        trust = self.trust
        if trust is not None:
            if parsed.checked_against is not trust:
                self._check(parsed, trust, pem, transport)
            if now > parsed.trusted_until:
                raise _refused(
                    "certificate_authority",
                    "The authority of the client certificate is not trusted now.",
                    peer,
                )
            if self._refuse_stale_crl:
                _check_fresh(trust.revoked, peer, now)
        return peer

    def _check(
        self, parsed: _Parsed, trust: Trust, pem: bytes, transport: Mapping[str, Sequence[bytes]]
    ) -> None:
        peer = parsed.peer
        if trust.revoked is not None and trust.revoked.is_revoked(peer.issuer, peer.serial):
            raise _refused("certificate_revoked", "The client certificate is revoked.", peer)
        sent = b"".join(transport.get("x509_pem_cert_chain", ()))
        parsed.trusted_until = trust.trusted_until(peer.trust_domain, pem, sent)
        parsed.checked_against = trust

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


def _check_fresh(revoked: RevocationList | None, peer: Peer, now: float) -> None:
    if revoked is None or not revoked.knows(peer.issuer):
        raise _refused("crl_missing", "There is no revocation list of its authority.", peer)
    if revoked.is_stale(now):
        raise _refused("crl_stale", "The revocation list is stale.", peer)


def _refused(code: str, detail: str, peer: Peer | None = None) -> Refusal:
    unverified = {"spiffe_id": peer.spiffe_id} if peer is not None and peer.spiffe_id else {}
    return Refusal(Answer.CREDENTIALS_REFUSED, code, detail, unverified)
