"""The guard's steps, without gRPC: identify the peer, authenticate the caller, authorize the call.

Both adapters call it. A warm call costs only dictionary look-ups.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import TypeVar

from secure_base.reloading.watched import Watched
from secure_server import logs
from secure_server.auth.authenticators import Authenticators
from secure_server.auth.revocations import Revocations
from secure_server.authz import Decision, Policy
from secure_server.guard.authorization import Authorization
from secure_server.guard.call import Call, credential_of
from secure_server.guard.caller import Caller
from secure_server.guard.peers import Peers
from secure_server.guard.recognition import CachedCaller, Recognition
from secure_server.guard.refusal import Refusal, RefusalReason
from secure_server.guard.refusal_log import AuditCallback, AuditEvent

_MOST_OF_A_METHOD = 512
"""Characters of a refused path that are logged: a caller may send kilobytes."""

T = TypeVar("T")


class Core:
    """Decides about calls, for all threads, by the current policy, trust and revocations."""

    def __init__(
        self,
        *,
        peers: Peers,
        authenticators: Authenticators,
        revocations: Revocations,
        policy: Watched[Policy],
        audit: AuditCallback,
        clock: Callable[[], float],
    ) -> None:
        self._peers = peers
        self._recognition = Recognition(authenticators, revocations)
        self._revocations = revocations
        self._authorization = Authorization(policy)
        self._audit = audit
        self._clock = clock

    @property
    def feed_is_current(self) -> bool:
        """Whether the view of revocations is fresh enough."""
        return self._revocations.is_current

    def admit(self, call: Call) -> Caller:
        """Return the caller, if they may make the call.

        It may parse, verify signatures and wait for a network. Raises ``Refusal``, after auditing
        it.
        """
        return self._audited(self._admit, call)

    def try_admit_cached(self, call: Call) -> Caller | None:
        """Return what ``admit`` would, if cached; else None, and ``admit`` must be called.

        For event loops, which must not be blocked.
        """
        return self._audited(self._admit_cached, call)

    def recheck(self, call: Call) -> Caller:
        """Return the caller of an open stream, if it may stay open; that is not audited.

        It may block, as ``admit``. Raises ``Refusal``, after auditing it.
        """
        return self._audited(self._recheck, call)

    def try_recheck_cached(self, call: Call) -> Caller | None:
        """Return what ``recheck`` would, if cached; else None, and ``recheck`` must be called."""
        return self._audited(self._recheck_cached, call)

    def recheck_as(self, caller: Caller, call: Call) -> None:
        """Check an open stream without asking an authenticator: by certificate, token expiry,
        revocations and policy. Raises ``Refusal``, after auditing it.
        """
        self._audited(lambda call: self._recheck_as(caller, call), call)

    def _admit(self, call: Call) -> Caller:
        return self._let_in(self._recognise(call), call)

    def _admit_cached(self, call: Call) -> Caller | None:
        cached = self._recognise_cached(call)
        return None if cached is None else self._let_in(cached, call)

    def _recheck(self, call: Call) -> Caller:
        cached = self._recognise(call)
        self._authorization.authorize(cached, call)
        return cached.caller

    def _recheck_cached(self, call: Call) -> Caller | None:
        cached = self._recognise_cached(call)
        if cached is None:
            return None
        self._authorization.authorize(cached, call)
        return cached.caller

    def _recheck_as(self, caller: Caller, call: Call) -> None:
        now = self._clock()
        self._peers.identify(call.transport, now)
        self._recognition.check(caller, credential_of(call.metadata), now)
        self._authorization.authorize(CachedCaller(caller, 0.0, 0, 0), call)

    def _recognise(self, call: Call) -> CachedCaller:
        now = self._clock()
        credential = credential_of(call.metadata)
        peer = self._peers.identify(call.transport, now)
        cached = self._recognition.cached(credential, peer, now)
        if cached is None:
            cached = self._recognition.authenticate(credential, peer, now)
        return cached

    def _recognise_cached(self, call: Call) -> CachedCaller | None:
        now = self._clock()
        credential = credential_of(call.metadata)
        if not self._peers.knows(call.transport, now):
            return None
        return self._recognition.cached(credential, self._peers.identify(call.transport, now), now)

    def _let_in(self, cached: CachedCaller, call: Call) -> Caller:
        decision = self._authorization.authorize(cached, call)
        if decision.audit:
            self._write_allowed(decision, cached.caller, call)
        return cached.caller

    def _audited(self, step: Callable[[Call], T], call: Call) -> T:
        try:
            return step(call)
        except Refusal as refusal:
            self._write_refused(call, refusal)
            raise
        except Exception:  # noqa: BLE001 - fail closed, log, go on
            # A plug-in may raise anything, which the caller must not see.
            _log_failure("the guard failed", method=call.method)
            peer = self._peers.known(call.transport)
            failure = Refusal(RefusalReason.GUARD_FAILED, "See the log.", peer=peer)
            self._write_refused(call, failure)
            raise failure from None

    def _write_allowed(self, decision: Decision, caller: Caller, call: Call) -> None:
        self._write(
            AuditEvent(
                call.method,
                allowed=True,
                rule=decision.rule,
                peer=caller.peer,
                principal=caller.principal,
                policy=decision.policy,
                time=self._clock(),
            )
        )

    def _write_refused(self, call: Call, refusal: Refusal) -> None:
        self._write(
            AuditEvent(
                method=call.method[:_MOST_OF_A_METHOD],
                allowed=False,
                rule=refusal.rule,
                peer=refusal.peer,
                principal=refusal.principal,
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


def _log_failure(event: str, **fields: str) -> None:
    """Log the current exception as text: some renderers print the values of variables, and here
    one holds the token.
    """
    logs.logger(__name__).error(event, traceback=traceback.format_exc(), **fields)
