"""A folder of certificates: what is missing is completed, what is there is never touched.

A key is always written before its certificate. So a key alone is what a run that was killed
leaves behind, and it is completed by certifying that very key: nothing has to be replaced, and
runs at the same time agree on one key whoever wrote it. A certificate alone is no such leftover:
somebody has taken its key away, and that is for people to sort out.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from cryptography.hazmat.primitives.serialization import Encoding

from secure_tls import pem
from secure_tls.authority import MAX_LEAF_LIFETIME, Authority, Issued, trust_domain_of
from secure_tls.errors import AuthorityError, TLSFileError
from secure_tls.keys import KeyType, PrivateKey, private_pem
from secure_tls.names import IPAddress, check_name, split_server_names
from secure_tls.spiffe import check_trust_domain
from secure_tls.writing import make_folder, sole_writer, write_new

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import timedelta

DEFAULT_TRUST_DOMAIN = "example.org"


@dataclass(frozen=True, slots=True)
class Order:
    """One leaf that the folder shall have, at ``stem`` + .pem and .key; names are checked."""

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
        """Have the leaf issued for this key."""
        if self.is_server:
            return authority.issue_server(
                self.name, self.dns_names, self.addresses, lifetime, private_key=private_key
            )
        return authority.issue_client(self.name, lifetime, private_key=private_key)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one file: ``created`` now, or there already and kept."""

    path: Path
    created: bool


class CertificateFolder:
    """The files ``ca.pem ca.key crl.pem`` and the leaves, as one folder holds them.

    A class because every step of a run needs the folder, the clock and the tally of what was
    created.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
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

        A new authority is made for ``trust_domain``, by default example.org; one that is there
        must be for that trust domain, if one is given. Raises ``AuthorityError``,
        ``SpiffeIDError`` and ``TLSFileError``, as far as possible before anything is written.
        """
        if trust_domain is not None:
            check_trust_domain(trust_domain)
        make_folder(self._path)
        with sole_writer(self._path):
            return self._complete(
                orders, trust_domain=trust_domain, key_type=key_type, lifetime=lifetime
            )

    def add(
        self, order: Order, *, key_type: KeyType, lifetime: timedelta = MAX_LEAF_LIFETIME
    ) -> list[Outcome]:
        """Add one leaf under the authority that is there; raises as ``generate``."""
        if not self._ca.exists():
            raise TLSFileError(
                "no_ca",
                f"{self._path} has no authority yet: run secure-certs there first.",
                self._path,
            )
        with sole_writer(self._path):
            if self._missing(order):
                authority = self._authority(None, key_type)
                self._fill(order, authority, key_type, lifetime)
        return self._outcomes([order])

    @property
    def _ca(self) -> Path:
        return self._path / "ca.pem"

    @property
    def _ca_key(self) -> Path:
        return self._path / "ca.key"

    @property
    def _crl(self) -> Path:
        return self._path / "crl.pem"

    def _pair(self, order: Order) -> tuple[Path, Path]:
        return self._path / f"{order.stem}.pem", self._path / f"{order.stem}.key"

    def _missing(self, order: Order) -> bool:
        certificate, key = self._pair(order)
        # The certificate is looked for first: a run at the same time writes it last.
        if not _is_there(certificate):
            return True
        if not _is_there(key):
            raise TLSFileError(
                "half_pair",
                f"{certificate} is there without {key}: put the key back, or move the "
                "certificate away to have both made anew.",
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
        missing = [order for order in orders if self._missing(order)]
        has_crl = _is_there(self._crl)
        has_others = has_crl or len(missing) < len(orders)
        # Looked for last: whatever an authority signed is younger than its certificate.
        has_ca = _is_there(self._ca)
        if has_others and not has_ca:
            raise TLSFileError(
                "no_ca",
                f"{self._ca} is missing, though certificates that it signed are there: put it "
                "back, or start over in an empty folder.",
                self._ca,
            )
        if has_ca and trust_domain is not None:
            self._check_trust_domain(trust_domain)
        if missing or not has_crl or not has_ca:
            authority = self._authority(trust_domain, key_type, create=not has_ca)
            for order in missing:
                self._fill(order, authority, key_type, lifetime)
            if not has_crl:
                crl = authority.crl(number=1).public_bytes(Encoding.PEM)
                self._write(self._crl, crl, secret=False)
        outcomes = self._outcomes(orders)
        authority_files = [p for p in (self._ca, self._ca_key) if _is_there(p)]
        return [
            *(Outcome(path, path in self._created) for path in authority_files),
            *outcomes,
            Outcome(self._crl, self._crl in self._created),
        ]

    def _authority(
        self, trust_domain: str | None, key_type: KeyType, *, create: bool = False
    ) -> Authority:
        if create:
            key = self._key(self._ca_key, key_type)
            made = Authority.create(
                trust_domain or DEFAULT_TRUST_DOMAIN, private_key=key, clock=self._clock
            )
            self._write(self._ca, made.certificate_pem, secret=False)
        elif not _is_there(self._ca_key):
            raise TLSFileError(
                "no_ca_key",
                f"{self._ca_key} is not there, and nothing can be signed without it: bring it "
                "back for this run.",
                self._ca_key,
            )
        # From the disk, also where it was just made: another run may have been the first.
        return Authority.load(self._ca, self._ca_key, clock=self._clock)

    def _check_trust_domain(self, wanted: str) -> None:
        certificate = pem.load_certificates(pem.read(self._ca), self._ca)[0]
        there = trust_domain_of(certificate, self._ca)
        if there != wanted:
            raise AuthorityError(
                "trust_domain",
                f"{self._ca} is the authority of {there}, not of {wanted}: use another folder "
                "for another trust domain.",
            )

    def _fill(
        self, order: Order, authority: Authority, key_type: KeyType, lifetime: timedelta
    ) -> None:
        certificate, key_path = self._pair(order)
        make_folder(certificate.parent)
        key = self._key(key_path, key_type)
        issued = order.fill(authority, lifetime, key)
        self._write(certificate, issued.certificate_pem, secret=False)

    def _key(self, path: Path, key_type: KeyType) -> PrivateKey:
        if not _is_there(path):
            key = key_type.generate()
            if self._write(path, private_pem(key), secret=True):
                return key
        # A key that others could read is refused here: nobody can tell who has it.
        return pem.load_private_key(pem.read_secret(path, allow_readable=False), path)

    def _write(self, path: Path, data: bytes, *, secret: bool) -> bool:
        created = write_new(path, data, secret=secret)
        if created:
            self._created.add(path)
        return created

    def _outcomes(self, orders: Sequence[Order]) -> list[Outcome]:
        paths = [path for order in orders for path in self._pair(order)]
        return [Outcome(path, path in self._created) for path in paths]


def _is_there(path: Path) -> bool:
    # A dangling link is there too: its name is taken.
    return path.exists() or path.is_symlink()
