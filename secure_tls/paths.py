"""Whether a certificate is good now: whole path validation (RFC 5280, section 6), by one judge.

The guard, ``secure-certs verify``, ``secure-server check`` and the start of a server all ask here.
``cryptography.x509.verification`` decides whether a path holds. What it accepts and this project
does not (weak keys, SHA-1, revoked certificates, usages that do not fit) is sorted out before it
is asked, certificate by certificate, so that each refusal has its true reason and one good path
suffices where there are several.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from cryptography import x509
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from secure_tls import links, pem
from secure_tls.errors import PathError, PeerError
from secure_tls.keys import weakness
from secure_tls.links import Links
from secure_tls.lists import IssuerList, RevocationLists
from secure_tls.peer import Peer, parse_peer
from secure_tls.trust import Trust

MOST_SENT = 8
"""Certificates beside the leaf that are looked at; a client that sends more is refused."""

_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_WEAK_HASHES = frozenset({"md5", "sha1"})
_USAGE_NAMES = {
    ExtendedKeyUsageOID.CLIENT_AUTH: "clientAuth",
    ExtendedKeyUsageOID.SERVER_AUTH: "serverAuth",
}
# What the library says of a path that it refuses, and our code for it.
_COMPLAINTS = (
    ("path length", "path_length"),
    ("max depth", "path_length"),
    ("name constraint", "name_constraints"),
    ("nameConstraints", "name_constraints"),
    ("critical", "critical_extension"),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found about one certificate, and for how long that holds.

    ``code`` is empty where the certificate is good, and ``path`` then leads from it to the trust
    anchor. Otherwise ``code`` is stable, ``reason`` a sentence, and ``path`` empty. ``since`` and
    ``until``, seconds since the epoch, both included, bound the time for which the same question
    has the same answer while the trust stays. ``peer`` is None where the leaf has no identity.
    """

    code: str
    reason: str
    peer: Peer | None
    path: tuple[x509.Certificate, ...] = field(repr=False)
    since: float
    until: float

    def holds_at(self, now: float) -> bool:
        """Whether the answer would be the same at ``now``, seconds since the epoch."""
        return self.since <= now <= self.until


def judge_client(leaf: bytes, sent: bytes, trust: Trust, now: float) -> Verdict:
    """Judge a client's certificate as its TLS connection presented it.

    ``leaf`` is one PEM certificate, ``sent`` PEM texts of what the client sent beside it, in any
    order. A leaf with a SPIFFE ID is judged by the authorities of its own trust domain alone. The
    codes are those of ``parse_peer``, ``trust_domain``, and those of ``judge_path``.
    """
    try:
        peer = parse_peer(leaf)
        certificate = x509.load_pem_x509_certificate(leaf)
    except PeerError as error:
        return Verdict(error.code, error.message, None, (), now, math.inf)
    if not trust.admits(peer.trust_domain):
        reason = (
            f"The trust domain of the client certificate, {peer.trust_domain!r}, is not configured."
        )
        return Verdict("trust_domain", reason, peer, (), now, math.inf)
    try:
        others = _parse_sent(sent)
    except PathError as error:
        return Verdict(error.code, error.message, peer, (), now, math.inf)
    verdict = judge_path(
        certificate,
        others,
        trust.authorities_of(peer.trust_domain),
        usage=ExtendedKeyUsageOID.CLIENT_AUTH,
        now=now,
        lists=trust.revoked,
        refuse_stale_lists=trust.refuse_stale_lists,
    )
    return replace(verdict, peer=peer)


def judge_path(
    leaf: x509.Certificate,
    sent: Iterable[x509.Certificate],
    authorities: Sequence[x509.Certificate],
    *,
    usage: ObjectIdentifier,
    now: float,
    lists: RevocationLists | None = None,
    refuse_stale_lists: bool = False,
) -> Verdict:
    """Judge whether a path leads from the leaf, over what was sent, to one of the authorities.

    ``usage`` is the extended key usage that every authority on the path must allow; the leaf's own
    usage and names are not looked at. Codes:

    - ``certificate_dates``: the leaf is not valid now; ``issuer_dates``: an authority on the way;
    - ``weak_key``, ``weak_signature``: RSA below 2048 bits or with an exponent below 65537,
      a kind of key that TLS here does not know, SHA-1 or MD5;
    - ``certificate_authority``: no path leads to one of the authorities;
    - ``issuer_usage``, ``issuer_eku``: an issuer that may not issue, or not for this usage;
    - ``certificate_revoked``, ``issuer_revoked``: on the list of the authority that issued it;
    - ``crl_missing``, ``crl_stale``: with ``refuse_stale_lists``, of any authority on the path;
    - ``path_length``, ``name_constraints``, ``critical_extension``, ``path``: what RFC 5280 else
      demands of a path.
    """
    graph = Links.above(leaf, sent, authorities)
    inspector = _Inspector(graph, usage, now, lists, refuse_stale_lists=refuse_stale_lists)
    boundaries = links.boundaries(graph.certificates)
    try:
        path = _find_path(graph, inspector)
    except PathError as error:
        return Verdict(error.code, error.message, None, (), now, _next_change(boundaries, now))
    since = max(each.not_valid_before_utc.timestamp() for each in path)
    until = min(each.not_valid_after_utc.timestamp() for each in path)
    if refuse_stale_lists:
        until = min(until, *(inspector.listed_until(each) for each in path))
    return Verdict("", "", None, path, since, until)


def why_no_anchor(authority: x509.Certificate, now: float) -> str:
    """Say why no path could end at this authority now; empty where one could."""
    problem = _Inspector(Links.above(authority, (), ()), None, now, None).authority(authority)
    return "" if problem is None else problem.message


def _parse_sent(sent: bytes) -> list[x509.Certificate]:
    blocks = _BLOCK.findall(sent)
    if len(blocks) > MOST_SENT:
        raise PathError("path", f"The client sent {len(blocks)} certificates beside its own.")
    try:
        certificates = [x509.load_pem_x509_certificate(block) for block in blocks]
        for certificate in certificates:
            # Parsed lazily: what is wrong in there must come to light here.
            _ = certificate.extensions, certificate.public_key(), certificate.subject
            _ = certificate.issuer, certificate.signature_hash_algorithm
    except pem.MALFORMED:
        raise PathError(
            "path", "A certificate that the client sent beside its own cannot be parsed strictly."
        ) from None
    return certificates


def _find_path(graph: Links, inspector: _Inspector) -> tuple[x509.Certificate, ...]:
    leaf = graph.leaf
    if (problem := inspector.leaf(leaf)) is not None:
        raise problem
    problems = {
        each: problem
        for each in graph.certificates
        if each is not leaf and (problem := inspector.authority(each)) is not None
    }
    usable = graph.without(problems)
    anchors = [each for each in usable if each in graph.anchors]
    if not anchors:
        raise _best_reason(graph, problems)
    try:
        verified = _verifier(anchors, inspector.now).verify(
            leaf, [each for each in usable if each not in graph.anchors]
        )
    except verification.VerificationError as error:
        raise _complaint(str(error)) from None
    return tuple(verified.chain)


def _verifier(anchors: list[x509.Certificate], now: float) -> verification.ClientVerifier:
    # Real authorities leave out what the web's rules demand: an authority key identifier on
    # leaves, key usage on roots. Certificate policies, even critical ones, restrict nothing here.
    lenient = verification.ExtensionPolicy.permit_all().may_be_present(
        x509.CertificatePolicies, verification.Criticality.AGNOSTIC, None
    )
    authority = lenient.require_present(
        x509.BasicConstraints, verification.Criticality.AGNOSTIC, None
    )
    return (
        verification.PolicyBuilder()
        .store(verification.Store(anchors))
        .time(datetime.fromtimestamp(now, UTC))
        .max_chain_depth(MOST_SENT)
        .extension_policies(ca_policy=authority, ee_policy=lenient)
        .build_client_verifier()
    )


def _best_reason(graph: Links, problems: Mapping[x509.Certificate, PathError]) -> PathError:
    """Explain a refusal by the path that has the fewest problems, from the leaf upwards."""
    found = [
        [problems[each] for each in path if each in problems] for path in graph.paths_to_anchors()
    ]
    if not found:
        return PathError(
            "certificate_authority",
            "No path leads from the certificate to an authority that is trusted for it now.",
        )
    return min(found, key=len)[0]


def _complaint(text: str) -> PathError:
    code = next((code for words, code in _COMPLAINTS if words in text), "path")
    return PathError(code, f"The path to the certificate's authority does not hold: {text}.")


def _next_change(boundaries: Iterable[float], now: float) -> float:
    """The last moment before the first of these that is still to come."""
    return min(
        (math.nextafter(each, -math.inf) for each in boundaries if each > now), default=math.inf
    )


class _Inspector:
    """Looks at one certificate after the other. A class because all are looked at alike."""

    def __init__(
        self,
        graph: Links,
        usage: ObjectIdentifier | None,
        now: float,
        lists: RevocationLists | None,
        *,
        refuse_stale_lists: bool = False,
    ) -> None:
        self._graph = graph
        self._usage = usage
        self._lists = lists
        self._refuse_stale = refuse_stale_lists
        self.now = now

    def leaf(self, leaf: x509.Certificate) -> PathError | None:
        if not links.is_valid_at(leaf, self.now):
            return PathError("certificate_dates", "The certificate is not valid now.")
        return self._strength(leaf, "certificate") or self._revocation(leaf, "certificate")

    def authority(self, authority: x509.Certificate) -> PathError | None:
        about = f"authority {authority.subject.rfc4514_string()[:200]!a}"
        if not links.is_valid_at(authority, self.now):
            return PathError("issuer_dates", f"The {about} is not valid now.")
        return (
            self._strength(authority, about)
            or self._purpose(authority, about)
            or self._revocation(authority, about)
        )

    def listed_until(self, certificate: x509.Certificate) -> float:
        """Until when the list that says that this certificate is not revoked is fresh."""
        return max((each.next_update for each in self._lists_about(certificate)), default=math.inf)

    def _strength(self, certificate: x509.Certificate, about: str) -> PathError | None:
        if weak := weakness(certificate.public_key()):
            return PathError("weak_key", f"The {about} has a weak key: {weak}.")
        algorithm = certificate.signature_hash_algorithm
        # An anchor is trusted by its key: what it is signed with counts for nothing.
        if (
            certificate not in self._graph.anchors
            and algorithm is not None
            and algorithm.name in _WEAK_HASHES
        ):
            return PathError("weak_signature", f"The {about} is signed with {algorithm.name}.")
        return None

    def _purpose(self, authority: x509.Certificate, about: str) -> PathError | None:
        if not links.may_issue(authority):
            return PathError(
                "issuer_usage",
                f"The {about} may not issue certificates: it lacks CA:TRUE or keyCertSign.",
            )
        if self._usage is not None and not links.allows(authority, self._usage):
            name = _USAGE_NAMES[self._usage]
            return PathError("issuer_eku", f"The {about} may not issue for {name}.")
        return None

    def _revocation(self, certificate: x509.Certificate, about: str) -> PathError | None:
        found = self._lists_about(certificate)
        is_leaf = certificate is self._graph.leaf
        if any(certificate.serial_number in each.serials for each in found):
            code = "certificate_revoked" if is_leaf else "issuer_revoked"
            return PathError(code, f"The {about} is revoked.")
        # What nothing here has issued, a root above all, is on no list.
        if not self._refuse_stale or not self._graph.issuers[certificate]:
            return None
        found = [each for each in found if is_leaf or not each.leaves_only]
        if not found:
            return PathError("crl_missing", f"There is no revocation list for the {about}.")
        if all(self.now > each.next_update for each in found):
            return PathError("crl_stale", f"The revocation list for the {about} is stale.")
        return None

    def _lists_about(self, certificate: x509.Certificate) -> list[IssuerList]:
        if self._lists is None:
            return []
        found = [self._lists.of(issuer) for issuer in self._graph.issuers[certificate]]
        return [each for each in found if each is not None]
