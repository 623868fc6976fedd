"""The door's steps, without gRPC: peer, principal, decision. Both adapters walk through here.

Everything on the way of a warm call is a look-up in a dictionary.
"""

from __future__ import annotations

import hashlib
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence

from secure_base.bounded_cache import BoundedCache
from secure_server import logs
from secure_server.auth.authenticators import Authenticators
from secure_server.auth.credentials import Credentials
from secure_server.auth.errors import AuthenticationError, AuthenticatorUnavailable
from secure_server.auth.principal import ANONYMOUS, Principal
from secure_server.auth.revocations import Revocations
from secure_server.authz import Decision, Policy
from secure_server.authz.headers import policy_headers
from secure_server.guard.caller import Caller
from secure_server.guard.peers import Peers
from secure_server.guard.refusal import Answer, Refusal
from secure_server.guard.refusal_log import AuditCallback, AuditEvent
from secure_tls.peer import Peer

MAX_METADATA_BYTES = 16 * 1024
"""Names, values and 32 bytes an entry (RFC 9113, section 10.5.1). gRPC has a limit too, but does
not apply it before the client has acknowledged the server's settings."""

_MOST_KNOWN = 100_000
_MOST_LOOKED_AT = 10_000
_MOST_OF_A_METHOD = 512
"""Characters that are written down of a refused path: a caller may send kilobytes of it."""
_FOREVER = float("inf")

Metadata = Iterable[tuple[str, str | bytes]]


class CachedCaller:
    """A caller who was recognised, and what was decided about them since."""

    __slots__ = ("auth_epoch", "caller", "decided", "generation", "good_until")

    def __init__(
        self, caller: Caller, good_until: float, generation: int, auth_epoch: int, policy: Policy
    ) -> None:
        self.caller = caller
        self.good_until = good_until
        self.generation = generation
        self.auth_epoch = auth_epoch
        # Replaced together: no decision is ever filed under another policy.
        self.decided: tuple[Policy, dict[str, Decision]] = (policy, {})


class Core:
    """Decides about calls, for all threads. ``policy`` may be replaced at any time."""

    def __init__(
        self,
        *,
        peers: Peers,
        authenticators: Authenticators,
        revocations: Revocations,
        policy: Policy,
        audit: AuditCallback,
        clock: Callable[[], float],
    ) -> None:
        self.policy = policy
        self._peers = peers
        self._authenticators = authenticators
        self._revocations = revocations
        self._audit = audit
        self._clock = clock
        self._auth_epoch = authenticators.cache_epoch
        self._known: BoundedCache[tuple[bytes, str], CachedCaller] = BoundedCache(_MOST_KNOWN)
        # Methods that were denied by no rule, of which the log was told if no rule is about them.
        self._looked_at: tuple[Policy, set[str]] = (policy, set())

    def admit(
        self,
        method: str,
        metadata: Metadata,
        transport: Mapping[str, Sequence[bytes]],
        *,
        method_exists: bool = True,
    ) -> Caller:
        """Say who calls, if they may. It may parse, verify signatures and wait for a network.

        ``method`` is the path as it came; ``transport`` gRPC's ``auth_context``; ``method_exists``
        whether the server has such a method. Raises ``Refusal``, which is audited already.
        """
        caller = self._walk(method, metadata, transport, method_exists=method_exists, warm=False)
        assert caller is not None
        return caller

    def try_admit_cached(
        self,
        method: str,
        metadata: Metadata,
        transport: Mapping[str, Sequence[bytes]],
        *,
        method_exists: bool = True,
    ) -> Caller | None:
        """Do as ``admit`` does where look-ups suffice; None where ``admit`` must be asked.

        For event loops, which nothing may hold up.
        """
        return self._walk(method, metadata, transport, method_exists=method_exists, warm=True)

    def recheck(
        self,
        method: str,
        metadata: Metadata,
        transport: Mapping[str, Sequence[bytes]],
        *,
        warm: bool,
    ) -> Caller | None:
        """Say whether a stream that was let in may go on, by the same steps; None where ``warm``
        look-ups do not suffice. That it may is no event for audit.
        """
        return self._walk(
            method, metadata, transport, method_exists=True, warm=warm, is_recheck=True
        )

    def check(
        self,
        caller: Caller,
        method: str,
        metadata: Metadata,
        transport: Mapping[str, Sequence[bytes]],
    ) -> None:
        """Check a stream's caller without asking again who that is: by their certificate, their
        token's time, the revocations and the policy. Raises ``Refusal``, which is audited already.
        """
        self._walk(
            method,
            metadata,
            transport,
            method_exists=True,
            warm=False,
            is_recheck=True,
            authenticated_as=caller,
        )

    @property
    def state(self) -> tuple[object, ...]:
        """All that answers depend on besides the call and the clock: differs when any has."""
        return (
            self.policy,
            self._peers.trust,
            self._revocations.generation,
            self._revocations.is_current,
            self._auth_epoch.value,
        )

    def _walk(
        self,
        method: str,
        metadata: Metadata,
        transport: Mapping[str, Sequence[bytes]],
        *,
        method_exists: bool,
        warm: bool,
        is_recheck: bool = False,
        authenticated_as: Caller | None = None,
    ) -> Caller | None:
        peer, principal = None, ANONYMOUS
        try:
            authorization = _authorization(metadata)
            now = self._clock()
            if warm and not self._peers.knows(transport, now):
                return None
            peer = self._peers.identify(transport, now)
            known = self._recognise(
                authorization, peer, now, warm=warm, authenticated_as=authenticated_as
            )
            if known is None:
                return None
            principal = known.caller.principal
            self._decide(
                known, method, metadata, method_exists=method_exists, is_recheck=is_recheck
            )
        except Refusal as refusal:
            self._refused(method, peer, principal, refusal)
            raise
        except Exception:  # noqa: BLE001 - fail closed, log, go on
            # Whatever a plug-in did: tell the caller nothing about it.
            _log_failure("the guard failed", method=method)
            failure = Refusal(Answer.FAILED, "guard_failed", "See the log.")
            self._refused(method, peer, principal, failure)
            raise failure from None
        return known.caller

    def _recognise(
        self,
        authorization: str | None,
        peer: Peer | None,
        now: float,
        *,
        warm: bool,
        authenticated_as: Caller | None,
    ) -> CachedCaller | None:
        text = b"" if authorization is None else authorization.encode("utf-8", "surrogateescape")
        # The key is a digest: no cache, and no dump of one, holds a credential.
        key = (hashlib.sha256(text).digest(), "" if peer is None else peer.thumbprint)
        generation = self._revocations.generation
        if not self._revocations.is_current and authorization is not None:
            raise Refusal(
                Answer.UNAVAILABLE, "revocations_stale", "The feed of revocations cannot be read."
            )
        auth_epoch = self._auth_epoch.value
        if authenticated_as is not None:
            _check_time(authenticated_as.principal, now)
            self._check_revoked(authenticated_as.principal)
            return CachedCaller(authenticated_as, 0.0, generation, auth_epoch, self.policy)
        known = self._known.get(key)
        if known is None or now >= known.good_until or known.auth_epoch != auth_epoch:
            if warm and (authorization is not None or self._authenticators.asks_about_certificates):
                return None
            principal = self._authenticate(authorization, peer)
            self._check_revoked(principal)
            good_until = min(principal.expires_at or _FOREVER, principal.recheck_at or _FOREVER)
            known = CachedCaller(
                Caller(peer, principal), good_until, generation, auth_epoch, self.policy
            )
            if now < good_until:
                self._known.put(key, known)
        elif known.generation != generation:
            self._check_revoked(known.caller.principal)
            known.generation = generation
        return known

    def _authenticate(self, authorization: str | None, peer: Peer | None) -> Principal:
        try:
            credentials = None if authorization is None else Credentials.parse(authorization)
            return self._authenticators.authenticate(credentials, peer)
        except AuthenticatorUnavailable as error:
            raise Refusal(Answer.UNAVAILABLE, error.code, str(error), error.claims) from error
        except AuthenticationError as error:
            raise Refusal(
                Answer.CREDENTIALS_REFUSED, error.code, str(error), error.claims
            ) from error

    def _check_revoked(self, principal: Principal) -> None:
        if self._revocations.is_revoked(principal):
            raise Refusal(
                Answer.CREDENTIALS_REFUSED,
                "revoked",
                "The token is revoked, or its session, user or client.",
                {"iss": principal.issuer, "sub": principal.subject, "jti": principal.token_id},
            )

    def _decide(
        self,
        known: CachedCaller,
        method: str,
        metadata: Metadata,
        *,
        method_exists: bool,
        is_recheck: bool,
    ) -> None:
        policy = self.policy
        decided_by, decisions = known.decided
        if decided_by is not policy:
            decisions = {}
            known.decided = (policy, decisions)
        decision = decisions.get(method)
        if decision is None:
            decision = self._ask_policy(policy, known.caller, method, metadata)
            # Paths that nobody serves are the caller's invention: they may not fill a cache.
            if method_exists and not policy.reads_headers(method):
                decisions[method] = decision
        if not decision.allowed:
            if method_exists and not decision.rule:
                self._look_for_a_rule(policy, method)
            anonymous = known.caller.principal.is_anonymous
            raise Refusal(
                Answer.CREDENTIALS_REFUSED if anonymous else Answer.NOT_ALLOWED,
                "anonymous_denied" if anonymous else "policy",
                f"Denied by the rule {decision.rule}." if decision.rule else "No rule allows it.",
                policy=policy.name,
                rule=decision.rule,
            )
        if decision.audit and not is_recheck:
            caller = known.caller
            self._write(
                AuditEvent(
                    method,
                    allowed=True,
                    rule=decision.rule,
                    peer=caller.peer,
                    principal=caller.principal,
                    policy=policy.name,
                    time=self._clock(),
                )
            )

    def _look_for_a_rule(self, policy: Policy, method: str) -> None:
        """Warn, once, of a method that is denied to everybody because it was forgotten."""
        looked_for, methods = self._looked_at
        if looked_for is not policy:
            methods = set()
            self._looked_at = (policy, methods)
        # BoundedCache: a servicer may take any path, and then callers invent the methods.
        if method in methods or len(methods) >= _MOST_LOOKED_AT:
            return
        methods.add(method)
        if not policy.names(method):
            logs.logger(__name__).warning(
                "no rule of the policy is about this method: nobody may call it. Add one; a deny "
                "rule says that it is meant so",
                method=method,
                policy=policy.name,
            )

    @staticmethod
    def _ask_policy(policy: Policy, caller: Caller, method: str, metadata: Metadata) -> Decision:
        headers = policy_headers(metadata) if policy.reads_headers(method) else None
        return policy.decide(method, peer=caller.peer, principal=caller.principal, headers=headers)

    def _refused(
        self, method: str, peer: Peer | None, principal: Principal, refusal: Refusal
    ) -> None:
        self._write(
            AuditEvent(
                method=method[:_MOST_OF_A_METHOD],
                allowed=False,
                rule=refusal.rule,
                peer=peer,
                principal=principal,
                code=refusal.code,
                detail=refusal.detail,
                unverified=refusal.unverified,
                policy=refusal.policy,
                time=self._clock(),
            )
        )

    def _write(self, event: AuditEvent) -> None:
        try:
            self._audit(event)
        except Exception:  # noqa: BLE001 - fail closed, log, go on
            _log_failure("an audit logger failed")


def _check_time(principal: Principal, now: float) -> None:
    if now >= (principal.expires_at or _FOREVER):
        raise Refusal(
            Answer.CREDENTIALS_REFUSED,
            "expired",
            "The token has ended, and nobody has said in time that it goes on.",
            {"iss": principal.issuer, "sub": principal.subject, "jti": principal.token_id},
        )


def _authorization(metadata: Metadata) -> str | None:
    """Find the one ``authorization`` value, and bound what came with it."""
    authorization: str | bytes | None = None
    has_user_agent = False
    size = 0
    for name, value in metadata:
        size += len(name) + len(value) + 32
        if name == "authorization":
            if authorization is not None:
                raise Refusal(
                    Answer.CREDENTIALS_REFUSED,
                    "authorization",
                    "More than one authorization value.",
                )
            authorization = value
        elif name == "user-agent":
            has_user_agent = True
    if size > MAX_METADATA_BYTES:
        raise Refusal(Answer.TOO_LARGE, "metadata_size", f"{size} bytes of metadata.")
    if not has_user_agent:
        # Every gRPC client sends one. When metadata overruns a limit, gRPC hands over none at all.
        raise Refusal(Answer.CREDENTIALS_REFUSED, "no_metadata", "Not even a user-agent was sent.")
    if isinstance(authorization, bytes):
        raise Refusal(Answer.CREDENTIALS_REFUSED, "authorization", "Not a text.")
    return authorization


def _log_failure(event: str, **fields: str) -> None:
    """Log the exception being handled as text: some renderers of exceptions print what variables
    hold, and here one holds the token.
    """
    logs.logger(__name__).error(event, traceback=traceback.format_exc(), **fields)
