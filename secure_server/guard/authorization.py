"""Decides by the policy whether a caller may call a method: the guard's third step."""

from __future__ import annotations

from secure_base.reloading.watched import Watched
from secure_server import logs
from secure_server.authz import Decision, Policy
from secure_server.authz.headers import policy_headers
from secure_server.guard.call import Call
from secure_server.guard.recognition import CachedCaller
from secure_server.guard.refusal import Refusal, RefusalReason

_MOST_METHODS = 10_000


class Authorization:
    """Evaluates the policy in force, and caches its decisions with the caller."""

    def __init__(self, policy: Watched[Policy]) -> None:
        self._policy = policy
        # Methods without a rule that were logged; emptied when the policy changes.
        self._forgotten: tuple[Policy | None, set[str]] = (None, set())

    def authorize(self, cached: CachedCaller, call: Call) -> Decision:
        """Return the decision to allow the call. Raises ``Refusal``."""
        policy = self._policy.value
        decided_by, decisions = cached.decided
        if decided_by is not policy:
            decisions = {}
            cached.decided = (policy, decisions)
        decision = decisions.get(call.method)
        if decision is None:
            decision = _decide(policy, cached, call)
            # Callers invent paths without a handler: these must not fill the cache.
            if call.method_exists and not policy.reads_headers(call.method):
                decisions[call.method] = decision
        if not decision.allowed:
            raise self._refused(policy, decision, cached, call)
        return decision

    def _refused(
        self, policy: Policy, decision: Decision, cached: CachedCaller, call: Call
    ) -> Refusal:
        if call.method_exists and not decision.rule:
            self._warn_of_forgotten(policy, call.method)
        principal = cached.caller.principal
        return Refusal(
            RefusalReason.ANONYMOUS_DENIED if principal.is_anonymous else RefusalReason.POLICY,
            f"Denied by the rule {decision.rule}." if decision.rule else "No rule allows it.",
            peer=cached.caller.peer,
            principal=principal,
            policy=decision.policy,
            rule=decision.rule,
        )

    def _warn_of_forgotten(self, policy: Policy, method: str) -> None:
        """Warn, once, about a method that every caller is denied because no rule names it."""
        known_to, methods = self._forgotten
        if known_to is not policy:
            methods = set()
            self._forgotten = (policy, methods)
        # Bounded: a generic handler may serve any path, so callers invent methods.
        if method in methods or len(methods) >= _MOST_METHODS:
            return
        methods.add(method)
        if not policy.names(method):
            logs.logger(__name__).warning(
                "no rule of the policy is about this method, so no caller may call it. Add a rule; "
                "a deny rule says that it is meant so",
                method=method,
                policy=policy.name,
            )


def _decide(policy: Policy, cached: CachedCaller, call: Call) -> Decision:
    headers = policy_headers(call.metadata) if policy.reads_headers(call.method) else None
    caller = cached.caller
    return policy.decide(call.method, peer=caller.peer, principal=caller.principal, headers=headers)
