"""Envoy with many policies: each becomes two RBAC filters, for deny and for allow rules.

As gRFC A43 translates a policy, and with `jwt_authn` those extensions that Envoy supports.
"""

from __future__ import annotations

import json
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

API = "type.googleapis.com/envoy"
RBAC = f"{API}.extensions.filters.http.rbac.v3"
MANAGER = f"{API}.extensions.filters.network.http_connection_manager.v3"
POLICY = "x-policy"
"""The header with the number of the policy that must decide."""

_SECONDS = 30.0


def text_matcher(pattern: str) -> dict[str, Any]:
    if pattern == "*":
        return {"safe_regex": {"regex": "(?s).+"}}
    if pattern.endswith("*"):
        return {"prefix": pattern[:-1]}
    if pattern.startswith("*"):
        return {"suffix": pattern[1:]}
    return {"exact": pattern}


def permission(rule: dict[str, Any]) -> dict[str, Any]:
    request = rule.get("request", {})
    wanted: list[dict[str, Any]] = []
    if paths := request.get("paths"):
        rules = [{"url_path": {"path": text_matcher(path)}} for path in paths]
        wanted.append({"or_rules": {"rules": rules}})
    for header in request.get("headers", []):
        rules = [
            {"header": {"name": header["key"], "string_match": text_matcher(value)}}
            for value in header["values"]
        ]
        wanted.append({"or_rules": {"rules": rules}})
    return {"and_rules": {"rules": wanted}} if wanted else {"any": True}


def principal(rule: dict[str, Any]) -> dict[str, Any]:
    source = rule.get("source", {})
    wanted: list[dict[str, Any]] = []
    if principals := source.get("principals"):
        ids = [{"authenticated": {"principal_name": text_matcher(each)}} for each in principals]
        wanted.append({"or_ids": {"ids": ids}})
    wanted.extend(claim([key], source[key]) for key in ("scopes", "roles") if key in source)
    for name, patterns in source.get("claims", {}).items():
        path = name[1:-1].split("][") if name.startswith("[") else name.split(".")
        wanted.append(claim(path, patterns))
    return {"and_ids": {"ids": wanted}} if wanted else {"any": True}


def claim(path: Sequence[str], patterns: Sequence[str]) -> dict[str, Any]:
    """One of the patterns, in a text or in a list of texts."""
    ids = []
    for pattern in patterns:
        text = {"string_match": text_matcher(pattern)}
        for value in (text, {"list_match": {"one_of": text}}):
            keys = [{"key": key} for key in ("payload", *path)]
            metadata = {"filter": "envoy.filters.http.jwt_authn", "path": keys, "value": value}
            ids.append({"metadata": metadata})
    return {"or_ids": {"ids": ids}}


def rbac(action: str, rules: Sequence[dict[str, Any]]) -> dict[str, Any]:
    policies = {
        rule["name"]: {"permissions": [permission(rule)], "principals": [principal(rule)]}
        for rule in rules
    }
    return {
        "@type": f"{RBAC}.RBACPerRoute",
        "rbac": {"rules": {"action": action, "policies": policies}},
    }


def routes(policies: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A route for each policy; a request that passes its filters is answered at once."""
    return [
        {
            "match": {
                "prefix": "/",
                "headers": [{"name": POLICY, "string_match": {"exact": str(number)}}],
            },
            "direct_response": {"status": 200},
            "typed_per_filter_config": {
                "deny": rbac("DENY", policy.get("deny_rules", [])),
                "allow": rbac("ALLOW", policy["allow_rules"]),
            },
        }
        for number, policy in enumerate(policies)
    ]


def listener(name: str, policies: Sequence[dict[str, Any]], jwks: str, tls: Any) -> dict[str, Any]:
    filters = [
        {
            "name": "envoy.filters.http.jwt_authn",
            "typed_config": {
                "@type": f"{API}.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
                "providers": {
                    "test": {
                        "local_jwks": {"inline_string": jwks},
                        "payload_in_metadata": "payload",
                    }
                },
                "rules": [
                    {
                        "match": {"prefix": "/"},
                        "requires": {
                            "requires_any": {
                                "requirements": [{"provider_name": "test"}, {"allow_missing": {}}]
                            }
                        },
                    }
                ],
            },
        },
        {"name": "deny", "typed_config": {"@type": f"{RBAC}.RBAC"}},
        {"name": "allow", "typed_config": {"@type": f"{RBAC}.RBAC"}},
        {
            "name": "router",
            "typed_config": {"@type": f"{API}.extensions.filters.http.router.v3.Router"},
        },
    ]
    manager = {
        "@type": f"{MANAGER}.HttpConnectionManager",
        "stat_prefix": name,
        "codec_type": "HTTP2",
        "http_filters": filters,
        "route_config": {
            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes(policies)}]
        },
    }
    chain: dict[str, Any] = {"filters": [{"name": "http", "typed_config": manager}]}
    if tls is not None:
        chain["transport_socket"] = {"name": "tls", "typed_config": tls}
    return {
        "name": name,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [chain],
    }


def tls_context(certificate: bytes, private_key: bytes, ca: bytes) -> dict[str, Any]:
    """Client certificates are asked for, and verified where there is one."""
    return {
        "@type": f"{API}.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {
            "alpn_protocols": ["h2"],
            "tls_certificates": [
                {
                    "certificate_chain": {"inline_string": certificate.decode()},
                    "private_key": {"inline_string": private_key.decode()},
                }
            ],
            "validation_context": {"trusted_ca": {"inline_string": ca.decode()}},
        },
    }


@contextmanager
def running_envoy(
    binary: str, folder: Path, listeners: list[dict[str, Any]]
) -> Iterator[dict[str, int]]:
    """Run one Envoy and yield the port of each listener by its name."""
    config, address, log = folder / "envoy.json", folder / "admin", folder / "envoy.log"
    admin = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}}
    config.write_text(json.dumps({"admin": admin, "static_resources": {"listeners": listeners}}))
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                *(binary, "--config-path", config, "--admin-address-path", address),
                *("--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield _ports(process, address, log, len(listeners))
    finally:
        process.kill()  # it has nothing to lose, and may take long to drain
        process.wait(_SECONDS)


def _ports(
    process: subprocess.Popen[bytes], address: Path, log: Path, count: int
) -> dict[str, int]:
    end = time.monotonic() + _SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        if address.exists() and (where := address.read_text()):
            with urllib.request.urlopen(f"http://{where}/listeners?format=json") as answer:
                found = json.load(answer).get("listener_statuses", [])
            if len(found) == count:
                return {
                    each["name"]: each["local_address"]["socket_address"]["port_value"]
                    for each in found
                }
        time.sleep(0.02)
    raise RuntimeError(f"Envoy did not start:\n{log.read_text()[-4000:]}")
