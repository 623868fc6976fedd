"""The keys of one issuer (JWKs or API keys), by their names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from secure_base.reloading import OnDemand, RefreshSchedule
from secure_server.auth.bulkhead import Bulkhead
from secure_server.auth.cache_epoch import CacheEpoch
from secure_server.auth.errors import AuthenticatorError, AuthenticatorUnavailable

K = TypeVar("K")

FETCHED = RefreshSchedule(refresh=300, cooldown=10, max_stale=24 * 3600, patience=6)


class KeySource(Generic[K]):
    """Looks up reloaded keys; when a key is withdrawn, cached callers become invalid."""

    def __init__(
        self,
        keys: OnDemand[Mapping[str, K]],
        *,
        name: str,
        bulkhead: Bulkhead,
        cache_epoch: CacheEpoch,
        close: Callable[[], object],
    ) -> None:
        """``cache_epoch`` is advanced when a key is withdrawn or replaced. ``close`` stops the
        reloading.
        """
        self._keys = keys
        self._name = name
        self._bulkhead = bulkhead
        self._cache_epoch = cache_epoch
        self._known: Mapping[str, K] = keys.value
        self.close = close
        keys.subscribe(self._forget_withdrawn)

    def find(self, key_id: str) -> K | None:
        """Return the key; None where the issuer has none of this name.

        Raises ``AuthenticatorUnavailable`` where the keys cannot be loaded now.
        """
        key = self._keys.value.get(key_id)
        if key is not None:
            return key
        if not self._keys.want(self._bulkhead.waiting):
            raise AuthenticatorUnavailable("keys", f"The keys of {self._name} take too long.")
        key = self._keys.value.get(key_id)
        if key is None and (reason := self._keys.status.reason):
            raise AuthenticatorUnavailable(
                "keys", f"The keys of {self._name} cannot be had: {reason}"
            )
        return key

    def loaded(self) -> Mapping[str, K]:
        """Return the keys once the first load is over. Raises ``AuthenticatorError``."""
        if not self._keys.value:
            self._keys.want(self._bulkhead.waiting)
        if reason := self._keys.status.reason:
            raise AuthenticatorError(reason)
        return self._keys.value

    def _forget_withdrawn(self, keys: Mapping[str, K]) -> None:
        before, self._known = self._known, keys
        if any(keys.get(key_id) != key for key_id, key in before.items()):
            self._cache_epoch.advance()
