"""Renewing leaves: a new key and certificate for the same name, in place of the old ones."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from cryptography import x509

from secure_tls import files, own_list, pem, replaced
from secure_tls.authority import BACKDATE, MAX_LEAF_LIFETIME, Authority, Issued
from secure_tls.check import describe_certificate
from secure_tls.errors import TLSFileError
from secure_tls.keys import generate_like, is_servable
from secure_tls.outcome import FileState, Outcome
from secure_tls.pairs import replace_pair, sole_run
from secure_tls.template import Template

if TYPE_CHECKING:
    from collections.abc import Sequence

    from secure_tls.crl import ParsedList
    from secure_tls.layout import Layout, Leaf


def renew(
    layout: Layout, names: Sequence[str] = (), *, within: timedelta | None = None
) -> list[Outcome]:
    """Renew the leaves of these names, or all that are due, and keep the list fresh.

    A leaf is due when it ends ``within`` that time, by default a third of its own lifetime. Unless
    named, a revoked leaf and one whose key is missing are left as they are. A leaf whose key
    belongs to another certificate is renewed at once.

    Raises ``AuthorityError`` (``unknown_name``, ``ambiguous_name``, ``expired``) and
    ``TLSFileError``, as far as possible before anything is replaced.
    """
    ca = layout.ca_certificate()
    with sole_run(layout.path, needs_lock=True) as (locked, repaired):
        judge = _Judge(ca, own_list.load(layout), layout.clock(), within)
        if names:
            leaves = list(dict.fromkeys(layout.leaf(name) for name in names))
            plans = [judge.named(leaf) for leaf in leaves]
        else:
            plans = [judge.look_at(leaf) for leaf in layout.leaves()]
        due = [plan for plan in plans if plan.chain]
        if due:
            authority = layout.authority()
            replaced.remember(layout, [plan.chain[0] for plan in due])
            for plan in due:
                _replace(plan, authority)
        crl = own_list.keep_fresh(layout, locked=locked)
    mended = {outcome.path for outcome in repaired}
    outcomes = [plan.outcome() for plan in plans]
    # Completed above and not due: one line is enough.
    outcomes = [o for o in outcomes if o.path not in mended or o.state is not FileState.KEPT]
    return [*repaired, *outcomes, crl]


def renewed(authority: Authority, certificate: x509.Certificate) -> Issued:
    """Issue a leaf like this one, for a new key of the same kind.

    It lives as long as that one did, but at most 90 days. Raises ``AuthorityError``.
    """
    span = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    lifetime = span - BACKDATE if span > BACKDATE else span
    not_before, not_after = authority.validity(min(lifetime, MAX_LEAF_LIFETIME))
    # These two identify the keys, and come with the new ones.
    of_keys = x509.SubjectKeyIdentifier, x509.AuthorityKeyIdentifier
    template = Template(
        subject=certificate.subject,
        not_before=not_before,
        not_after=not_after,
        extensions=tuple(
            (extension.value, extension.critical)
            for extension in certificate.extensions
            if not isinstance(extension.value, of_keys)
        ),
    )
    return authority.issue(template, generate_like(certificate.public_key()))


@dataclass(frozen=True, slots=True)
class _Plan:
    """What to do with a leaf: renewed where ``chain``, the content of its file, is given."""

    leaf: Leaf
    state: FileState
    note: str = ""
    chain: tuple[x509.Certificate, ...] = ()

    def outcome(self) -> Outcome:
        return Outcome.of(self.leaf.certificate, self.state, self.note)


class _Judge:
    """Decides for each leaf, with one authority, one revocation list and one time."""

    def __init__(
        self,
        ca: x509.Certificate,
        revoked: ParsedList,
        now: float,
        within: timedelta | None,
    ) -> None:
        self._ca = ca
        self._revoked = revoked
        self._now = now
        self._within = within

    def named(self, leaf: Leaf) -> _Plan:
        """Renew it whatever its state. Raises ``TLSFileError`` where that is not possible."""
        chain = leaf.load()
        if (reason := self._obstacle(leaf, chain[0])) is not None:
            raise TLSFileError(
                "not_renewable",
                f"{leaf.certificate} {reason}: it cannot be renewed.",
                leaf.certificate,
            )
        return _Plan(leaf, FileState.RENEWED, chain=chain)

    def look_at(self, leaf: Leaf) -> _Plan:
        """Renew it if it is due and renewable."""
        try:
            chain = leaf.load()
        except TLSFileError as error:
            return _Plan(leaf, FileState.FAILED, error.message)
        certificate = chain[0]
        reason = self._obstacle(leaf, certificate)
        if reason is None and self._is_revoked(certificate):
            reason = "is revoked: name it to let it in again"
        if reason is not None:
            return _Plan(leaf, FileState.SKIPPED, reason)
        fault = self._fault_of_key(leaf, certificate)
        if fault is not None and fault.code == "key_mismatch":
            return _Plan(leaf, FileState.RENEWED, "its key was that of another certificate", chain)
        if not self._is_due(certificate):
            return _Plan(leaf, FileState.KEPT)
        if fault is not None and fault.code == "missing":
            return _Plan(leaf, FileState.SKIPPED, "its key is not here: name it to make a new pair")
        return self._due(leaf, chain, fault)

    def _due(
        self, leaf: Leaf, chain: tuple[x509.Certificate, ...], fault: TLSFileError | None
    ) -> _Plan:
        if fault is not None:
            return _Plan(leaf, FileState.FAILED, fault.message)
        if chain[0].not_valid_after_utc >= self._ca.not_valid_after_utc:
            return _Plan(leaf, FileState.KEPT, "ends with its authority, which needs a successor")
        return _Plan(leaf, FileState.RENEWED, chain=chain)

    def _obstacle(self, leaf: Leaf, certificate: x509.Certificate) -> str | None:
        if not pem.is_issued_by(certificate, self._ca):
            return "is not signed by ca.pem"
        if describe_certificate(leaf.certificate, certificate).kind not in {"server", "client"}:
            return "is neither a server's certificate nor a client's"
        if not is_servable(certificate.public_key()):
            return "has a key of a kind that gRPC cannot serve"
        return None

    def _is_revoked(self, certificate: x509.Certificate) -> bool:
        serial = certificate.serial_number
        return self._revoked.crl.get_revoked_certificate_by_serial_number(serial) is not None

    def _fault_of_key(self, leaf: Leaf, certificate: x509.Certificate) -> TLSFileError | None:
        try:
            data = pem.read_secret(leaf.key, allow_readable=True)
            files.check_pair(certificate, leaf.certificate, data, leaf.key)
        except TLSFileError as error:
            return error
        return None

    def _is_due(self, certificate: x509.Certificate) -> bool:
        end = certificate.not_valid_after_utc
        within = self._within
        if within is None:
            within = (end - certificate.not_valid_before_utc) / 3
        return self._now >= (end - within).timestamp()


def _replace(plan: _Plan, authority: Authority) -> None:
    issued = renewed(authority, plan.chain[0])
    rest = b"".join(map(pem.encode, plan.chain[1:]))
    replace_pair(
        plan.leaf.certificate,
        plan.leaf.key,
        certificate_pem=issued.certificate_pem + rest,
        private_key_pem=issued.private_key_pem,
    )
