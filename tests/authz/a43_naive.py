"""gRFC A43 read aloud: decides straight from the JSON, with no regard for speed.

The one to compare the compiled policy with. It shares no code with it.
"""

import json


def pattern_matches(pattern, value):
    if pattern == "*":
        return len(value) > 0
    if pattern[-1:] == "*":
        return value[: len(pattern) - 1] == pattern[:-1]
    if pattern[:1] == "*":
        tail = pattern[1:]
        return len(value) >= len(tail) and value[len(value) - len(tail) :] == tail
    return pattern == value


def any_pattern(patterns, values):
    for pattern in patterns:
        for value in values:
            if pattern_matches(pattern, value):
                return True
    return False


def peer_values(peer, tls):
    if not tls:
        return []
    if peer is None:
        return [""]
    for kind in (list(peer.uri_sans), list(peer.dns_sans)):
        if len(kind) > 0:
            return kind
    return [peer.subject]


def claim_values(claims, name):
    steps = name[1:-1].split("][") if name.startswith("[") else name.split(".")
    value = claims
    for step in steps:
        if not isinstance(value, dict) or step not in value:
            return []
        value = value[step]
    texts = []
    for element in value if isinstance(value, list) else [value]:
        if isinstance(element, str):
            texts.append(element)
        elif element is not None and not isinstance(element, list | dict):
            texts.append(json.dumps(element))
    return texts


def source_matches(source, peer, principal, tls):
    principals = source.get("principals", [])
    if principals and not any_pattern(principals, peer_values(peer, tls)):
        return False
    for key in ("request_principals", "scopes", "roles", "claims"):
        if key in source and principal.authenticator == "":
            return False
    if "request_principals" in source:
        whole = [principal.issuer + "/" + principal.subject]
        if not any_pattern(source["request_principals"], whole):
            return False
    if "scopes" in source and not any_pattern(source["scopes"], principal.scopes):
        return False
    if "roles" in source and not any_pattern(source["roles"], principal.roles):
        return False
    for name, patterns in source.get("claims", {}).items():
        if not any_pattern(patterns, claim_values(principal.claims, name)):
            return False
    return True


def request_matches(request, method, headers):
    paths = request.get("paths", [])
    if paths and not any_pattern(paths, [method]):
        return False
    for header in request.get("headers", []):
        key = header["key"].lower()
        if key not in headers or not any_pattern(header["values"], [headers[key]]):
            return False
    return True


def first_rule(rules, method, peer, principal, headers, tls):
    for rule in rules:
        if source_matches(rule.get("source", {}), peer, principal, tls) and request_matches(
            rule.get("request", {}), method, headers
        ):
            return rule["name"]
    return None


def decide(policy, method, *, peer, principal, headers, tls):
    """(allowed, matched rule)."""
    denied_by = first_rule(policy.get("deny_rules", []), method, peer, principal, headers, tls)
    if denied_by is not None:
        return False, denied_by
    allowed_by = first_rule(policy["allow_rules"], method, peer, principal, headers, tls)
    if allowed_by is not None:
        return True, allowed_by
    return False, ""
