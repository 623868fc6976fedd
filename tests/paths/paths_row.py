"""One line of the table of certificate chains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from paths_pki import Cert, Crl, Pki, Vector

# Why OpenSSL says otherwise.
IDENTITY = "what a client must say of itself is this project's rule"
LAST_SECOND = "its last second is over: RFC 5280, section 4.1.2.5, counts it in"
ONE_PATH = "it follows one path and tries no other, whatever the order of what is sent"
STALE = "it never goes on with a stale list"
STRENGTH = "which curves, exponents and kinds of keys will do is this project's rule"
STRICT = "-x509_strict wants an extension that verifiers need not have (section 4.2)"

# Why the handshake refuses already.
TLS_ONE_PATH = "TLS follows one path, the first, and tries no other"
TLS_TOO = "TLS asks for this too"


@dataclass(frozen=True, slots=True)
class Row:
    """A leaf, what its client sends with it, what is trusted, and the expected code.

    The certificates are those of ``paths_pki.BASE``, with ``pki`` in place of or beside them.
    """

    name: str
    """What the row shows; its first word is the number of the attack, where it has one."""
    code: str = ""
    """The verdict's code, empty where the leaf is good."""
    pki: Mapping[str, Cert | Vector] = field(default_factory=dict)
    leaf: str = "leaf"
    sent: tuple[str, ...] = ("mid",)
    trusted: tuple[str, ...] = ("root",)
    """The authorities of trust domains without a bundle (``client_ca``)."""
    bundles: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    domains: tuple[str, ...] | None = ("example.org",)
    """The trust domains that are configured beside those of ``bundles``; None for any."""
    lists: tuple[Crl | Vector, ...] | None = None
    """The revocation lists, a file each; None where no ``crl`` is configured."""
    refuse_stale: bool = False
    at: int | str = 0
    """Seconds from moment zero, or a moment of its own (ISO 8601)."""
    openssl: str = ""
    """Why OpenSSL says otherwise, where it does."""
    wire: bool | str = False
    """Whether it also goes over real connections; a text says why the handshake refuses it."""

    def __str__(self) -> str:
        return "_".join(self.name.replace(":", "").replace(",", "").split())

    def build(self, zero: int) -> Pki:
        return Pki(self.pki, zero)

    def moment(self, zero: int) -> int:
        """In seconds since the epoch."""
        if isinstance(self.at, str):
            return int(datetime.fromisoformat(self.at).timestamp())
        return zero + self.at

    def anchors(self, pki: Pki) -> tuple[str, ...]:
        """The authorities of the leaf's own trust domain."""
        try:
            names = pki.certificate(self.leaf).extensions.get_extension_for_class(
                x509.SubjectAlternativeName
            )
        except (x509.ExtensionNotFound, ValueError):
            return self.trusted
        uris = names.value.get_values_for_type(x509.UniformResourceIdentifier)
        domains = [urlsplit(uri).netloc for uri in uris]
        return self.bundles.get(domains[0], self.trusted) if domains else self.trusted

    def every_authority(self) -> tuple[str, ...]:
        return (*self.trusted, *(one for each in self.bundles.values() for one in each))

    def write_lists(self, pki: Pki, folder: Path) -> Path:
        """Write the lists as an operator would, and return the folder."""
        folder.mkdir(exist_ok=True)
        for number, said in enumerate(self.lists or ()):
            (folder / f"{number}.crl").write_bytes(pki.crl(said))
        return folder
