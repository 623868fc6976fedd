"""Authenticates callers and caches them: the second step of the guard, after the peer."""

from __future__ import annotations

import hashlib

from secure_base.bounded_cache import BoundedCache
from secure_server.auth.authenticators import Authenticators
from secure_server.auth.credentials import Credentials
from secure_server.auth.errors import AuthenticationError, AuthenticatorUnavailable
from secure_server.auth.principal import Principal
from secure_server.auth.revocations import Revocations
from secure_server.authz import Decision, Policy
from secure_server.guard.caller import Caller
from secure_server.guard.refusal import Refusal, RefusalReason
from secure_tls.peer import Peer

_MOST_CALLERS = 100_000
_FOREVER = float("inf")


class CachedCaller:
    """An authenticated caller, and the policy's cached decisions about them.

    ``good_until`` is seconds since the epoch; ``auth_epoch`` and ``revocations`` are the state of
    the authenticators and of the revocations that the caller was checked against.
    """

    __slots__ = ("auth_epoch", "caller", "decided", "good_until", "revocations")

    def __init__(
        self, caller: Caller, good_until: float, auth_epoch: int, revocations: int
    ) -> None:
        self.caller = caller
        self.good_until = good_until
        self.auth_epoch = auth_epoch
        self.revocations = revocations
        # Replaced together: no decision is cached under another policy.
        self.decided: tuple[Policy | None, dict[str, Decision]] = (None, {})


class Recognition:
    """Asks the authenticators who is calling, and caches their answers for all threads.

    Cached callers become invalid when the authenticators' ``CacheEpoch`` advances, and are checked
    again when the revocations change.
    """

    def __init__(self, authenticators: Authenticators, revocations: Revocations) -> None:
        self._authenticators = authenticators
        self._epoch = authenticators.cache_epoch
        self._revocations = revocations
        self._callers: BoundedCache[tuple[bytes, str], CachedCaller] = BoundedCache(_MOST_CALLERS)

    def cached(self, credential: str | None, peer: Peer | None, now: float) -> CachedCaller | None:
        """Return the cached caller; None where ``authenticate`` must be called.

        Raises ``Refusal``.
        """
        revocations = self._revocations
        generation = revocations.generation
        if credential is not None and not revocations.is_current:
            raise _stale(peer)
        cached = self._callers.get(_key(credential, peer))
        if cached is None or now >= cached.good_until or cached.auth_epoch != self._epoch.value:
            if credential is None and not self._authenticators.asks_about_certificates:
                # No authenticator is asked, so this cannot block.
                return self.authenticate(credential, peer, now)
            return None
        if cached.revocations != generation:
            self._check_revoked(cached.caller)
            cached.revocations = generation
        return cached

    def authenticate(self, credential: str | None, peer: Peer | None, now: float) -> CachedCaller:
        """Ask the authenticators, which may verify signatures and wait for a network.

        Raises ``Refusal``.
        """
        # Read before asking: an answer must not be cached under a later state.
        epoch, generation = self._epoch.value, self._revocations.generation
        try:
            credentials = None if credential is None else Credentials.parse(credential)
            principal = self._authenticators.authenticate(credentials, peer)
        except AuthenticatorUnavailable as error:
            raise _refused(RefusalReason.UNVERIFIABLE, error, peer) from error
        except AuthenticationError as error:
            raise _refused(RefusalReason.CREDENTIALS, error, peer) from error
        caller = Caller(peer, principal)
        self._check_revoked(caller)
        good_until = min(principal.expires_at or _FOREVER, principal.recheck_at or _FOREVER)
        cached = CachedCaller(caller, good_until, epoch, generation)
        if now < good_until:
            self._callers.put(_key(credential, peer), cached)
        return cached

    def check(self, caller: Caller, credential: str | None, now: float) -> None:
        """Check a caller without asking an authenticator: by expiry and revocations.

        Raises ``Refusal``.
        """
        principal = caller.principal
        if credential is not None and not self._revocations.is_current:
            raise _stale(caller.peer)
        if now >= (principal.expires_at or _FOREVER):
            raise Refusal(
                RefusalReason.EXPIRED,
                "The token has expired, and its issuer has not confirmed it in time.",
                unverified=_claims(principal),
                peer=caller.peer,
            )
        self._check_revoked(caller)

    def _check_revoked(self, caller: Caller) -> None:
        if self._revocations.is_revoked(caller.principal):
            raise Refusal(
                RefusalReason.REVOKED,
                "The token is revoked, or its session, user or client.",
                unverified=_claims(caller.principal),
                peer=caller.peer,
            )


def _key(credential: str | None, peer: Peer | None) -> tuple[bytes, str]:
    # A digest, so that neither the cache nor a memory dump of it holds a credential.
    text = b"" if credential is None else credential.encode("utf-8", "surrogateescape")
    return hashlib.sha256(text).digest(), "" if peer is None else peer.thumbprint


def _claims(principal: Principal) -> dict[str, str]:
    return {"iss": principal.issuer, "sub": principal.subject, "jti": principal.token_id}


def _refused(reason: RefusalReason, error: AuthenticationError, peer: Peer | None) -> Refusal:
    return Refusal(reason, str(error), code=error.code, unverified=error.claims, peer=peer)


def _stale(peer: Peer | None) -> Refusal:
    return Refusal(
        RefusalReason.REVOCATIONS_STALE, "The feed of revocations cannot be read.", peer=peer
    )
