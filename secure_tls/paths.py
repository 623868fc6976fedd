"""Whether a certificate is valid now: path validation (RFC 5280, section 6).

The guard, ``secure-certs verify``, ``secure-server check`` and the start of a server all call this.
First each certificate is checked alone (dates, keys, usages, revocation), then the paths through
the rest, one by one: so each refusal has its true reason, and of several paths one valid one is
enough. ``cryptography.x509.verification`` checks the chosen path last.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from secure_tls import links, pem
from secure_tls.errors import PathError, PeerError
from secure_tls.keys import is_slow, weakness
from secure_tls.links import Links
from secure_tls.lists import IssuerList, RevocationLists
from secure_tls.peer import Peer, parse_peer
from secure_tls.trust import Trust
from secure_tls.whole import MOST_INTERMEDIATES, check_whole

MOST_SENT = MOST_INTERMEDIATES
"""Certificates beside the leaf; a client that sends more is refused."""

_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
# Extensions that this package checks, or that restrict nothing here (policies).
_KNOWN_EXTENSIONS = (
    x509.AuthorityKeyIdentifier,
    x509.BasicConstraints,
    x509.CertificatePolicies,
    x509.ExtendedKeyUsage,
    x509.KeyUsage,
    x509.NameConstraints,
    x509.SubjectAlternativeName,
    x509.SubjectKeyIdentifier,
)
_USAGE_NAMES = {
    ExtendedKeyUsageOID.CLIENT_AUTH: "clientAuth",
    ExtendedKeyUsageOID.SERVER_AUTH: "serverAuth",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on one certificate, and how long it holds.

    ``code`` is empty where the certificate is good, and ``path`` then leads from it to the trust
    anchor. Otherwise ``code`` is stable, ``reason`` a sentence, and ``path`` empty. ``since`` and
    ``until``, seconds since the epoch, both included, bound the time for which the verdict
    holds while ``Trust`` is unchanged. ``peer`` is None where the leaf has no identity.
    """

    code: str
    reason: str
    peer: Peer | None
    path: tuple[x509.Certificate, ...] = field(repr=False)
    since: float
    until: float


def judge_client(leaf: bytes, sent: bytes, trust: Trust, now: float) -> Verdict:
    """Judge a client's certificate as its TLS connection presented it.

    ``leaf`` is one PEM certificate, ``sent`` the PEM texts of the other certificates sent, in any
    order. A leaf with a SPIFFE ID is judged by the authorities of its own trust domain only. The
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
    return replace(verdict, peer=replace(peer, trusted_until=verdict.until))


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
    """Judge whether a path leads from the leaf, through ``sent``, to one of the authorities.

    ``usage`` is the extended key usage that every authority on the path must allow; the leaf's own
    usage and names are not looked at. Codes:

    - ``certificate_dates``: the leaf is not valid now; ``issuer_dates``: an authority on the way;
    - ``weak_key``, ``weak_signature``: RSA below 2048 bits or with an exponent below 65537,
      a kind of key that TLS here does not know, SHA-1 or MD5;
    - ``certificate_authority``: no path leads to one of the authorities;
    - ``issuer_usage``, ``issuer_eku``: an issuer that may not issue, or not for this usage;
    - ``certificate_revoked``, ``issuer_revoked``: on the list of the authority that issued it;
    - ``crl_missing``, ``crl_stale``: with ``refuse_stale_lists``, of any authority on the path;
    - ``path_length``, ``name_constraints``, ``critical_extension``, ``path``: the other rules of
      RFC 5280 for a path.
    """
    graph = Links.above(leaf, sent, authorities)
    inspector = _Inspector(graph, usage, now, lists, refuse_stale_lists=refuse_stale_lists)
    try:
        path = _find_path(graph, inspector)
    except PathError as error:
        return Verdict(
            error.code, error.message, None, (), now, _next_change(inspector.changes(), now)
        )
    since = max(each.not_valid_before_utc.timestamp() for each in path)
    until = min(each.not_valid_after_utc.timestamp() for each in path)
    if refuse_stale_lists:
        # Not of the anchor: no list need cover it, and a stale one may.
        until = min(until, *(inspector.listed_until(each) for each in path[:-1]))
    return Verdict("", "", None, path, since, until)


def why_no_anchor(authority: x509.Certificate, now: float) -> str:
    """Why no path can end at this authority now; empty where one can."""
    problem = _Inspector(Links.above(authority, (), (authority,)), None, now, None).authority(
        authority
    )
    return "" if problem is None else problem.message


def _parse_sent(sent: bytes) -> list[x509.Certificate]:
    blocks = _BLOCK.findall(sent)
    if len(blocks) > MOST_SENT:
        raise PathError("path", f"The client sent {len(blocks)} certificates beside its own.")
    certificates = []
    for block in blocks:
        try:
            certificate = x509.load_pem_x509_certificate(block)
            # Parsed lazily by cryptography: read everything here, so that errors are raised here.
            _ = certificate.extensions, certificate.public_key(), certificate.subject
            _ = certificate.issuer, certificate.signature_hash_algorithm
        except pem.MALFORMED:
            continue  # of an unknown algorithm, say: no path leads through it
        # TLS cannot use such a key, and each signature check with it takes 10 ms.
        if not is_slow(certificate.public_key()):
            certificates.append(certificate)
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
    complaints = []
    for path in graph.paths_to_anchors(graph.without(problems)):
        try:
            check_whole((leaf, *path), inspector.now)
        except PathError as error:
            complaints.append(error)
        else:
            return (leaf, *path)
    raise complaints[0] if complaints else _best_reason(graph, problems)


def _best_reason(graph: Links, problems: Mapping[x509.Certificate, PathError]) -> PathError:
    """Explain a refusal by the path with the fewest problems, from the leaf upwards."""
    found = [
        [problems[each] for each in path if each in problems]
        for path in graph.paths_to_anchors(graph.certificates)
    ]
    if not found:
        return PathError(
            "certificate_authority",
            "No path leads from the certificate to an authority that is trusted for it now.",
        )
    return min(found, key=len)[0]


def _unknown_extension(certificate: x509.Certificate, about: str) -> PathError | None:
    for extension in certificate.extensions:
        if extension.critical and not isinstance(extension.value, _KNOWN_EXTENSIONS):
            oid = extension.oid.dotted_string
            return PathError(
                "critical_extension", f"The {about} has an unknown critical extension, {oid}."
            )
    return None


def _next_change(boundaries: Iterable[float], now: float) -> float:
    """The last moment before the first of these that is in the future."""
    return min(
        (math.nextafter(each, -math.inf) for each in boundaries if each > now), default=math.inf
    )


class _Inspector:
    """Checks certificates one by one, all with the same time, lists and usage."""

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
        return (
            self._strength(leaf, "certificate")
            or _unknown_extension(leaf, "certificate")
            or self._revocation(leaf, "certificate")
        )

    def authority(self, authority: x509.Certificate) -> PathError | None:
        about = f"authority {authority.subject.rfc4514_string()[:200]!a}"
        if not links.is_valid_at(authority, self.now):
            return PathError("issuer_dates", f"The {about} is not valid now.")
        return (
            self._strength(authority, about)
            or self._purpose(authority, about)
            or _unknown_extension(authority, about)
            or self._revocation(authority, about)
        )

    def changes(self) -> list[float]:
        """When the verdict may change, in seconds since the epoch."""
        certificates = self._graph.certificates
        ends = [each.next_update for one in certificates for each in self._lists_about(one)]
        return [*links.boundaries(certificates), *(math.nextafter(end, math.inf) for end in ends)]

    def listed_until(self, certificate: x509.Certificate) -> float:
        """When the revocation list that covers this certificate becomes stale."""
        return max((each.next_update for each in self._covering(certificate)), default=math.inf)

    def _strength(self, certificate: x509.Certificate, about: str) -> PathError | None:
        if weak := weakness(certificate.public_key()):
            return PathError("weak_key", f"The {about} has a weak key: {weak}.")
        # An anchor is trusted by its key: its own signature does not matter.
        weak = links.weak_hash(certificate)
        if weak and certificate not in self._graph.anchors:
            return PathError("weak_signature", f"The {about} is signed with {weak}.")
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
        # Paths end at an anchor: its issuer does not matter.
        if not self._refuse_stale or certificate in self._graph.anchors:
            return None
        if not self._graph.issuers[certificate]:
            return None  # no path leads through it
        found = self._covering(certificate)
        if not found:
            return PathError("crl_missing", f"There is no revocation list for the {about}.")
        if all(self.now > each.next_update for each in found):
            return PathError("crl_stale", f"The revocation list for the {about} is stale.")
        return None

    def _covering(self, certificate: x509.Certificate) -> list[IssuerList]:
        """The lists that would name this certificate if it were revoked."""
        is_leaf = certificate is self._graph.leaf
        found = self._lists_about(certificate)
        return [each for each in found if is_leaf or not each.leaves_only]

    def _lists_about(self, certificate: x509.Certificate) -> list[IssuerList]:
        if self._lists is None:
            return []
        issuers = self._graph.issuers[certificate]
        return [each for issuer in issuers for each in self._lists.all_of(issuer)]
