"""The peer of a connection; its certificate and chain are verified once and cached."""

from __future__ import annotations

from secure_base.bounded_cache import BoundedCache
from secure_base.reloading.watched import Watched
from secure_server.guard.call import Transport
from secure_server.guard.refusal import Refusal, RefusalReason
from secure_server.guard.tls_set import TLSSet
from secure_tls.paths import Verdict, judge_client
from secure_tls.peer import Peer
from secure_tls.trust import Trust

_MOST_PEERS = 10_000
_MOST_CHAINS = 16  # cached per leaf: a client that varies its chain evicts only its own
_MOST_JUDGED = 32  # chains verified per leaf and minute: each takes milliseconds
_MINUTE = 60.0
_MOST_BYTES = 32 * 1024  # of a chain in PEM, which the cache holds
_SECURE_TRANSPORTS = (b"ssl", b"tls")  # gRPC is renaming the first to the second
_VERSIONS = {"1.2": (b"TLSv1.2", b"TLSv1.3"), "1.3": (b"TLSv1.3",)}


class _Judged:
    """The verdicts of one trust snapshot about a leaf, by the chain sent with it."""

    __slots__ = ("_count", "_since", "_verdicts", "last", "trust")

    def __init__(self, trust: Trust) -> None:
        self.trust = trust
        self.last: tuple[bytes, Verdict | None] = (b"", None)
        """The last chain and its verdict: comparing costs less than hashing."""
        self._verdicts: BoundedCache[bytes, Verdict] = BoundedCache(_MOST_CHAINS)
        self._since = float("-inf")
        self._count = 0

    def find(self, sent: bytes) -> Verdict | None:
        """Return the cached verdict about this chain, or None."""
        verdict = self._verdicts.get(sent)
        if verdict is not None:
            self.last = (sent, verdict)
        return verdict

    def add(self, sent: bytes, verdict: Verdict) -> None:
        self._verdicts.put(sent, verdict)
        self.last = (sent, verdict)

    def may_judge(self, now: float) -> bool:
        """Whether another chain of this leaf may be verified within this minute."""
        if not self._since <= now < self._since + _MINUTE:
            self._since, self._count = now, 0
        self._count += 1
        return self._count <= _MOST_JUDGED


class Peers:
    """Turns gRPC's ``auth_context`` into a ``Peer``, or refuses.

    gRPC verified the chain when the connection was opened. Dates, authorities and revocation lists
    can change while the connection lives, so every call checks them.
    """

    def __init__(self, tls: Watched[TLSSet]) -> None:
        """Admit peers that the current ``tls.value.trust`` accepts, over its TLS version."""
        self._tls = tls
        self._judged: BoundedCache[bytes, _Judged] = BoundedCache(_MOST_PEERS)

    def knows(self, transport: Transport, now: float) -> bool:
        """Whether ``identify`` has its answer cached, and would parse and verify nothing."""
        certificates = transport.get("x509_pem_cert")
        if not certificates:
            return True
        verdict = self._known(certificates[0], transport, self._tls.value.trust)
        return verdict is not None and verdict.since <= now <= verdict.until

    def known(self, transport: Transport) -> Peer | None:
        """Return the peer, if the verdict about this certificate and chain is cached and good."""
        certificates = transport.get("x509_pem_cert")
        if not certificates:
            return None
        verdict = self._known(certificates[0], transport, self._tls.value.trust)
        return None if verdict is None or verdict.code else verdict.peer

    def identify(self, transport: Transport, now: float) -> Peer | None:
        """Return the peer, or None for TLS without a client certificate. Raises ``Refusal``."""
        if not transport or transport["transport_security_type"][0] not in _SECURE_TRANSPORTS:
            raise Refusal(RefusalReason.PLAINTEXT, "The connection is not TLS.")
        tls = self._tls.value  # once: all of the answer is by one set
        if transport["ssl_tls_version"][0] not in _VERSIONS[tls.minimum_version]:
            raise Refusal(
                RefusalReason.TLS_VERSION, "The connection's TLS version is below the minimum."
            )
        certificates = transport.get("x509_pem_cert")
        if not certificates:
            return None
        leaf = certificates[0]
        verdict = self._known(leaf, transport, tls.trust)
        if verdict is None or not verdict.since <= now <= verdict.until:
            verdict = self._judge(leaf, transport, tls.trust, now)
        if verdict.code:
            raise _refused(verdict.code, verdict.reason, verdict.peer)
        return verdict.peer

    def _known(self, leaf: bytes, transport: Transport, trust: Trust) -> Verdict | None:
        judged = self._judged.get(leaf)
        if judged is None or judged.trust is not trust:
            return None
        sent = transport.get("x509_pem_cert_chain")
        chain = sent[0] if sent else b""
        last, verdict = judged.last
        return verdict if last == chain else judged.find(chain)

    def _judge(self, leaf: bytes, transport: Transport, trust: Trust, now: float) -> Verdict:
        judged = self._judged.get(leaf)
        if judged is None or judged.trust is not trust:
            judged = _Judged(trust)
            self._judged.put(leaf, judged)
        # gRPC passes the certificates after the leaf as one text, or none.
        sent = b"".join(transport.get("x509_pem_cert_chain", ()))
        if len(sent) > _MOST_BYTES or not judged.may_judge(now):
            raise _refused(
                "path", "The client sends too many or too large certificates in its chain.", None
            )
        verdict = judge_client(leaf, sent, trust, now)
        judged.add(sent, verdict)
        return verdict


def _refused(code: str, detail: str, peer: Peer | None) -> Refusal:
    unverified = {"spiffe_id": peer.spiffe_id} if peer is not None and peer.spiffe_id else {}
    return Refusal(RefusalReason.CERTIFICATE, detail, code=code, unverified=unverified)
