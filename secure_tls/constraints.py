"""Name constraints: which names an authority may vouch for (RFC 5280, section 4.2.1.10)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.x509.oid import NameOID

Matcher = Callable[[Any, Any], bool | None]
"""Whether a name is in a subtree; None where that is uncertain."""


def find_violation(path: Sequence[x509.Certificate]) -> str:
    """The first name on a path, leaf first, that an authority above it may not issue; else empty.

    The constraints of the trust anchor and of self-issued certificates count too. A constrained
    kind of name that is not understood is a violation.
    """
    for number, authority in enumerate(path):
        constraints = constraints_of(authority)
        if number == 0 or constraints is None:
            continue
        for below in path[:number]:
            for name in _names(below):
                if _breaks(name, constraints):
                    return f"{authority.subject.rfc4514_string()[:200]!a} does not permit {name!a}"
    return ""


def constraints_of(certificate: x509.Certificate) -> x509.NameConstraints | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.NameConstraints).value
    except x509.ExtensionNotFound:
        return None


def _names(certificate: x509.Certificate) -> Iterator[x509.GeneralName]:
    """All names of a certificate that constraints apply to (RFC 5280, section 4.2.1.10)."""
    try:
        yield from certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        for attribute in certificate.subject.get_attributes_for_oid(NameOID.EMAIL_ADDRESS):
            yield x509.RFC822Name(str(attribute.value))
    if certificate.subject.rdns:
        yield x509.DirectoryName(certificate.subject)


def _breaks(name: x509.GeneralName, constraints: x509.NameConstraints) -> bool:
    kind = type(name)
    permitted = [each for each in constraints.permitted_subtrees or () if type(each) is kind]
    excluded = [each for each in constraints.excluded_subtrees or () if type(each) is kind]
    if not permitted and not excluded:
        return False
    matches = _MATCHERS.get(kind)
    if matches is None:
        return True
    if any(matches(name.value, each.value) is not False for each in excluded):
        return True
    return bool(permitted) and not any(matches(name.value, each.value) for each in permitted)


def _is_host_within(host: str, subtree: str) -> bool:
    """A host matches that host only; with a leading dot, its subdomains only."""
    host, subtree = host.lower(), subtree.lower()
    return host.endswith(subtree) if subtree.startswith(".") else host == subtree


def _is_uri_within(uri: str, subtree: str) -> bool | None:
    try:
        host = urlsplit(uri).hostname
    except ValueError:
        host = None
    # Uncertain for a URI without a host, or with an IP address as host.
    if not host or ":" in host or host.rpartition(".")[2].isdecimal():
        return None
    return _is_host_within(host, subtree)


def _is_dns_name_within(name: str, subtree: str) -> bool | None:
    name, subtree = name.lower(), subtree.lower()
    if name.startswith("*.") and subtree.endswith(name[1:]):
        return None  # some of the hosts that the wildcard stands for
    if not subtree or name == subtree:
        return True
    return name.endswith(subtree if subtree.startswith(".") else f".{subtree}")


def _is_mailbox_within(mailbox: str, subtree: str) -> bool | None:
    local, at, host = mailbox.rpartition("@")
    if not at:
        return None
    wanted, at, of_host = subtree.rpartition("@")
    if at:
        return (local, host.lower()) == (wanted, of_host.lower())
    return _is_host_within(host, subtree)


def _is_address_within(address: Any, subtree: Any) -> bool:
    return bool(address.version == subtree.version and address in subtree)


def _is_subject_within(subject: x509.Name, subtree: x509.Name) -> bool:
    ours, theirs = _comparable(subject), _comparable(subtree)
    return ours[: len(theirs)] == theirs


def _comparable(name: x509.Name) -> list[frozenset[tuple[str, object]]]:
    """Case and repeated spaces make no difference (RFC 5280, section 7.1)."""
    return [
        frozenset(
            (
                each.oid.dotted_string,
                " ".join(each.value.split()).casefold()
                if isinstance(each.value, str)
                else each.value,
            )
            for each in rdn
        )
        for rdn in name.rdns
    ]


_MATCHERS: Mapping[type[x509.GeneralName], Matcher] = {
    x509.UniformResourceIdentifier: _is_uri_within,
    x509.DNSName: _is_dns_name_within,
    x509.RFC822Name: _is_mailbox_within,
    x509.IPAddress: _is_address_within,
    x509.DirectoryName: _is_subject_within,
}
