"""The revocation lists in force: one of each authority, found by the authority's key."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from cryptography import x509

from secure_base.reloading.signature import Signature, signature
from secure_tls.crl import ParsedList, is_signed_by, parse_file
from secure_tls.errors import RevocationListError
from secure_tls.keys import spki

if TYPE_CHECKING:
    import os


@dataclass(frozen=True, slots=True)
class IssuerList:
    """The complete list of one authority: the serial numbers that it has revoked.

    ``next_update`` is seconds since the epoch, ``issuer`` the RFC 4514 text of its name. With
    ``leaves_only`` it does not say which authorities are revoked (onlyContainsUserCerts).
    """

    issuer: str
    path: Path
    next_update: float
    leaves_only: bool
    serials: frozenset[int] = field(repr=False)
    age: tuple[float, int] = field(repr=False)
    """When it was issued, in seconds since the epoch, and its number: the greater is the newer."""

    @classmethod
    def of(cls, parsed: ParsedList) -> Self:
        return cls(
            parsed.crl.issuer.rfc4514_string(),
            parsed.path,
            parsed.next_update,
            parsed.leaves_only,
            frozenset(entry.serial_number for entry in parsed.crl),
            (parsed.crl.last_update_utc.timestamp(), parsed.number),
        )


@dataclass(frozen=True, slots=True)
class FileLists:
    """One file's lists: by their authority's key, and those of unknown authorities."""

    matched: tuple[tuple[bytes, IssuerList], ...]
    unmatched: tuple[ParsedList, ...]


class RevocationLists:
    """The lists of one file or folder: an immutable snapshot.

    A class because a list of an intermediate authority, which no bundle has, can be verified only
    once a client has sent that authority's certificate: ``of`` remembers the result.
    """

    def __init__(
        self,
        files: Mapping[Path, FileLists],
        problems: tuple[str, ...],
        gone: Mapping[bytes, IssuerList],
        read_for: tuple[x509.Certificate, ...],
        versions: Mapping[Path, Signature],
    ) -> None:
        """Made by ``load``."""
        self.read_for = read_for
        self.versions = versions
        self.files = files
        """The lists of each file, as last read without an error."""
        self._by_key: dict[bytes, tuple[IssuerList, ...]] = {}
        for key, found in (each for file in files.values() for each in file.matched):
            self._by_key[key] = _newest(*self._by_key.get(key, ()), found)
        self.gone = {key: each for key, each in gone.items() if key not in self._by_key}
        """Lists whose files are gone, by the authority's key."""
        self._unmatched = tuple(each for file in files.values() for each in file.unmatched)
        self._claimed: set[int] = set()
        self.problems = problems
        """Why existing files are not used, in sentences."""

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        authorities: Iterable[x509.Certificate],
        *,
        now: float,
        last: RevocationLists | None = None,
    ) -> RevocationLists:
        """Read a file of one DER list or any number of PEM lists, or all files of a folder.

        A list is matched to its authority by its signature: names may be equal. Of several lists
        of one authority the newest counts. A list of an authority that is not among
        ``authorities`` is verified when a client sends that authority's certificate. A stale
        list loads; ``now`` is seconds since the epoch. Where nothing has changed, returns
        ``last``.

        A broken file keeps the lists that ``last`` had of it and adds a sentence to ``problems``:
        one partner's broken list must not disable the others. Where no list at all is left,
        raises ``RevocationListError``, whose ``code`` is one of ``missing``,
        ``unreadable``, ``malformed``, ``forged`` (the signature is not that of the authority that
        it names), ``unsupported`` (delta, indirect or partial lists), ``no_next_update``,
        ``not_yet_valid``. With ``last`` there are two other problems: ``foreign``, a stranger's
        list in the place of one that was there, and ``older``, that authority's own of before.
        """
        known = tuple(authorities)
        before: Mapping[Path, FileLists] = {} if last is None else last.files
        files: dict[Path, FileLists] = {}
        versions: dict[Path, Signature] = {}
        errors: list[RevocationListError] = []
        try:
            for one in _files(Path(path)):
                version = _version(one)  # before reading: a later change is then noticed
                try:
                    if last is not None and last.is_as_read(one, version, known):
                        files[one] = before[one]
                    else:
                        files[one] = _read(one, known, now, before.get(one))
                        _check_newer(files[one], last)
                    versions[one] = version
                except RevocationListError as error:
                    errors.append(error)
                    if one in before:
                        files[one] = before[one]
        except RevocationListError as error:
            errors.append(error)
        if errors and not files:
            if not before:
                raise errors[0]
            files.update(before)
        problems = tuple(error.message for error in errors)
        gone: dict[bytes, IssuerList] = {}
        if last is not None:
            trusted = {spki(each.public_key()) for each in known}
            earlier = {key: found[0] for key, found in last.in_force.items()} | last.gone
            gone = {key: earlier[key] for key in earlier.keys() & trusted}
        present = cls(files, problems, gone, known, versions)
        if last is None or not present.says_as(last):
            return present
        last.versions = versions
        return last

    def says_as(self, other: RevocationLists) -> bool:
        """Whether both say the same about every authority, from the same files."""
        mine, theirs = (
            (each.files, each.problems, each.gone, each.read_for) for each in (self, other)
        )
        return mine == theirs

    def is_as_read(
        self, path: Path, version: Signature, authorities: tuple[x509.Certificate, ...]
    ) -> bool:
        """Whether a file need not be read again: a list of a million entries must not be parsed at
        every poll because another file is broken.
        """
        return self.versions.get(path) == version and self.read_for == authorities

    def of(self, issuer: x509.Certificate) -> IssuerList | None:
        """The list of the authority with this certificate's key, or None; of two, the list of all
        certificates rather than that of leaves only.
        """
        return next(iter(self.all_of(issuer)), None)

    def all_of(self, issuer: x509.Certificate) -> tuple[IssuerList, ...]:
        """All lists that count of the authority with this certificate's key."""
        key = spki(issuer.public_key())
        found = self._by_key.get(key, ())
        if not found:
            for number, parsed in enumerate(self._unmatched):
                if is_signed_by(parsed.crl, issuer):
                    found = _newest(*found, IssuerList.of(parsed))
                    self._claimed.add(number)
            # Bounded: only authorities that have lists are remembered.
            if found:
                self._by_key[key] = found
        return found

    @property
    def in_force(self) -> Mapping[bytes, tuple[IssuerList, ...]]:
        """The lists that count, by the authority's key."""
        return dict(tuple(self._by_key.items()))

    def __iter__(self) -> Iterator[IssuerList]:
        """The lists whose authorities are known."""
        # Copied first: calls add to it concurrently.
        return iter([each for found in tuple(self._by_key.values()) for each in found])

    def warnings(self, now: float) -> list[str]:
        """What an operator should fix, in sentences; ``now`` is seconds since the epoch."""
        stale = [
            f"The revocation list {each.path} of {each.issuer!a} is stale: a newer one should be "
            "there."
            for each in self
            if now > each.next_update
        ]
        waiting = [
            f"The revocation list {each.path} is of {each.crl.issuer.rfc4514_string()!a}, which is "
            "no authority of the trust bundle: it counts only for those who send that authority's "
            "certificate with theirs. Remove the list if it is not wanted."
            for number, each in enumerate(self._unmatched)
            if number not in self._claimed
        ]
        gone = [
            f"The revocation list of {each.issuer!a}, which was in {each.path}, is gone: what it "
            "revoked is let in. Put it back, or take that authority out of its bundle."
            for each in self.gone.values()
        ]
        return [*stale, *waiting, *gone]


def _newest(*lists: IssuerList) -> tuple[IssuerList, ...]:
    """The newest list of all certificates, then the newest of leaves only: the first still
    covers the authorities.
    """
    kinds = ([each for each in lists if each.leaves_only is only] for only in (False, True))
    return tuple(max(kind, key=lambda each: each.age) for kind in kinds if kind)


def _check_newer(file: FileLists, last: RevocationLists | None) -> None:
    """Refuse an older list of the same authority: it would admit what was revoked in between."""
    in_force = {} if last is None else last.in_force
    for key, found in file.matched:
        if any(
            before.path == found.path
            and before.leaves_only is found.leaves_only
            and found.age < before.age
            for before in in_force.get(key, ())
        ):
            raise RevocationListError(
                "older",
                f"{found.path} has an older list of {found.issuer!a} than the one that was there: "
                "fetch the newest one. Restart the server if the older one is meant.",
                found.path,
            )


def _read(
    path: Path, authorities: tuple[x509.Certificate, ...], now: float, last: FileLists | None
) -> FileLists:
    matched: list[tuple[bytes, IssuerList]] = []
    unmatched: list[ParsedList] = []
    for parsed in parse_file(path, now=now):
        issuer = parsed.issuer_among(authorities)
        if issuer is None:
            unmatched.append(parsed)
        else:
            matched.append((spki(issuer.public_key()), IssuerList.of(parsed)))
    # A file must keep the authorities that it had: another authority's list in its place would
    # admit every certificate revoked here. But an authority may have left its bundle.
    trusted = {spki(each.public_key()) for each in authorities}
    before = set() if last is None else {key for key, _ in last.matched} & trusted
    if unmatched and before - {key for key, _ in matched}:
        raise RevocationListError(
            "foreign",
            f"{path} has a list of {unmatched[0].crl.issuer.rfc4514_string()!a}, which is no "
            "authority of the trust bundle, in the place of one that was there: put that one back.",
            path,
        )
    return FileLists(tuple(matched), tuple(unmatched))


def _version(path: Path) -> Signature:
    try:
        return signature([path])
    except OSError as error:
        raise _unreadable(path, error) from error


def _files(path: Path) -> list[Path]:
    """The files of a folder, hidden ones left out (Kubernetes keeps its own there)."""
    try:
        if not path.is_dir():
            return [path]
        files = [one for one in sorted(path.iterdir()) if one.name[0] != "." and one.is_file()]
    except OSError as error:
        raise _unreadable(path, error) from error
    if not files:
        raise RevocationListError(
            "missing", f"{path} holds no revocation list: put one there, or name none.", path
        )
    return files


def _unreadable(path: Path, error: OSError) -> RevocationListError:
    return RevocationListError("unreadable", f"{path} cannot be read: {error.strerror}.", path)
