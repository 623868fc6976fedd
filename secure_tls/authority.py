"""A small certificate authority: one trust domain, one key, short-lived leaves.

Made for development, tests and small installations. Its leaves are X.509 SVIDs (SPIFFE X509-SVID),
so a larger PKI can replace it without other changes.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from secure_tls import files, pem
from secure_tls.errors import AuthorityError, SpiffeIDError, TLSFileError
from secure_tls.keys import KeyType, PrivateKey, private_pem, same_key
from secure_tls.names import IPAddress, check_dns_name, check_name
from secure_tls.spiffe import SpiffeID, check_trust_domain
from secure_tls.template import Template, key_usage

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Sequence

    from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes

MAX_LEAF_LIFETIME = timedelta(days=90)
_CA_LIFETIME = timedelta(days=5 * 365)
_MAX_CA_LIFETIME = timedelta(days=25 * 365)
_CRL_LIFETIME = timedelta(days=90)
BACKDATE = timedelta(minutes=5)
"""``notBefore`` is this long ago: peers' clocks may be slow."""
# RFC 5280, appendix A: ub-common-name is 64.
_MAX_COMMON_NAME = 64


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its private key, which stays out of the ``repr``."""

    certificate: x509.Certificate
    private_key: CertificateIssuerPrivateKeyTypes = field(repr=False)

    @property
    def certificate_pem(self) -> bytes:
        """The certificate in PEM (RFC 7468)."""
        return pem.encode(self.certificate)

    @property
    def private_key_pem(self) -> bytes:
        """The private key as unencrypted PKCS #8 in PEM: a secret."""
        return private_pem(self.private_key)


@dataclass(frozen=True, slots=True)
class Authority:
    """One CA certificate with its key. ``clock`` gives seconds since the epoch.

    A class because certificate and key belong together: ``create`` and ``load`` check that.
    """

    certificate: x509.Certificate
    private_key: PrivateKey = field(repr=False)
    trust_domain: str
    clock: Callable[[], float] = field(default=time.time, repr=False)

    @classmethod
    def create(
        cls,
        trust_domain: str,
        *,
        key_type: KeyType = KeyType.ECDSA_P256,
        lifetime: timedelta = _CA_LIFETIME,
        private_key: PrivateKey | None = None,
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """Make a new authority, self-signed, with a new key unless one is handed in.

        Raises ``AuthorityError``: ``lifetime`` (none, or over 25 years), and ``SpiffeIDError``
        for what is no trust domain.
        """
        check_trust_domain(trust_domain)
        if not timedelta(0) < lifetime <= _MAX_CA_LIFETIME:
            raise AuthorityError("lifetime", "An authority lives between a second and 25 years.")
        key = private_key or key_type.generate()
        now = _moment(clock)
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        subject = _ca_name(trust_domain, identifier)
        template = Template(
            subject=subject,
            not_before=now - BACKDATE,
            not_after=now + lifetime,
            extensions=(
                (x509.BasicConstraints(ca=True, path_length=0), True),
                (key_usage(key_cert_sign=True, crl_sign=True), True),
                # X509-SVID, section 3.1: a signing certificate's SPIFFE ID has no path.
                (_san(x509.UniformResourceIdentifier(str(SpiffeID(trust_domain, "")))), False),
                (x509.AuthorityKeyIdentifier(identifier.digest, None, None), False),
            ),
        )
        builder = template.builder(key.public_key()).issuer_name(subject)
        return cls(builder.sign(key, hashes.SHA256()), key, trust_domain, clock)

    @classmethod
    def load(
        cls,
        certificate: str | os.PathLike[str],
        private_key: str | os.PathLike[str],
        *,
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """Read an authority that ``create`` made, from two PEM files.

        Raises ``TLSFileError``: as ``read_server_files``, and ``no_ca`` for a certificate that
        may not sign, ``trust_domain`` for one that does not name a SPIFFE trust domain.
        """
        certificate, private_key = Path(certificate), Path(private_key)
        ca = pem.load_certificates(pem.read(certificate), certificate)[0]
        key = pem.load_private_key(pem.read_secret(private_key, allow_readable=False), private_key)
        if not same_key(key.public_key(), ca.public_key()):
            raise TLSFileError(
                "key_mismatch",
                f"{private_key} is not the key of {certificate}: put the right one there.",
                private_key,
            )
        if not _may_issue(ca):
            raise TLSFileError(
                "no_ca", f"{certificate} is no authority that may sign certificates.", certificate
            )
        files.check_dates(ca, certificate, clock())
        return cls(ca, key, trust_domain_of(ca, certificate), clock)

    @property
    def certificate_pem(self) -> bytes:
        """The CA certificate in PEM (RFC 7468)."""
        return pem.encode(self.certificate)

    @property
    def private_key_pem(self) -> bytes:
        """The CA's private key as unencrypted PKCS #8 in PEM: a secret."""
        return private_pem(self.private_key)

    def issue_server(
        self,
        name: str,
        dns_names: Sequence[str] = (),
        ip_addresses: Sequence[IPAddress] = (),
        lifetime: timedelta = MAX_LEAF_LIFETIME,
        *,
        key_type: KeyType = KeyType.ECDSA_P256,
        private_key: PrivateKey | None = None,
    ) -> Issued:
        """Issue a leaf for a server, verifiable by these names and addresses, at least one.

        Its SPIFFE ID is ``spiffe://TRUST-DOMAIN/server/NAME``. Raises ``AuthorityError``:
        ``name``, ``dns_name``, ``no_server_name``, ``lifetime`` (over 90 days), ``expired``.
        """
        template = self.server_template(name, dns_names, ip_addresses, lifetime)
        return self.issue(template, private_key or key_type.generate())

    def issue_client(
        self,
        name: str,
        lifetime: timedelta = MAX_LEAF_LIFETIME,
        *,
        key_type: KeyType = KeyType.ECDSA_P256,
        private_key: PrivateKey | None = None,
    ) -> Issued:
        """Issue a leaf for a client, whose one name is ``spiffe://TRUST-DOMAIN/client/NAME``.

        Raises ``AuthorityError``: ``name``, ``lifetime`` (over 90 days), ``expired``.
        """
        return self.issue(self.client_template(name, lifetime), private_key or key_type.generate())

    def server_template(
        self,
        name: str,
        dns_names: Sequence[str] = (),
        ip_addresses: Sequence[IPAddress] = (),
        lifetime: timedelta = MAX_LEAF_LIFETIME,
    ) -> Template:
        """The template that ``issue_server`` signs; raises as it does."""
        if not dns_names and not ip_addresses:
            raise AuthorityError(
                "no_server_name",
                "A server needs a DNS name or an IP address that its clients can verify.",
            )
        names = [
            *(x509.DNSName(check_dns_name(dns_name)) for dns_name in dns_names),
            *(x509.IPAddress(address) for address in ip_addresses),
        ]
        return self._leaf(name, "server", ExtendedKeyUsageOID.SERVER_AUTH, names, lifetime)

    def client_template(self, name: str, lifetime: timedelta = MAX_LEAF_LIFETIME) -> Template:
        """The template that ``issue_client`` signs; raises as it does."""
        return self._leaf(name, "client", ExtendedKeyUsageOID.CLIENT_AUTH, [], lifetime)

    def issue(
        self, template: Template, private_key: CertificateIssuerPrivateKeyTypes | None = None
    ) -> Issued:
        """Sign the template without checking it: for tests that need a wrong certificate.

        A new ECDSA P-256 key unless one is handed in. ``issue_server`` and
        ``issue_client`` call this with a correct template.
        """
        key = private_key or KeyType.ECDSA_P256.generate()
        builder = (
            template.builder(key.public_key())
            .issuer_name(self.certificate.subject)
            .add_extension(self._key_identifier(), critical=False)
        )
        return Issued(builder.sign(self.private_key, hashes.SHA256()), key)

    def crl(
        self,
        revoked: Iterable[int | x509.RevokedCertificate] = (),
        *,
        number: int,
        lifetime: timedelta = _CRL_LIFETIME,
    ) -> x509.CertificateRevocationList:
        """Sign a complete revocation list (RFC 5280, section 5), due again after ``lifetime``.

        ``revoked`` are serial numbers, revoked now, and entries of an earlier list, which keep
        their date. ``number`` must grow from list to list (section 5.2.3).
        """
        now = _moment(self.clock)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(now - BACKDATE)
            .next_update(now + lifetime)
            .add_extension(x509.CRLNumber(number), critical=False)
            .add_extension(self._key_identifier(), critical=False)
        )
        for entry in revoked:
            fresh = self.revocation(entry) if isinstance(entry, int) else entry
            builder = builder.add_revoked_certificate(fresh)
        return builder.sign(self.private_key, hashes.SHA256())

    def revocation(
        self, serial: int, reason: x509.ReasonFlags | None = None
    ) -> x509.RevokedCertificate:
        """An entry for ``crl``: the certificate of this number is revoked now (RFC 5280, 5.3)."""
        builder = x509.RevokedCertificateBuilder().serial_number(serial)
        builder = builder.revocation_date(_moment(self.clock) - BACKDATE)
        if reason is not None:
            builder = builder.add_extension(x509.CRLReason(reason), critical=False)
        return builder.build()

    def _leaf(
        self,
        name: str,
        kind: str,
        usage: ObjectIdentifier,
        names: list[x509.GeneralName],
        lifetime: timedelta,
    ) -> Template:
        spiffe_id = SpiffeID(self.trust_domain, f"/{kind}/{check_name(name)}")
        not_before, not_after = self.validity(lifetime)
        return Template(
            subject=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]),
            not_before=not_before,
            not_after=not_after,
            extensions=(
                (x509.BasicConstraints(ca=False, path_length=None), True),
                (key_usage(digital_signature=True), True),
                (x509.ExtendedKeyUsage([usage]), False),
                (_san(*names, x509.UniformResourceIdentifier(str(spiffe_id))), False),
            ),
        )

    def validity(self, lifetime: timedelta) -> tuple[datetime, datetime]:
        """The validity period of a leaf issued now, which ends no later than its authority's.

        Raises ``AuthorityError``: ``lifetime`` (over 90 days), ``expired``.
        """
        if not timedelta(0) < lifetime <= MAX_LEAF_LIFETIME:
            raise AuthorityError(
                "lifetime", "A leaf certificate lives at most 90 days: ask for less, renew often."
            )
        now = _moment(self.clock)
        end = self.certificate.not_valid_after_utc
        if end <= now:
            raise AuthorityError(
                "expired",
                f"The authority expired on {end:%Y-%m-%d}: create a new one, and trust both for "
                "a while.",
            )
        not_before = max(now - BACKDATE, self.certificate.not_valid_before_utc)
        # Both ends count (RFC 5280, section 4.1.2.5): a second less makes 90 days at the most.
        longest = not_before + MAX_LEAF_LIFETIME - timedelta(seconds=1)
        return not_before, min(now + lifetime, longest, end)

    def _key_identifier(self) -> x509.AuthorityKeyIdentifier:
        identifier = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier.value)


def _moment(clock: Callable[[], float]) -> datetime:
    return datetime.fromtimestamp(int(clock()), UTC)


def _san(*names: x509.GeneralName) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName(names)


def _ca_name(trust_domain: str, identifier: x509.SubjectKeyIdentifier) -> x509.Name:
    # A piece of the key makes an authority's name unique: a certificate's issuer and
    # serial number stay unambiguous when an authority is replaced.
    suffix = f" CA {identifier.digest[:4].hex()}"
    name = trust_domain[: _MAX_COMMON_NAME - len(suffix)] + suffix
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _may_issue(ca: x509.Certificate) -> bool:
    try:
        usage = ca.extensions.get_extension_for_class(x509.KeyUsage).value
        ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except x509.ExtensionNotFound:
        return False
    return pem.is_ca(ca) and usage.key_cert_sign and usage.crl_sign


def trust_domain_of(ca: x509.Certificate, path: Path) -> str:
    """The trust domain that a CA certificate names (X509-SVID, section 3.1).

    Raises ``TLSFileError``: ``trust_domain``, for the file at ``path``.
    """
    try:
        names = ca.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier)
        spiffe_id = SpiffeID.parse(uri)
    except (x509.ExtensionNotFound, ValueError, SpiffeIDError):
        spiffe_id = None
    if spiffe_id is None or spiffe_id.path:
        raise TLSFileError(
            "trust_domain",
            f"{path} does not name its SPIFFE trust domain: use an authority that secure-certs "
            "made.",
            path,
        )
    return spiffe_id.trust_domain
