"""Keys that change while we run: fetched again ahead of time, kept when fetching fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from secure_server import logs
from secure_server.auth.bulkhead import Bulkhead
from secure_server.auth.cache_epoch import CacheEpoch
from secure_server.auth.errors import AuthenticatorError, AuthenticatorUnavailable

K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class RefreshSchedule:
    """When keys are loaded; all in seconds.

    They are loaded again every ``refresh``, or ``cooldown`` after a failure; for the sake of a key
    that is not there, once a ``cooldown`` at the most. The last good ones are used until they are
    ``max_stale`` old. A call waits for ``patience`` for a load that is under way.
    """

    refresh: float
    cooldown: float
    max_stale: float
    patience: float


_A_MOMENT = 0.5  # seconds

FETCHED = RefreshSchedule(refresh=300, cooldown=10, max_stale=24 * 3600, patience=6)
FILE = RefreshSchedule(refresh=1, cooldown=1, max_stale=float("inf"), patience=6)


class KeySource(Generic[K]):
    """Hands out the keys of one issuer, of whatever kind, by their names.

    A class with a thread, because nobody's call should have to fetch what could have been fetched
    before: only the very first calls wait, all of them for one load, and those with a key that
    nobody has heard of. A failure never takes away what was good.
    """

    def __init__(
        self,
        load: Callable[[], Mapping[str, K]],
        *,
        name: str,
        pace: RefreshSchedule,
        bulkhead: Bulkhead,
        cache_epoch: CacheEpoch,
        release: Callable[[], object] = bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``load`` returns the keys that there are now or raises ``AuthenticatorError``; it is
        called on one thread, one call at a time, and ``release`` when it is over for good.

        ``cache_epoch`` is moved on when a key was withdrawn or replaced. ``clock`` is in seconds,
        from anywhere.
        """
        self._load = load
        self._name = name
        self._pace = pace
        self._bulkhead = bulkhead
        self._cache_epoch = cache_epoch
        self._release = release
        self._clock = clock
        self._keys: Mapping[str, K] = {}
        self._loaded_at = float("-inf")
        self._asked_at = float("-inf")
        self._failure = "they were not loaded yet"
        self._attempts = 0
        self._is_loading = False
        self._is_wanted = False
        self._closed = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def find(self, key_id: str) -> K | None:
        """Return the key, None where the issuer has none of this name.

        Raises ``AuthenticatorUnavailable`` where that cannot be known now.
        """
        key = self._keys.get(key_id)
        if key is None or self._is_stale():
            self._wait_for_load()
            key = self._keys.get(key_id)
        if self._is_stale() or (key is None and self._failure):
            raise AuthenticatorUnavailable(
                "keys", f"The keys of {self._name} cannot be had: {self._failure}"
            )
        return key

    def load_now(self) -> None:
        """Load the keys before ``start``, where they must be there from the beginning.

        Raises ``AuthenticatorError``.
        """
        self._try()
        if self._failure:
            raise AuthenticatorError(self._failure)

    def loaded(self) -> Mapping[str, K]:
        """Return the keys once the first load is over. Raises ``AuthenticatorError``."""
        with self._changed:
            self._changed.wait_for(lambda: self._attempts > 0, self._pace.patience)
            if self._failure:
                raise AuthenticatorError(self._failure)
            return self._keys

    def start(self) -> None:
        """Begin to load in the background."""
        self._is_loading = True
        self._thread = threading.Thread(target=self._run, name=f"keys {self._name}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop loading. A load under way is hardly waited for."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(_A_MOMENT)

    def _is_stale(self) -> bool:
        return self._clock() - self._loaded_at > self._pace.max_stale

    def _wait_for_load(self) -> None:
        """Have the keys loaded, unless somebody did just now, and wait for it."""
        with self._changed:
            attempts = self._attempts
            # A load that somebody wants and that has not begun yet is as good as one under way.
            if not self._is_loading and not self._is_wanted:
                if self._closed or self._clock() - self._asked_at < self._pace.cooldown:
                    return
                self._asked_at = self._clock()
                self._is_wanted = True
                self._changed.notify_all()
        with self._bulkhead.waiting(), self._changed:
            if not self._changed.wait_for(
                lambda: self._attempts != attempts or self._closed, self._pace.patience
            ):
                raise AuthenticatorUnavailable("keys", f"The keys of {self._name} take too long.")

    def _run(self) -> None:
        while not self._closed:
            self._try()
            with self._changed:
                due = self._pace.cooldown if self._failure else self._pace.refresh
                self._changed.wait_for(lambda: self._is_wanted or self._closed, due)
                self._is_wanted, self._is_loading = False, True
        self._release()

    def _try(self) -> None:
        failure, keys = "", self._keys
        try:
            keys = self._load()
        except AuthenticatorError as error:
            failure = str(error)
        except Exception as error:  # noqa: BLE001 - a loader of anybody's may fail in any way
            failure = f"{type(error).__name__} while they were loaded"
        with self._changed:
            before, self._keys = self._keys, keys
            if not failure:
                self._loaded_at = self._clock()
            was, self._failure = self._failure, failure
            self._attempts += 1
            self._is_loading = False
            self._changed.notify_all()
        withdrawn = any(keys.get(key_id) != key for key_id, key in before.items())
        if withdrawn or (failure and self._is_stale()):
            # Whom these keys vouched for has to be looked at again.
            self._cache_epoch.advance()
        self._tell(before, keys, failure, was)

    def _tell(self, before: Mapping[str, K], keys: Mapping[str, K], failure: str, was: str) -> None:
        log = logs.logger(__name__)
        if failure and failure != was:
            log.warning("keys cannot be loaded", keys=self._name, reason=failure)
        elif keys != before:
            log.info("keys loaded", keys=self._name, names=sorted(keys))
