"""The peer: the one identity in a client's certificate, read strictly."""

from __future__ import annotations

import base64
import math
import re
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID

from secure_tls.errors import PeerError, SpiffeIDError
from secure_tls.pem import MALFORMED
from secure_tls.spiffe import SpiffeID

# RFC 3986, section 2: a URI is printable ASCII without spaces. A NUL or a line break in a name
# attacks code that compares or logs it.
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!-~]+\Z")
_DNS_NAME = re.compile(r"(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\Z")


@dataclass(frozen=True, slots=True)
class Peer:
    """The verified facts of one client certificate.

    ``thumbprint`` is the base64url SHA-256 of the DER certificate (RFC 8705, section 3.1,
    ``x5t#S256``). ``not_before`` and ``not_after`` are seconds since the epoch. ``subject`` is the
    RFC 4514 text, ``issuer`` the DER bytes of the issuer's name. ``trusted_until``, seconds since
    the epoch, is when its path must be validated again.
    """

    spiffe_id: str | None
    trust_domain: str | None
    uri_sans: tuple[str, ...]
    dns_sans: tuple[str, ...]
    subject: str
    thumbprint: str
    issuer: bytes
    serial: int
    not_before: float
    not_after: float
    trusted_until: float = field(default=math.inf, repr=False, compare=False)

    def is_valid_at(self, now: float) -> bool:
        """Whether ``now``, seconds since the epoch, is in the validity period (both ends are).

        RFC 5280, section 4.1.2.5.
        """
        return self.not_before <= now <= self.not_after


def parse_peer(certificate_pem: bytes) -> Peer:
    """Read the one identity that a client's leaf certificate states.

    The TLS stack has verified the chain; what it tolerates and a guard must not is refused here.
    Dates, revocation and the path are checked by ``judge_client``.

    Raises ``PeerError``, whose ``code`` is one of

    - ``malformed``: not exactly one PEM certificate, or one that breaks RFC 5280;
    - ``is_ca``: the certificate of an authority (X509-SVID, section 5.2);
    - ``key_usage``: key usage without digitalSignature, or with the right to sign certificates;
    - ``eku``: no extended key usage, or one without clientAuth (RFC 5280, section 4.2.1.12);
    - ``no_san``: no URI and no DNS name: a common name alone is no identity (RFC 9525);
    - ``uri_san``, ``dns_san``: a name with characters that such a name cannot have;
    - ``many_uri_sans``: a SPIFFE ID beside another URI (X509-SVID, section 2);
    - ``spiffe_id``: a SPIFFE ID that is malformed or has no path.
    """
    try:
        certificates = x509.load_pem_x509_certificates(certificate_pem)
        if len(certificates) != 1:
            raise PeerError("malformed", "The peer's PEM text holds more than one certificate.")
        peer = _read(certificates[0])
    except MALFORMED as error:
        raise PeerError(
            "malformed", "The peer's certificate cannot be parsed strictly (RFC 5280)."
        ) from error
    # RFC 5280, section 4.1.2.2. A revocation list could not name it.
    if peer.serial <= 0:
        raise PeerError("malformed", "The peer's certificate has no positive serial number.")
    return peer


def _read(certificate: x509.Certificate) -> Peer:
    extensions = certificate.extensions
    _check_purpose(extensions)
    try:
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names = x509.SubjectAlternativeName([])
    uri_sans = tuple(names.get_values_for_type(x509.UniformResourceIdentifier))
    dns_sans = tuple(names.get_values_for_type(x509.DNSName))
    spiffe_id = _check_names(uri_sans, dns_sans)
    digest = certificate.fingerprint(hashes.SHA256())
    return Peer(
        spiffe_id=str(spiffe_id) if spiffe_id else None,
        trust_domain=spiffe_id.trust_domain if spiffe_id else None,
        uri_sans=uri_sans,
        dns_sans=dns_sans,
        subject=certificate.subject.rfc4514_string(),
        thumbprint=base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii"),
        issuer=certificate.issuer.public_bytes(),
        serial=certificate.serial_number,
        not_before=certificate.not_valid_before_utc.timestamp(),
        not_after=certificate.not_valid_after_utc.timestamp(),
    )


def _check_purpose(extensions: x509.Extensions) -> None:
    for extension in extensions:
        value = extension.value
        if isinstance(value, x509.BasicConstraints) and value.ca:
            raise PeerError("is_ca", "The peer presented the certificate of an authority.")
        if isinstance(value, x509.KeyUsage) and (
            not value.digital_signature or value.key_cert_sign or value.crl_sign
        ):
            raise PeerError(
                "key_usage",
                "The peer's key usage must allow digitalSignature, and neither keyCertSign "
                "nor cRLSign.",
            )
    try:
        usages = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        raise PeerError("eku", "The peer's certificate has no extended key usage.") from None
    if ExtendedKeyUsageOID.CLIENT_AUTH not in usages:
        raise PeerError("eku", "The peer's certificate is not for clients (no clientAuth).")


def _check_names(uri_sans: tuple[str, ...], dns_sans: tuple[str, ...]) -> SpiffeID | None:
    if not uri_sans and not dns_sans:
        raise PeerError(
            "no_san", "The peer's certificate has neither a URI nor a DNS subject alternative name."
        )
    for name in dns_sans:
        if not _DNS_NAME.match(name):
            raise PeerError("dns_san", f"The peer's DNS name {name[:80]!a} is malformed.")
    for uri in uri_sans:
        if not _URI.match(uri):
            raise PeerError("uri_san", f"The peer's URI {uri[:80]!a} is malformed.")
    # Other spellings of the scheme count as SPIFFE too, so that they are refused, not taken
    # for some other URI.
    if not any(uri.lower().startswith("spiffe:") for uri in uri_sans):
        return None
    if len(uri_sans) != 1:
        raise PeerError(
            "many_uri_sans", "The peer's certificate has a SPIFFE ID beside another URI."
        )
    try:
        spiffe_id = SpiffeID.parse(uri_sans[0])
    except SpiffeIDError as error:
        raise PeerError("spiffe_id", f"The peer's SPIFFE ID is malformed. {error}") from error
    if not spiffe_id.path:
        raise PeerError("spiffe_id", "The peer's SPIFFE ID names a trust domain and no workload.")
    return spiffe_id
