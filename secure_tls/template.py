"""The content of a certificate, before an authority signs it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from cryptography import x509

if TYPE_CHECKING:
    from datetime import datetime

    from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes


@dataclass(frozen=True, slots=True)
class Template:
    """An immutable certificate template; each extension with its criticality.

    ``Authority`` makes correct ones. The methods here make wrong ones, for tests that such
    certificates are refused.
    """

    subject: x509.Name
    not_before: datetime
    not_after: datetime
    extensions: tuple[tuple[x509.ExtensionType, bool], ...]

    def having(self, extension: x509.ExtensionType, *, critical: bool = False) -> Self:
        """A copy with this extension, replacing one of the same kind."""
        others = self.lacking(type(extension)).extensions
        return replace(self, extensions=(*others, (extension, critical)))

    def lacking(self, kind: type[x509.ExtensionType]) -> Self:
        """A copy without the extension of this kind."""
        kept = tuple(pair for pair in self.extensions if not isinstance(pair[0], kind))
        return replace(self, extensions=kept)

    def builder(self, public_key: CertificatePublicKeyTypes) -> x509.CertificateBuilder:
        """The template as a builder without an issuer, with a new serial number.

        The serial number has 159 random bits (RFC 5280, section 4.1.2.2, allows 20 octets), and
        the subject key identifier is the one of RFC 5280, section 4.2.1.2, method 1.
        """
        builder = (
            x509.CertificateBuilder()
            .subject_name(self.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.not_before)
            .not_valid_after(self.not_after)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        )
        for extension, critical in self.extensions:
            builder = builder.add_extension(extension, critical=critical)
        return builder


def key_usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    """The key usage extension (RFC 5280, section 4.2.1.3) with only these bits set."""
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
