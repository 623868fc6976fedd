"""The rules of RFC 5280, section 6, for a path as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from cryptography import x509
from cryptography.x509 import verification

from secure_tls.constraints import constraints_of, find_violation
from secure_tls.errors import PathError

MOST_INTERMEDIATES = 8
"""Between the leaf and the trust anchor."""


def check_whole(path: Sequence[x509.Certificate], now: float) -> None:
    """Check a path, leaf first and trust anchor last, whose signatures and certificates have been
    checked one by one.

    Raises ``PathError``: ``path_length``, ``name_constraints``, ``path``.
    """
    intermediates = len(path) - 2
    if intermediates > MOST_INTERMEDIATES:
        raise PathError("path", f"The path has {intermediates} authorities below its anchor.")
    for below, authority in enumerate(path[1:]):
        allowed = _path_length(authority)
        # Self-issued authorities count too, which is stricter than section 6.1.4 (l).
        if allowed is not None and below > allowed:
            raise PathError(
                "path_length",
                f"The authority {authority.subject.rfc4514_string()[:200]!a} allows {allowed} "
                f"authorities below itself on a path, and there are {below}.",
            )
    if violation := find_violation(path):
        raise PathError("name_constraints", f"Name constraints are violated: {violation}.")
    if all(_knows(constraints_of(each)) for each in path[1:]):
        _ask_library(path, now)


def _knows(constraints: x509.NameConstraints | None) -> bool:
    """Whether the library can apply these: it refuses any path with constraints on other kinds of
    names, such as the URIs of workloads.
    """
    if constraints is None:
        return True
    subtrees = (*(constraints.permitted_subtrees or ()), *(constraints.excluded_subtrees or ()))
    return all(isinstance(each, x509.DNSName | x509.IPAddress) for each in subtrees)


def _path_length(authority: x509.Certificate) -> int | None:
    value = authority.extensions.get_extension_for_class(x509.BasicConstraints).value
    return value.path_length


def _ask_library(path: Sequence[x509.Certificate], now: float) -> None:
    # Real authorities leave out what the web's rules demand: an authority key identifier on
    # leaves, key usage on roots. Certificate policies, even critical ones, restrict nothing here.
    lenient = verification.ExtensionPolicy.permit_all().may_be_present(
        x509.CertificatePolicies, verification.Criticality.AGNOSTIC, None
    )
    authority = lenient.require_present(
        x509.BasicConstraints, verification.Criticality.AGNOSTIC, None
    )
    verifier = (
        verification.PolicyBuilder()
        .store(verification.Store([path[-1]]))
        .time(datetime.fromtimestamp(now, UTC))
        .max_chain_depth(MOST_INTERMEDIATES)
        .extension_policies(ca_policy=authority, ee_policy=lenient)
        .build_client_verifier()
    )
    try:
        verifier.verify(path[0], list(path[1:-1]))
    except verification.VerificationError as error:
        raise PathError(
            "path", f"The path to the certificate's authority does not hold: {error}."
        ) from None
