"""Peers, principals and policy texts for these tests."""

import json

from secure_server.auth.principal import Principal
from secure_tls.peer import Peer


def a_peer(*, uri_sans=(), dns_sans=(), subject="CN=x"):
    return Peer(
        spiffe_id=None,
        trust_domain=None,
        uri_sans=tuple(uri_sans),
        dns_sans=tuple(dns_sans),
        subject=subject,
        thumbprint="",
        issuer=b"",
        serial=1,
        not_before=0.0,
        not_after=1.0,
    )


def a_principal(subject="alice", issuer="https://issuer.test", **more):
    return Principal(subject=subject, issuer=issuer, authenticator="test", **more)


def a_text(*allow_rules, **more):
    return json.dumps({"name": "authz", "allow_rules": list(allow_rules), **more})
