"""A guard's certificate, key and trust, reloaded when the files change."""

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
from secure_tls.files import find_ca_key, read_bundle, read_server_files
from secure_tls.lists import RevocationLists
from secure_tls.trust import Trust

_DAY = 86400.0
_EARLY = 30 * _DAY
_LATE = 7 * _DAY
_ENDED = frozenset({"expired", "not_yet_valid"})


def read_tls(tls: TLSSection, *, now: float, last: Trust | None = None) -> TLSSet:
    """Read all files of ``[tls]``; ``now`` is seconds since the epoch.

    If a revocation list cannot be used, that of ``last`` stays (gRFC A69). If nothing differs from
    ``last``, the result keeps its trust snapshot, so that cached verdicts about clients stay valid.
    Raises ``secure_tls.TLSError``.
    """
    files = read_server_files(
        tls.certificate,
        tls.private_key,
        tls.client_ca,
        allow_readable_key=tls.allow_readable_private_key,
        now=now,
    )
    bundles, problems = _read_bundles(tls, now, last)
    all_authorities = (*files.authorities, *(one for each in bundles.values() for one in each))
    revoked = None
    if tls.crl is not None:
        before = None if last is None else last.revoked
        revoked = RevocationLists.load(tls.crl, all_authorities, now=now, last=before)
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
        handshake_bundle(all_authorities, now),
        tuple(problems),
        minimum_version=tls.minimum_version,
    )


def _read_bundles(
    tls: TLSSection, now: float, last: Trust | None
) -> tuple[dict[str, tuple[x509.Certificate, ...]], list[str]]:
    """Read ``trust_bundles``, and report those that cannot be used.

    A bad bundle affects only its own trust domain, whose last good bundle stays; without one its
    clients are refused.
    """
    bundles: dict[str, tuple[x509.Certificate, ...]] = {}
    problems = []
    for domain, path in tls.trust_bundles.items():
        try:
            _, bundles[domain] = read_bundle(path, now)
        except TLSFileError as error:
            # At the start a missing bundle is an error; an expired one is not.
            if last is None and error.code not in _ENDED:
                raise
            problems.append(error.message)
            bundles[domain] = () if last is None else last.bundles.get(domain, ())
    return bundles, problems


class Certificates:
    """The files of ``[tls]``: ``watched`` is the set in use, and operators are warned of its end.

    If a new set cannot be used, the last good one stays: a half-copied file must not stop the
    server. ``Reloads`` follows the files.
    """

    def __init__(self, tls: TLSSection, clock: Callable[[], float] = time.time) -> None:
        """Read the files. Raises ``secure_tls.TLSError`` where they cannot be used."""
        self._tls = tls
        self._clock = clock
        self._log = logs.logger(__name__)
        self._said: dict[str, float] = {}
        self.watched: Reloaded[TLSSet] = Reloaded(
            "certificate",
            lambda last: read_tls(tls, now=clock(), last=None if last is None else last.trust),
            errors=(TLSError,),
            version=lambda: signature(self._paths()),
            problems=lambda found: found.problems,
            describe=_described,
        )
        self.watched.subscribe(lambda _: self._said.clear())
        self._warn_of_ca_key()
        self._warn()

    @property
    def status(self) -> ReloadStatus:
        """The outcome of the reloads."""
        return self.watched.status

    @property
    def expires_at(self) -> float:
        """When the server's certificate expires, in seconds since the epoch."""
        return self.watched.value.files.leaf.not_valid_after_utc.timestamp()

    @property
    def warnings(self) -> list[str]:
        """Sentences for operators, besides those of ``Reloads``."""
        found = []
        left = self.expires_at - self._clock()
        if left < self._early:
            found.append(f"The server certificate ends in {max(0.0, left) / _DAY:.1f} days.")
        if (revoked := self.watched.value.trust.revoked) is not None:
            found += revoked.warnings(self._clock())
        return found

    def on_serving(self, told: Callable[[], None]) -> None:
        """Call a function when certificate, key or handshake bundle have changed."""
        last = self.watched.value.serving

        def tell(found: TLSSet) -> None:
            nonlocal last
            before, last = last, found.serving
            if last != before:
                told()

        self.watched.subscribe(tell)

    def look(self) -> None:
        """Reload changed files, and warn about what expires soon."""
        self.watched.look()
        self._warn()

    @property
    def _early(self) -> float:
        """Return when to start to warn: 30 days before the end, or a third of a short lifetime."""
        leaf = self.watched.value.files.leaf
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
        revoked = self.watched.value.trust.revoked
        for warning in () if revoked is None else revoked.warnings(now):
            self._say_once_in(_DAY / 24, warning)

    def _say_once_in(self, seconds: float, event: str) -> None:
        now = self._clock()
        if now >= self._said.get(event, 0.0):
            self._said[event] = now + seconds
            self._log.warning(event, **_described(self.watched.value))

    def _warn_of_ca_key(self) -> None:
        if ca_key := find_ca_key(self._tls.client_ca):
            self._log.warning(
                "the server can read the private key of its certificate authority: an attacker who "
                "takes over the server can issue any certificate. Keep that key on another machine",
                file=str(ca_key),
            )


def _described(found: TLSSet) -> dict[str, object]:
    return {"ends": found.files.leaf.not_valid_after_utc.isoformat()}
