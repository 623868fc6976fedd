"""What a guard serves with and whom it trusts, reloaded as the files change."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from cryptography import x509

from secure_base.reloading import Reloaded, ReloadStatus, signature
from secure_server import logs
from secure_server.guard.tls_set import TLSSet, handshake_bundle
from secure_server.sections import TLSSection
from secure_tls.errors import TLSError, TLSFileError
from secure_tls.files import TLSFiles, find_ca_key, read_bundle, read_server_files
from secure_tls.lists import RevocationLists
from secure_tls.trust import Trust

_DAY = 86400.0
_EARLY = 30 * _DAY
_LATE = 7 * _DAY
_ENDED = frozenset({"expired", "not_yet_valid"})


def read_tls(tls: TLSSection, *, now: float, last: Trust | None = None) -> TLSSet:
    """Read all files of ``[tls]``; ``now`` is seconds since the epoch.

    A revocation list that cannot be used leaves that of ``last`` (gRFC A69). Where all is as in
    ``last``, that very snapshot is in the result, so that no client is judged anew for a file that
    was only written again. Raises ``secure_tls.TLSError``.
    """
    files = read_server_files(
        tls.certificate,
        tls.private_key,
        tls.client_ca,
        allow_readable_key=tls.allow_readable_private_key,
        now=now,
    )
    bundles, problems = _read_bundles(tls, now, last)
    everybody = (*files.authorities, *(one for each in bundles.values() for one in each))
    revoked = None
    if tls.crl is not None:
        before = None if last is None else last.revoked
        revoked = RevocationLists.load(tls.crl, everybody, now=now, last=before)
    trust = Trust(
        files.authorities,
        bundles,
        revoked,
        frozenset((*tls.trust_domains, *tls.trust_bundles)),
        refuse_stale_lists=tls.stale_crl == "refuse",
    )
    if revoked is not None:
        problems += revoked.problems
    return TLSSet(
        files,
        last if last == trust else trust,
        handshake_bundle(everybody, now),
        tuple(problems),
        minimum_version=tls.minimum_version,
    )


def _read_bundles(
    tls: TLSSection, now: float, last: Trust | None
) -> tuple[dict[str, tuple[x509.Certificate, ...]], list[str]]:
    """Read ``trust_bundles``, and say which cannot be used: what becomes of a partner's concerns
    that partner's clients alone. They go by the last good one, or are refused.
    """
    bundles: dict[str, tuple[x509.Certificate, ...]] = {}
    problems = []
    for domain, path in tls.trust_bundles.items():
        try:
            _, bundles[domain] = read_bundle(path, now)
        except TLSFileError as error:
            # At the start a name that leads to no bundle is a mistake; one that has ended is not.
            if last is None and error.code not in _ENDED:
                raise
            problems.append(error.message)
            bundles[domain] = () if last is None else last.bundles.get(domain, ())
    return bundles, problems


class Certificates:
    """One consistent set of certificate, key and trust, and what is to be told of the next.

    A set that cannot be used keeps the last good one: a server that stops because half of a file
    was copied would be worse than one that goes on with what it has. ``Reloads`` follows it.
    """

    def __init__(self, tls: TLSSection, clock: Callable[[], float] = time.time) -> None:
        """Read the files. Raises ``secure_tls.TLSError`` for what cannot be served with."""
        self._tls = tls
        self._clock = clock
        self._log = logs.logger(__name__)
        self._said: dict[str, float] = {}
        self._set: Reloaded[TLSSet] = Reloaded(
            "certificate",
            lambda last: read_tls(tls, now=clock(), last=None if last is None else last.trust),
            errors=(TLSError,),
            version=lambda: signature(self._paths()),
            problems=lambda found: found.problems,
            describe=lambda found: {"ends": found.files.leaf.not_valid_after_utc.isoformat()},
        )
        self._set.subscribe(lambda _: self._said.clear())
        self._warn_of_ca_key()
        self._warn()

    @property
    def status(self) -> ReloadStatus:
        """How the reloads went."""
        return self._set.status

    @property
    def files(self) -> TLSFiles:
        """Certificate, key and authorities."""
        return self._set.value.files

    @property
    def trust(self) -> Trust:
        """Whom we trust: asked at each call."""
        return self._set.value.trust

    @property
    def handshake_bundle(self) -> bytes:
        """All authorities in PEM: what TLS lets in. Which of them counts is asked at each call."""
        return self._set.value.handshake_bundle

    @property
    def expires_at(self) -> float:
        """When the server's certificate ends, in seconds since the epoch."""
        return self.files.leaf.not_valid_after_utc.timestamp()

    @property
    def warnings(self) -> list[str]:
        """What an operator should see to beside what ``Reloads`` says, in sentences."""
        found = []
        left = self.expires_at - self._clock()
        if left < self._early:
            found.append(f"The server certificate ends in {max(0.0, left) / _DAY:.1f} days.")
        if self.trust.revoked is not None:
            found += self.trust.revoked.warnings(self._clock())
        return found

    @property
    def value(self) -> TLSSet:
        """The set in use."""
        return self._set.value

    def subscribe(self, told: Callable[[TLSSet], object]) -> Callable[[], None]:
        """Call ``told`` with each new set; return what ends that."""
        return self._set.subscribe(told)

    def on_serving(self, told: Callable[[], None]) -> None:
        """Have a function called when there is something new to serve with."""
        last = self._set.value.serving

        def tell(found: TLSSet) -> None:
            nonlocal last
            before, last = last, found.serving
            if last != before:
                told()

        self._set.subscribe(tell)

    def look(self) -> None:
        """See whether the files have changed, and warn of what ends soon."""
        self._set.look()
        self._warn()

    @property
    def _early(self) -> float:
        """From when on the end is near: 30 days, or a third of a short life."""
        leaf = self.files.leaf
        life = (leaf.not_valid_after_utc - leaf.not_valid_before_utc).total_seconds()
        return min(_EARLY, life / 3)

    def _paths(self) -> list[Path]:
        tls = self._tls
        paths = [tls.certificate, tls.private_key, tls.client_ca, *tls.trust_bundles.values()]
        return [*paths, tls.crl] if tls.crl is not None else paths

    def _warn(self) -> None:
        now = self._clock()
        left = self.expires_at - now
        if left < self._early:
            every = _DAY if left < _LATE else 7 * _DAY
            self._say_once_in(every, "the server certificate is near its end: renew it")
        for warning in () if self.trust.revoked is None else self.trust.revoked.warnings(now):
            self._say_once_in(_DAY / 24, warning)

    def _say_once_in(self, seconds: float, event: str) -> None:
        now = self._clock()
        if now >= self._said.get(event, 0.0):
            self._said[event] = now + seconds
            self._log.warning(event, ends=self.files.leaf.not_valid_after_utc.isoformat())

    def _warn_of_ca_key(self) -> None:
        if ca_key := find_ca_key(self._tls.client_ca):
            self._log.warning(
                "the server can read the private key of its certificate authority: whoever takes "
                "the server over can make any certificate. Keep that key on another machine",
                file=str(ca_key),
            )
