"""A server's certificate, key and trusted authorities, as one immutable set."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from cryptography import x509

from secure_tls import pem
from secure_tls.files import TLSFiles, check_server_files
from secure_tls.spiffe import check_trust_domain
from secure_tls.trust import Trust


@dataclass(frozen=True, slots=True)
class TLSSet:
    """Certificate, key and trust of a server. ``handshake_bundle`` (PEM) has the authorities of all
    trust domains that have not expired: the TLS handshake accepts their clients.
    """

    files: TLSFiles
    trust: Trust
    handshake_bundle: bytes
    problems: tuple[str, ...] = ()
    """Sentences that say why a trust bundle or revocation list is not used; the others are."""
    minimum_version: Literal["1.2", "1.3"] = "1.3"
    """The lowest TLS version of a connection."""

    def __post_init__(self) -> None:
        if self.minimum_version not in {"1.2", "1.3"}:
            raise ValueError(f"minimum_version is {self.minimum_version!r}, not '1.2' or '1.3'.")

    @classmethod
    def of_pem(
        cls,
        certificate: bytes,
        private_key: bytes,
        client_ca: bytes,
        *,
        trust_domains: Iterable[str],
        minimum_version: Literal["1.2", "1.3"] = "1.3",
    ) -> TLSSet:
        """Make a set of PEM texts in memory: the server's leaf with its intermediates, its key, and
        the authorities of its clients, of whom the members of ``trust_domains`` may connect.

        Raises ``secure_tls.TLSFileError``, as for files of these names, and
        ``secure_tls.SpiffeIDError`` for a name that is no trust domain.
        """
        if isinstance(trust_domains, str):
            raise TypeError("trust_domains is one text: give a list of names.")
        domains = frozenset(map(check_trust_domain, trust_domains))
        now = time.time()
        files = check_server_files(certificate, private_key, client_ca, now=now)
        trust = Trust(files.authorities, trust_domains=domains)
        bundle = handshake_bundle(files.authorities, now)
        return cls(files, trust, bundle, minimum_version=minimum_version)

    @property
    def serving(self) -> tuple[bytes, bytes, bytes]:
        """The arguments of gRPC's credentials; when they change, a new server is needed."""
        return self.files.certificate_chain, self.files.private_key, self.handshake_bundle


def handshake_bundle(authorities: Iterable[x509.Certificate], now: float) -> bytes:
    """Return the authorities that have not expired at ``now`` (seconds since the epoch), as PEM.

    TLS follows one path and tries no other: an expired authority would hide its successor of the
    same name.
    """
    lasting = (each for each in authorities if now <= each.not_valid_after_utc.timestamp())
    return b"".join(map(pem.encode, lasting))
