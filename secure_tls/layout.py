"""The paths in a folder of certificates, and which leaf a name means."""

from __future__ import annotations

import difflib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509

from secure_tls import pem
from secure_tls.authority import Authority
from secure_tls.errors import AuthorityError, TLSFileError

if TYPE_CHECKING:
    from collections.abc import Callable

_SUFFIX = ".pem"
LEAF_FOLDERS = ("servers", "clients")


@dataclass(frozen=True, slots=True)
class Leaf:
    """The two files of a leaf, ``certificate`` and ``key``; ``stem`` as in ``clients/demo``."""

    stem: str
    certificate: Path
    key: Path

    @property
    def name(self) -> str:
        """The short name, where it is unambiguous."""
        return self.stem.rpartition("/")[2]

    def load(self) -> tuple[x509.Certificate, ...]:
        """The certificates of its file, the leaf first. Raises ``TLSFileError``."""
        return pem.load_certificates(pem.read(self.certificate), self.certificate)


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of one folder of certificates, with the clock for what is signed there."""

    path: Path
    clock: Callable[[], float] = time.time

    @property
    def ca(self) -> Path:
        return self.path / "ca.pem"

    @property
    def ca_key(self) -> Path:
        return self.path / "ca.key"

    @property
    def crl(self) -> Path:
        return self.path / "crl.pem"

    @property
    def replaced(self) -> Path:
        """The unexpired certificates that renewals replaced; revoking a leaf revokes them too."""
        return self.path / "replaced.pem"

    def ca_certificate(self) -> x509.Certificate:
        """The authority's certificate. Raises ``TLSFileError``, ``no_ca`` where there is none."""
        if not is_there(self.ca):
            raise TLSFileError(
                "no_ca",
                f"{self.path} has no authority yet: run secure-certs there first.",
                self.path,
            )
        return pem.load_certificates(pem.read(self.ca), self.ca)[0]

    def authority(self) -> Authority:
        """The authority, to sign with. Raises ``TLSFileError``, ``no_ca_key`` without its key."""
        if not is_there(self.ca_key):
            raise TLSFileError(
                "no_ca_key",
                f"{self.ca_key} is not there, and nothing can be signed without it: bring it "
                "back for this run.",
                self.ca_key,
            )
        return Authority.load(self.ca, self.ca_key, clock=self.clock)

    def leaf_at(self, stem: str) -> Leaf:
        """The leaf of this stem, whether or not it exists."""
        return Leaf(stem, self.path / f"{stem}{_SUFFIX}", self.path / f"{stem}.key")

    def leaves(self) -> list[Leaf]:
        """The leaves whose certificates exist: ``server``, then servers, then clients."""
        stems = ["server"]
        for folder in LEAF_FOLDERS:
            files = sorted((self.path / folder).glob(f"[!.]*{_SUFFIX}"))
            stems += [f"{folder}/{file.name.removesuffix(_SUFFIX)}" for file in files]
        return [leaf for leaf in map(self.leaf_at, stems) if is_there(leaf.certificate)]

    def leaf(self, name: str) -> Leaf:
        """Find a leaf by its name, its stem or the path of its certificate.

        Raises ``AuthorityError``: ``unknown_name``, ``ambiguous_name``.
        """
        leaves = self.leaves()
        exact = [leaf for leaf in leaves if _is_exact(name, leaf)]
        meant = exact or [leaf for leaf in leaves if name == leaf.name]
        if len(meant) == 1:
            return meant[0]
        if meant:
            files = " and ".join(f"{leaf.stem}{_SUFFIX}" for leaf in meant)
            raise AuthorityError(
                "ambiguous_name",
                f"{name[:80]!a} could be {files} in {self.path}: say which, like this.",
            )
        raise AuthorityError(
            "unknown_name",
            f"{self.path} has no certificate {name[:80]!a}: {_suggestion(name, leaves)}",
        )


def is_there(path: Path) -> bool:
    """Whether the name is taken, if only by a dangling link."""
    return path.exists() or path.is_symlink()


def _is_exact(name: str, leaf: Leaf) -> bool:
    # "server" is both a stem and a possible name of a server or client.
    if name == f"{leaf.stem}{_SUFFIX}" or (name == leaf.stem and name != leaf.name):
        return True
    return name.endswith(_SUFFIX) and Path(name).resolve() == leaf.certificate.resolve()


def _suggestion(name: str, leaves: list[Leaf]) -> str:
    word = name.rpartition("/")[2].removesuffix(_SUFFIX)
    near = difflib.get_close_matches(word, dict.fromkeys(leaf.name for leaf in leaves))
    if near:
        return f"did you mean {' or '.join(near)}?"
    return "secure-certs inspect lists what it has."
