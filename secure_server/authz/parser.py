"""Parses a policy's text into rules: gRFC A43, the audit options of A59, our extensions."""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from secure_server.auth.claim_path import ClaimPath, claim_path
from secure_server.authz.audit_options import AuditCondition, AuditOptions, NamedLogger
from secure_server.authz.document import Node, quoted, read
from secure_server.authz.headers import why_unmatchable
from secure_server.authz.patterns import Patterns
from secure_server.authz.rule import Rule

_HEADER_KEY = re.compile(r"[0-9A-Za-z_.-]+")


@dataclass(frozen=True, slots=True)
class ParsedPolicy:
    name: str
    deny_rules: tuple[Rule, ...]
    allow_rules: tuple[Rule, ...]
    audit: AuditOptions


def parse(text: str, *, origin: str, known_loggers: frozenset[str] | None) -> ParsedPolicy:
    """Parse a policy. Raises `PolicyError` for the first mistake in it."""
    root = read(text, origin=origin)
    members = root.members("name", "deny_rules", "allow_rules", "audit_logging_options")
    name = _name(root, members, "the policy")
    if "allow_rules" not in members:
        raise root.error('"allow_rules" is missing', "Add a list with at least one rule.")
    # A policy without them would refuse every caller, which no author means.
    if not members["allow_rules"].items():
        raise members["allow_rules"].error('"allow_rules" is empty', "Add at least one rule.")
    return ParsedPolicy(
        name=name,
        deny_rules=_rules(members["deny_rules"]) if "deny_rules" in members else (),
        allow_rules=_rules(members["allow_rules"]),
        audit=_audit_options(members.get("audit_logging_options"), known_loggers),
    )


def _rules(node: Node) -> tuple[Rule, ...]:
    rules: dict[str, Rule] = {}
    for item in node.items():
        members = _named(item).members("name", "source", "request")
        name = _name(item, members, "each rule")
        if name in rules:
            # grpc-go would silently drop the first of them.
            what = f"Another rule of this list is named {quoted(name)}"
            raise members["name"].error(what, "Give each rule its own name.")
        rules[name] = _rule(name, members)
    return tuple(rules.values())


def _named(rule: Node) -> Node:
    name = rule.value.get("name") if isinstance(rule.value, dict) else None
    return rule.about(f"rule {quoted(name)}") if name and isinstance(name, str) else rule


def _name(owner: Node, members: dict[str, Node], what: str) -> str:
    if "name" not in members:
        raise owner.error('"name" is missing', f'Give {what} a "name".')
    name = members["name"].string()
    if not name:
        raise members["name"].error('"name" is empty', f'Give {what} a "name".')
    return name


def _rule(name: str, members: dict[str, Node]) -> Rule:
    source: dict[str, Node] = {}
    request: dict[str, Node] = {}
    if "source" in members:
        source = members["source"].members(
            "principals", "request_principals", "claims", "scopes", "roles"
        )
    if "request" in members:
        request = members["request"].members("paths", "headers")
    return Rule(
        name=name,
        paths=_any_if_empty(request.get("paths")),
        headers=_headers(request["headers"]) if "headers" in request else (),
        principals=_any_if_empty(source.get("principals")),
        request_principals=_never_empty(source.get("request_principals")),
        scopes=_never_empty(source.get("scopes")),
        roles=_never_empty(source.get("roles")),
        claims=_claims(source["claims"]) if "claims" in source else (),
    )


def _any_if_empty(node: Node | None) -> Patterns | None:
    # A43, "Details": an empty list equals a missing one.
    patterns = () if node is None else node.strings()
    return Patterns.of(patterns) if patterns else None


def _never_empty(node: Node | None) -> Patterns | None:
    return None if node is None else _some(node)


def _some(node: Node) -> Patterns:
    # Our own keys avoid this trap of A43: emptying a list must not admit every caller.
    patterns = node.strings()
    if not patterns:
        what = f"{quoted(str(node.steps[-1]))} is an empty list"
        raise node.error(what, 'Write the patterns, ["*"] for any value, or leave the key out.')
    return Patterns.of(patterns)


def _headers(node: Node) -> tuple[tuple[str, Patterns], ...]:
    headers = []
    for item in node.items():
        members = item.members("key", "values")
        for required in ("key", "values"):
            if required not in members:
                raise item.error(f'"{required}" is missing', "A header needs a key and values.")
        headers.append((_header_key(members["key"]), _some(members["values"])))
    return tuple(headers)


def _header_key(node: Node) -> str:
    written = node.string()
    key = written.lower()
    if (reason := why_unmatchable(key)) is not None:
        raise node.error(f"Header {quoted(written)} cannot be matched", reason)
    if not _HEADER_KEY.fullmatch(written):
        # No call can carry it, so a deny rule would never match.
        what = f"{quoted(written)} is not a header's name"
        raise node.error(what, "Use letters, digits, dash, underscore and dot.")
    return key


def _claims(node: Node) -> tuple[tuple[ClaimPath, Patterns], ...]:
    claims = []
    for name, member in node.any_members().items():
        path = claim_path(name)
        if path is None:
            what = f"{quoted(name)} is not a claim's name"
            advice = 'Put unusual names in brackets: "[https://example.com/roles]".'
            raise member.error(what, advice, at_key=True)
        claims.append((path, _some(member)))
    if not claims:
        raise node.error('"claims" is empty', "Name a claim or leave the key out.")
    return tuple(claims)


def _audit_options(node: Node | None, known_loggers: frozenset[str] | None) -> AuditOptions:
    if node is None:
        return AuditOptions()
    members = node.members("audit_condition", "audit_loggers")
    condition = AuditCondition.NONE
    if "audit_condition" in members:
        written = members["audit_condition"].string()
        if written not in AuditCondition.__members__:
            what = f"Unknown audit condition {quoted(written)}"
            advice = f"Write one of {', '.join(AuditCondition.__members__)}."
            raise members["audit_condition"].error(what, advice)
        condition = AuditCondition(written)
    items = members["audit_loggers"].items() if "audit_loggers" in members else []
    loggers = (_audit_logger(item, known_loggers) for item in items)
    return AuditOptions(condition, tuple(logger for logger in loggers if logger is not None))


def _audit_logger(node: Node, known_loggers: frozenset[str] | None) -> NamedLogger | None:
    """Return the logger, or None where it is unknown and optional, which A59 ignores."""
    members = node.members("name", "config", "is_optional")
    name = _name(node, members, "each audit logger")
    config = members["config"].any_members() if "config" in members else {}
    is_optional = "is_optional" in members and members["is_optional"].boolean()
    if known_loggers is None or name in known_loggers:
        frozen = MappingProxyType({key: _frozen(each.value) for key, each in config.items()})
        return NamedLogger(name, frozen, is_optional)
    if is_optional:
        return None
    known = ", ".join(quoted(each) for each in sorted(known_loggers)) or "none"
    raise members["name"].error(
        f"Unknown audit logger {quoted(name)}", f'Known: {known}; or set "is_optional".'
    )


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return MappingProxyType({key: _frozen(member) for key, member in value.items()})
    if isinstance(value, list):
        return tuple(_frozen(item) for item in value)
    return value
