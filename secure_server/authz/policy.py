"""The policy: which caller may call which method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from secure_server.auth.principal import Principal
from secure_server.authz.audit_options import AuditCondition, AuditOptions, NamedLogger
from secure_server.authz.explain import Explanation, explain
from secure_server.authz.index import RuleIndex
from secure_server.authz.parser import parse
from secure_server.authz.rule import Caller
from secure_tls.peer import Peer

STDOUT_LOGGER = "stdout_logger"
"""The one audit logger that gRFC A59 defines."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether the call is allowed.

    ``rule`` is the name of the rule that decided, as the file has it, and empty where none did: the
    ``matched_rule`` of A59; ``policy`` is its ``policy_name``. (grpc-go calls the same rule
    ``<policy>_<rule>`` in its messages.) ``audit`` says whether the policy's
    ``audit_logging_options`` want an event.
    """

    allowed: bool
    rule: str
    audit: bool
    policy: str


class Policy:
    """A gRPC authorization policy (gRFC A43, A59), compiled: an immutable snapshot.

    A class, because the rules are compiled once and evaluated at every call. It decides as grpc-go
    does: the first deny rule that matches denies, else the first allow rule that matches allows,
    else the call is denied.
    """

    __slots__ = ("_allow", "_audit", "_deny", "_name", "_reading_headers")

    def __init__(self, text: str, origin: str, known_loggers: frozenset[str] | None) -> None:
        parsed = parse(text, origin=origin, known_loggers=known_loggers)
        rules = (*parsed.deny_rules, *parsed.allow_rules)
        self._name = parsed.name
        self._audit: AuditOptions = parsed.audit
        self._deny = RuleIndex(parsed.deny_rules)
        self._allow = RuleIndex(parsed.allow_rules)
        self._reading_headers = RuleIndex(rule for rule in rules if rule.headers)

    @classmethod
    def parse(
        cls,
        text: str,
        *,
        origin: str = "policy",
        known_loggers: frozenset[str] | None = frozenset({STDOUT_LOGGER}),
    ) -> Policy:
        """Compile a policy from its JSON text; ``origin`` is the file's name, for messages.

        An audit logger that is neither among ``known_loggers`` nor optional is an error (A59); None
        accepts all names, for callers that only need decisions.

        Beyond A43, ``source`` takes ``request_principals`` (patterns for ``<issuer>/<subject>``),
        ``scopes``, ``roles`` and ``claims`` (an object of claim name to patterns). Each is a list
        that is not empty; all given ones must match; none matches the anonymous principal.
        Where one issuer's name is a prefix of another's, tell them apart by ``claims``: the slash
        in ``<issuer>/<subject>`` does not show where the subject begins.

        Raises `PolicyError`, and no other exception, for any text.
        """
        return cls(text, origin, known_loggers)

    def __repr__(self) -> str:
        return f"<Policy {self._name!r}>"

    @property
    def name(self) -> str:
        return self._name

    @property
    def audit_condition(self) -> AuditCondition:
        return self._audit.condition

    @property
    def audit_loggers(self) -> tuple[NamedLogger, ...]:
        """The audit loggers, in file order, without optional ones that are unknown."""
        return self._audit.loggers

    def reads_headers(self, method: str) -> bool:
        """Whether a decision about ``method`` may depend on the headers of the call."""
        return self._reading_headers.is_about(method)

    def reads_header(self, name: str) -> bool:
        """Whether some rule is about the header ``name``, which is lower case."""
        rules = self._reading_headers.rules
        return any(name == key for rule in rules for key, _ in rule.headers)

    def names(self, method: str) -> bool:
        """Whether some rule, deny or allow, is about ``method``: by a path or by having none."""
        return self._deny.is_about(method) or self._allow.is_about(method)

    def decide(
        self,
        method: str,
        *,
        peer: Peer | None,
        principal: Principal,
        headers: Mapping[str, str] | None = None,
        tls: bool = True,
    ) -> Decision:
        """Decide about one call of ``method``, its full path (``/package.Service/Method``).

        ``peer`` is None for a TLS client without a certificate; ``tls`` is False on plaintext.
        ``headers`` are what ``secure_server.authz.headers.policy_headers`` makes of gRPC's
        metadata: lower-case keys; the values of one that is repeated joined by commas without
        spaces (A43, "headers"), those of binary headers as base64 text (A41).
        """
        caller = Caller(_peer_names(peer, tls=tls), principal, {} if headers is None else headers)
        rule = self._deny.first_match(method, caller)
        if rule is not None:
            return self._decision(rule.name, allowed=False)
        rule = self._allow.first_match(method, caller)
        if rule is not None:
            return self._decision(rule.name, allowed=True)
        return self._decision("", allowed=False)

    def explain(
        self,
        method: str,
        *,
        peer: Peer | None,
        principal: Principal,
        headers: Mapping[str, str] | None = None,
        tls: bool = True,
    ) -> Explanation:
        """Return what `decide` decides, with the outcome of every rule. Slow; for people."""
        caller = Caller(_peer_names(peer, tls=tls), principal, {} if headers is None else headers)
        return explain(self._deny.rules, self._allow.rules, method, caller)

    def _decision(self, rule: str, *, allowed: bool) -> Decision:
        return Decision(allowed, rule, self._audit.wants(allowed=allowed), self._name)


def _peer_names(peer: Peer | None, *, tls: bool) -> tuple[str, ...]:
    if not tls:
        return ()
    if peer is None:
        return ("",)
    # Only the first kind present, as in grpc-go; A43's text would try the next one too.
    return peer.uri_sans or peer.dns_sans or (peer.subject,)
