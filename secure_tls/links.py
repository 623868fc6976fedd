"""Which certificate was issued by which: the graph that paths are searched in."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from secure_tls import pem

_MOST_STEPS = 256
"""In the search for paths: a client may send certificates that all lead to each other."""

_WEAK_HASHES = frozenset({"md5", "sha1"})


@dataclass(frozen=True, slots=True)
class Links:
    """A leaf, its possible issuers, their issuers, and so on.

    ``issuers`` maps each certificate to those whose name and key fit its signature. Nothing else
    about them has been checked.
    """

    leaf: x509.Certificate
    anchors: frozenset[x509.Certificate]
    issuers: Mapping[x509.Certificate, tuple[x509.Certificate, ...]]

    @classmethod
    def above(
        cls,
        leaf: x509.Certificate,
        sent: Iterable[x509.Certificate],
        anchors: Sequence[x509.Certificate],
    ) -> Self:
        """Follow signatures from the leaf through the certificates sent to the trust anchors."""
        candidates = tuple(dict.fromkeys((*anchors, *sent)))
        issuers: dict[x509.Certificate, tuple[x509.Certificate, ...]] = {}
        to_climb = [leaf]
        while to_climb:
            certificate = to_climb.pop()
            if certificate not in issuers:
                issuers[certificate] = tuple(
                    each
                    for each in candidates
                    if each != certificate and _signed(each, certificate)
                )
                to_climb += issuers[certificate]
        return cls(leaf, frozenset(anchors) & issuers.keys(), issuers)

    @property
    def certificates(self) -> Collection[x509.Certificate]:
        """All certificates in the graph, the leaf first."""
        return self.issuers.keys()

    def without(self, refused: Collection[x509.Certificate]) -> frozenset[x509.Certificate]:
        """The certificates above the leaf from which a path of unrefused ones leads to an anchor.

        Dead ends are left out: a client could send many certificates that only lead to each
        other, to make the search for a path long.
        """
        reached = {each for each in self.anchors if each not in refused}
        grows = True
        while grows:
            more = {
                each
                for each, issuers in self.issuers.items()
                if each not in reached and each not in refused and not reached.isdisjoint(issuers)
            }
            reached |= more
            grows = bool(more)
        above = self._reached_from_leaf(reached)
        return frozenset(above)

    def _reached_from_leaf(self, allowed: Collection[x509.Certificate]) -> set[x509.Certificate]:
        above: set[x509.Certificate] = set()
        to_climb = [each for each in self.issuers[self.leaf] if each in allowed]
        while to_climb:
            certificate = to_climb.pop()
            if certificate not in above:
                above.add(certificate)
                to_climb += [each for each in self.issuers[certificate] if each in allowed]
        return above

    def paths_to_anchors(
        self, over: Collection[x509.Certificate]
    ) -> Iterator[tuple[x509.Certificate, ...]]:
        """The paths from above the leaf to an anchor through these only, shorter ones first; not
        all of them where there are very many.
        """
        open_paths: list[tuple[x509.Certificate, ...]] = [
            (each,) for each in self.issuers[self.leaf] if each in over
        ]
        for _ in range(_MOST_STEPS):
            if not open_paths:
                return
            path = open_paths.pop(0)
            if path[-1] in self.anchors:
                yield path
            else:
                open_paths += [
                    (*path, each)
                    for each in self.issuers[path[-1]]
                    if each in over and each not in path
                ]


def _signed(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    if issuer.subject != certificate.issuer:
        return False
    if weak_hash(certificate):
        return True  # too weak to be verified, and refused for that
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def weak_hash(certificate: x509.Certificate) -> str:
    """The hash function of its signature where it is broken (SHA-1, MD5), else empty."""
    try:
        algorithm = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return ""
    return algorithm.name if algorithm is not None and algorithm.name in _WEAK_HASHES else ""


def is_valid_at(certificate: x509.Certificate, now: float) -> bool:
    """Whether ``now``, seconds since the epoch, is in the validity period; both ends are.

    RFC 5280, section 4.1.2.5.
    """
    start = certificate.not_valid_before_utc.timestamp()
    return start <= now <= certificate.not_valid_after_utc.timestamp()


def boundaries(certificates: Iterable[x509.Certificate]) -> list[float]:
    """The times at which one of the certificates becomes valid or expires."""
    return [
        moment
        for each in certificates
        for moment in (
            each.not_valid_before_utc.timestamp(),
            math.nextafter(each.not_valid_after_utc.timestamp(), math.inf),
        )
    ]


def may_issue(certificate: x509.Certificate) -> bool:
    """Whether it may issue certificates (RFC 5280, sections 4.2.1.3 and 4.2.1.9)."""
    if not pem.is_ca(certificate):
        return False
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return True  # real roots lack it
    return usage.key_cert_sign


def allows(authority: x509.Certificate, usage: ObjectIdentifier) -> bool:
    """Whether the authority's extended key usage, if it has one, allows this one below it."""
    try:
        usages = authority.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return usage in usages or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in usages
