"""Short descriptions of PKIs, and the certificates and lists built from them."""

from __future__ import annotations

import functools
import hashlib
import ipaddress
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from secure_tls.template import Template, key_usage

DAY = 86400
PRODUCTS = Path(__file__).parents[1] / "vectors" / "products"

BILLING = "URI:spiffe://example.org/client/billing"
ACME = "URI:spiffe://acme.example/client/billing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cert:
    """A certificate's content; ``since`` and ``until`` are seconds from the table's moment zero."""

    issuer: str
    """The certificate whose name and key sign this one; its own name where it is self-signed."""
    signer: str = ""
    """Another certificate, whose key signs instead: a forgery."""
    subject: str | None = None
    """The common name, by default what the row calls the certificate; "" is an empty subject."""
    key: str = ""
    """The name of the key, by default that of the certificate: equal names are the same key."""
    kind: str = "p256"
    digest: str = "sha256"
    """Of its issuer's signature; all others need an issuer with an RSA key: ``sha1``, ``md5``,
    ``pss``, and ``unknown`` for an algorithm that no software knows.
    """
    since: int
    until: int
    ca: bool | None
    """Basic constraints; None for a certificate without any."""
    ca_critical: bool = True
    path_length: int | None = None
    usage: tuple[str, ...] | None
    """Key usages: ``sign``, ``cert`` and ``crl``; None for a certificate without any."""
    uses: tuple[str, ...] | None = None
    """Extended key usages: ``client``, ``server``, ``any``; None for a certificate without any."""
    names: tuple[str, ...] = ()
    """Subject alternative names: ``URI:``, ``DNS:``, ``email:``."""
    permitted: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    """Name constraints: ``URI:``, ``DNS:``, ``IP:``, ``email:``, ``CN:`` (a directory name)."""
    constraints_critical: bool = True
    unknown: str = ""
    """An extension that no software knows: ``critical`` or ``plain``."""
    aki: bool = True
    ski: bool = True
    serial: int | None = None


@dataclass(frozen=True, slots=True)
class Vector:
    """A certificate, or a list, of a real product's: a file in ``tests/vectors/products``."""

    file: str
    number: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Crl:
    """A revocation list of the authority ``by``; its key signs it, or that of ``signer``."""

    by: str
    revokes: tuple[str, ...] = ()
    since: int = -DAY
    until: int = 7 * DAY
    number: int = 1
    signer: str = ""
    truncated: bool = False


def root(name: str, **changes: Any) -> Cert:
    """A self-signed authority."""
    return authority(name, **({"since": -100 * DAY, "until": 1000 * DAY} | changes))


def authority(issuer: str, **changes: Any) -> Cert:
    """An intermediate authority."""
    proper = {"since": -50 * DAY, "until": 500 * DAY, "ca": True, "usage": ("cert", "crl")}
    return Cert(issuer=issuer, **(proper | changes))


def client(issuer: str, **changes: Any) -> Cert:
    """A client's leaf."""
    proper = {
        "since": -5 * DAY,
        "until": 50 * DAY,
        "ca": False,
        "usage": ("sign",),
        "uses": ("client",),
        "names": (BILLING,),
    }
    return Cert(issuer=issuer, **(proper | changes))


BASE: dict[str, Cert | Vector] = {
    "root": root("root"),
    "mid": authority("root"),
    "low": authority("mid"),
    "leaf": client("mid"),
    "spare": root("spare"),
    "acme": root("acme"),
    "acme_mid": authority("acme"),
    "acme_leaf": client("acme_mid", names=(ACME,)),
}
"""Our PKI with a second authority, and a partner's. A row replaces what it tests."""


@functools.cache
def private_key(name: str, kind: str) -> Any:
    """The key of this name, made once a run."""
    if kind.startswith("rsa"):
        bits, _, exponent = kind.removeprefix("rsa").partition("e")
        return rsa.generate_private_key(int(exponent or 65537), int(bits))
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if kind == "dsa":
        return dsa.generate_private_key(2048)
    curves = {"p256": ec.SECP256R1, "p384": ec.SECP384R1, "p521": ec.SECP521R1}
    odd = {"p224": ec.SECP224R1, "k256": ec.SECP256K1}
    return ec.generate_private_key((curves | odd)[kind]())


class Pki:
    """The certificates of a row. ``zero`` is the table's moment zero, in seconds since the epoch.

    A class because names, keys and certificates refer to each other and are made once.
    """

    def __init__(self, certificates: Mapping[str, Cert | Vector], zero: int) -> None:
        self._said = {**BASE, **certificates}
        self._zero = zero
        self._made: dict[str, x509.Certificate] = {}

    def certificate(self, name: str) -> x509.Certificate:
        if name not in self._made:
            said = self._said[name]
            self._made[name] = _read(said) if isinstance(said, Vector) else self._issue(name, said)
        return self._made[name]

    def certificates(self, names: tuple[str, ...]) -> tuple[x509.Certificate, ...]:
        return tuple(self.certificate(name) for name in names)

    def pem(self, *names: str) -> bytes:
        return b"".join(each.public_bytes(Encoding.PEM) for each in self.certificates(names))

    def key(self, name: str) -> Any:
        said = self._said[name]
        assert isinstance(said, Cert), f"there is no key of {name}"
        return private_key(said.key or name, said.kind)

    def is_made_here(self, name: str) -> bool:
        return isinstance(self._said[name], Cert)

    def crl(self, said: Crl | Vector) -> bytes:
        """A revocation list, in PEM where it is made here."""
        if isinstance(said, Vector):
            return (PRODUCTS / said.file).read_bytes()
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._name(said.by))
            .last_update(self._at(said.since))
            .next_update(self._at(said.until))
            .add_extension(x509.CRLNumber(said.number), critical=False)
            .add_extension(self._aki(said.signer or said.by), critical=False)
        )
        for revoked in said.revokes:
            entry = x509.RevokedCertificateBuilder(
                self.certificate(revoked).serial_number, self._at(said.since)
            )
            builder = builder.add_revoked_certificate(entry.build())
        signed = builder.sign(self.key(said.signer or said.by), hashes.SHA256())
        text = signed.public_bytes(Encoding.PEM)
        return text[: len(text) // 2] if said.truncated else text

    def _at(self, seconds: int) -> datetime:
        return datetime.fromtimestamp(self._zero + seconds, UTC)

    def _name(self, name: str) -> x509.Name:
        said = self._said[name]
        if isinstance(said, Vector):
            return self.certificate(name).subject
        text = name if said.subject is None else said.subject
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)] if text else [])

    def _aki(self, name: str) -> x509.AuthorityKeyIdentifier:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key(name).public_key())

    def _issue(self, name: str, said: Cert) -> x509.Certificate:
        signer = said.signer or said.issuer
        template = Template(
            self._name(name), self._at(said.since), self._at(said.until), tuple(_extensions(said))
        )
        if said.aki and said.issuer != name:
            template = template.having(self._aki(said.issuer))
        builder = template.builder(self.key(name).public_key()).issuer_name(self._name(said.issuer))
        if said.serial is not None:
            builder._serial_number = said.serial
        if not said.ski:
            kept = [e for e in builder._extensions if e.oid != x509.SubjectKeyIdentifier.oid]
            builder._extensions = kept
        key = self.key(signer)
        kind = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
        if said.digest == "pss":
            pss = padding.PSS(padding.MGF1(hashes.SHA256()), hashes.SHA256.digest_size)
            return builder.sign(key, kind, rsa_padding=pss)
        signed = builder.sign(key, kind)
        return signed if said.digest == "sha256" else _sign_otherwise(signed, key, said.digest)


_USES = {
    "client": ExtendedKeyUsageOID.CLIENT_AUTH,
    "server": ExtendedKeyUsageOID.SERVER_AUTH,
    "any": ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
}


def _extensions(said: Cert) -> list[tuple[x509.ExtensionType, bool]]:
    made: list[tuple[x509.ExtensionType, bool]] = []
    if said.ca is not None:
        made.append((x509.BasicConstraints(said.ca, said.path_length), said.ca_critical))
    if said.usage is not None:
        usage = key_usage(
            digital_signature="sign" in said.usage,
            key_cert_sign="cert" in said.usage,
            crl_sign="crl" in said.usage,
        )
        made.append((usage, True))
    if said.uses is not None:
        made.append((x509.ExtendedKeyUsage([_USES[one] for one in said.uses]), False))
    if said.names:
        critical = said.subject == ""  # RFC 5280, section 4.2.1.6
        made.append((x509.SubjectAlternativeName(map(_general, said.names)), critical))
    if said.permitted or said.excluded:
        constraints = x509.NameConstraints(
            [_general(one) for one in said.permitted] or None,
            [_general(one) for one in said.excluded] or None,
        )
        made.append((constraints, said.constraints_critical))
    if said.unknown:
        extension = x509.UnrecognizedExtension(ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00")
        made.append((extension, said.unknown == "critical"))
    return made


def _general(text: str) -> x509.GeneralName:
    kind, _, value = text.partition(":")
    if kind == "IP":
        return x509.IPAddress(ipaddress.ip_network(value))
    if kind == "CN":
        return x509.DirectoryName(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, value)]))
    kinds: Any = {
        "URI": x509.UniformResourceIdentifier,
        "DNS": x509.DNSName,
        "email": x509.RFC822Name,
    }
    return kinds[kind](value)  # type: ignore[no-any-return]


def _read(vector: Vector) -> x509.Certificate:
    data = (PRODUCTS / vector.file).read_bytes()
    return x509.load_pem_x509_certificates(data)[vector.number]


# sha256WithRSAEncryption becomes another one of the same length (RFC 8017, appendix A.2.4, and the
# DigestInfo prefixes of section 9.2).
_RSA_SHA256 = bytes.fromhex("2a864886f70d01010b")
_OTHERS = {
    "sha1": (bytes.fromhex("2a864886f70d010105"), "3021300906052b0e03021a05000414"),
    "md5": (bytes.fromhex("2a864886f70d010104"), "3020300c06082a864886f70d020505000410"),
    "unknown": (bytes.fromhex("2a864886f70d01017f"), ""),
}


def _sign_otherwise(
    signed: x509.Certificate, key: rsa.RSAPrivateKey, digest: str
) -> x509.Certificate:
    """Sign again, with what ``cryptography`` refuses to sign with."""
    algorithm, prefix = _OTHERS[digest]
    der = signed.public_bytes(Encoding.DER)
    assert der.count(_RSA_SHA256) == 2
    tbs = signed.tbs_certificate_bytes.replace(_RSA_SHA256, algorithm)
    numbers = key.private_numbers()
    modulus = numbers.public_numbers.n
    size = math.ceil(modulus.bit_length() / 8)
    name = "sha256" if digest == "unknown" else digest
    info = bytes.fromhex(prefix) + hashlib.new(name, tbs).digest()
    block = b"\x00\x01" + b"\xff" * (size - len(info) - 3) + b"\x00" + info
    signature = pow(int.from_bytes(block), numbers.d, modulus).to_bytes(size)
    head = der[: der.index(signed.tbs_certificate_bytes)]
    middle = der[len(head) + len(tbs) : -size].replace(_RSA_SHA256, algorithm)
    return x509.load_der_x509_certificate(head + tbs + middle + signature)
