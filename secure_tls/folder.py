"""A folder of certificates: a run adds missing files and never changes existing ones.

A run writes each key before its certificate. So a key alone was left by a killed run: the next one
certifies that key, replaces nothing, and concurrent runs agree on one key. A certificate alone
means that its key was removed: the run stops with an error. Only renewing and re-signing the
revocation list replace files.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from cryptography.hazmat.primitives.serialization import Encoding

from secure_base.atomic_files import make_folder, write_new
from secure_tls import own_list, pem, renewal, revocation
from secure_tls.authority import MAX_LEAF_LIFETIME, Authority, Issued, trust_domain_of
from secure_tls.errors import AuthorityError, TLSFileError
from secure_tls.keys import KeyType, PrivateKey, private_pem
from secure_tls.layout import Layout, Leaf, is_there
from secure_tls.names import IPAddress, check_name, split_server_names
from secure_tls.outcome import FileState, Outcome
from secure_tls.pairs import sole_run
from secure_tls.revocation import Reason
from secure_tls.spiffe import check_trust_domain
from secure_tls.writing import explained

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import timedelta
    from pathlib import Path

DEFAULT_TRUST_DOMAIN = "example.org"


@dataclass(frozen=True, slots=True)
class Order:
    """One leaf to create in the folder, at ``stem`` + .pem and .key; names are checked."""

    stem: str
    name: str
    is_server: bool
    dns_names: tuple[str, ...] = ()
    addresses: tuple[IPAddress, ...] = ()

    @classmethod
    def client(cls, name: str) -> Self:
        """A client's leaf in ``clients/``. Raises ``AuthorityError``."""
        return cls(f"clients/{check_name(name)}", name, is_server=False)

    @classmethod
    def server(cls, name: str, host_names: list[str], *, stem: str | None = None) -> Self:
        """A server's leaf, in ``servers/`` by default. Raises ``AuthorityError``."""
        dns_names, addresses = split_server_names(host_names)
        return cls(
            stem or f"servers/{check_name(name)}",
            name,
            is_server=True,
            dns_names=dns_names,
            addresses=addresses,
        )

    def fill(self, authority: Authority, lifetime: timedelta, private_key: PrivateKey) -> Issued:
        """Issue the leaf for this key."""
        if self.is_server:
            return authority.issue_server(
                self.name, self.dns_names, self.addresses, lifetime, private_key=private_key
            )
        return authority.issue_client(self.name, lifetime, private_key=private_key)


class CertificateFolder:
    """The files ``ca.pem ca.key crl.pem`` and the leaves of one folder.

    A class because every step needs the folder, the clock and the set of created files.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._layout = Layout(path, clock)
        self._created: set[Path] = set()

    def generate(
        self,
        orders: Sequence[Order],
        *,
        trust_domain: str | None = None,
        key_type: KeyType = KeyType.ECDSA_P256,
        lifetime: timedelta = MAX_LEAF_LIFETIME,
    ) -> list[Outcome]:
        """Complete the folder: the authority, these leaves, a revocation list.

        A new authority is made for ``trust_domain``, by default example.org; an existing one
        must be for ``trust_domain``, if given. Raises ``AuthorityError``,
        ``SpiffeIDError`` and ``TLSFileError``, as far as possible before anything is written.
        """
        if trust_domain is not None:
            check_trust_domain(trust_domain)
        with explained(self._path):
            make_folder(self._path)
        with sole_run(self._path) as (locked, repaired):
            outcomes = self._complete(
                orders, trust_domain=trust_domain, key_type=key_type, lifetime=lifetime
            )
            crl = self._layout.crl
            if crl in self._created:
                return [*repaired, *outcomes, Outcome.of(crl, FileState.CREATED)]
            return [*repaired, *outcomes, own_list.keep_fresh(self._layout, locked=locked)]

    def add(
        self, order: Order, *, key_type: KeyType, lifetime: timedelta = MAX_LEAF_LIFETIME
    ) -> list[Outcome]:
        """Add one leaf under the existing authority; raises as ``generate``."""
        self._layout.ca_certificate()
        with sole_run(self._path) as (locked, repaired):
            if self._missing(order):
                self._fill(order, self._layout.authority(), key_type, lifetime)
            outcomes = [*repaired, *self._outcomes([order])]
            if is_there(self._layout.crl):
                crl = own_list.keep_fresh(self._layout, locked=locked)
                # The user asked for a leaf: mention the list only when it changed.
                outcomes += [crl] if crl.note or crl.state is not FileState.KEPT else []
        return outcomes

    def renew(self, names: Sequence[str] = (), *, within: timedelta | None = None) -> list[Outcome]:
        """Renew the leaves of these names, or those that are due; as ``renewal.renew``."""
        return renewal.renew(self._layout, names, within=within)

    def revoke(self, wanted: str | int, *, reason: Reason | None = None) -> list[Outcome]:
        """Revoke by name, file or serial number; as ``revocation.revoke``."""
        return revocation.revoke(self._layout, wanted, reason=reason)

    def _leaf(self, order: Order) -> Leaf:
        return self._layout.leaf_at(order.stem)

    def _missing(self, order: Order) -> bool:
        leaf = self._leaf(order)
        certificate, key = leaf.certificate, leaf.key
        # The certificate is checked first: a concurrent run writes it last.
        if not is_there(certificate):
            return True
        if not is_there(key):
            raise TLSFileError(
                "half_pair",
                f"{certificate} is there without {key}: put the key back, or move the "
                "certificate away to have a new pair made.",
                certificate,
            )
        return False

    def _complete(
        self,
        orders: Sequence[Order],
        *,
        trust_domain: str | None,
        key_type: KeyType,
        lifetime: timedelta,
    ) -> list[Outcome]:
        layout = self._layout
        missing = [order for order in orders if self._missing(order)]
        has_crl = is_there(layout.crl)
        has_others = has_crl or len(missing) < len(orders)
        # Checked last: what an authority signed is younger than its certificate.
        has_ca = is_there(layout.ca)
        if has_others and not has_ca:
            raise TLSFileError(
                "no_ca",
                f"{layout.ca} is missing, though certificates that it signed are there: put it "
                "back, or start over in an empty folder.",
                layout.ca,
            )
        if has_ca and trust_domain is not None:
            self._check_trust_domain(trust_domain)
        if not has_ca:
            self._create_authority(trust_domain or DEFAULT_TRUST_DOMAIN, key_type)
        if missing or not has_crl:
            # Read from the disk even if just made: a concurrent run may have been first.
            authority = layout.authority()
            for order in missing:
                self._fill(order, authority, key_type, lifetime)
            if not has_crl:
                crl = authority.crl(number=1).public_bytes(Encoding.PEM)
                self._write(layout.crl, crl, secret=False)
        authority_files = [path for path in (layout.ca, layout.ca_key) if is_there(path)]
        return [*map(self._outcome, authority_files), *self._outcomes(orders)]

    def _create_authority(self, trust_domain: str, key_type: KeyType) -> None:
        key = self._key(self._layout.ca_key, key_type)
        made = Authority.create(trust_domain, private_key=key, clock=self._layout.clock)
        self._write(self._layout.ca, made.certificate_pem, secret=False)

    def _check_trust_domain(self, wanted: str) -> None:
        ca = self._layout.ca
        there = trust_domain_of(self._layout.ca_certificate(), ca)
        if there != wanted:
            raise AuthorityError(
                "trust_domain",
                f"{ca} is the authority of {there}, not of {wanted}: use another folder "
                "for another trust domain.",
            )

    def _fill(
        self, order: Order, authority: Authority, key_type: KeyType, lifetime: timedelta
    ) -> None:
        leaf = self._leaf(order)
        with explained(leaf.certificate.parent):
            make_folder(leaf.certificate.parent)
        key = self._key(leaf.key, key_type)
        issued = order.fill(authority, lifetime, key)
        self._write(leaf.certificate, issued.certificate_pem, secret=False)

    def _key(self, path: Path, key_type: KeyType) -> PrivateKey:
        if not is_there(path):
            key = key_type.generate()
            if self._write(path, private_pem(key), secret=True):
                return key
        # A key that other users could read is refused: it may have been copied.
        return pem.load_private_key(pem.read_secret(path, allow_readable=False), path)

    def _write(self, path: Path, data: bytes, *, secret: bool) -> bool:
        with explained(path):
            created = write_new(path, data, secret=secret)
        if created:
            self._created.add(path)
        return created

    def _outcomes(self, orders: Sequence[Order]) -> list[Outcome]:
        leaves = map(self._leaf, orders)
        return [self._outcome(path) for leaf in leaves for path in (leaf.certificate, leaf.key)]

    def _outcome(self, path: Path) -> Outcome:
        if path in self._created:
            return Outcome.of(path, FileState.CREATED)
        outcome = Outcome.of(path, FileState.KEPT)
        if outcome.until is None or outcome.until >= self._layout.clock():
            return outcome
        note = "" if path == self._layout.ca else "run secure-certs renew"
        return dataclasses.replace(outcome, state=FileState.EXPIRED, note=note)
