"""Whether a caller may call a method: the third step of the guard."""

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
    """Asks the policy in force, and keeps its decisions with the caller that they are about."""

    def __init__(self, policy: Watched[Policy]) -> None:
        self._policy = policy
        # Methods that no rule is about, of which the log was told; replaced with the policy.
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
            # Paths without a handler are the caller's invention: they may not fill a cache.
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
        """Warn, once, of a method that is denied to every caller because no rule names it."""
        known_to, methods = self._forgotten
        if known_to is not policy:
            methods = set()
            self._forgotten = (policy, methods)
        # Bounded: a servicer may take any path, and then callers invent the methods.
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
