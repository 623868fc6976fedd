"""What the guarded servers of both stacks have in common."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any, Literal

import grpc

from secure_server.auth.authenticators import Authenticator
from secure_server.auth.local_issuer import LOCAL_ISSUER, LocalIssuerSettings
from secure_server.auth.plugin import AuthenticatorType
from secure_server.authz import Policy
from secure_server.config import Config
from secure_server.guard.chain import build_chain
from secure_server.guard.guard import Guard
from secure_server.guard.refusal_log import AuditEvent
from secure_server.guard.tls_set import TLSSet
from secure_server.limits import Limits
from secure_server.sections import (
    AuthenticatorSection,
    ServerSection,
    TLSSection,
    TokensSection,
    read_authenticator,
)
from secure_server.testing.issuer import Issuer
from secure_tls.authority import Authority, Issued

HOST = "127.0.0.1"
THREADS = 32

GRACE = 1.0
"""Seconds of grace at a stop; it takes none unless a handler hangs, as the channels are closed
first. Without a grace gRPC sends every connection an error, which its clients log."""

# Each channel opens its own connection.
CHANNEL_OPTIONS = [("grpc.use_local_subchannel_pool", 1)]


class Guarded:
    """A running guarded server, for its tests.

    ``address`` is its ``host:port``, ``authority`` the CA of its certificate and of its clients,
    ``issuer`` the issuer that it trusts. ``audit`` holds the events so far, in order: refusals with
    their true reason, and those allowed calls that the policy wants audited
    (``audit_logging_options`` of gRFC A59, with a logger such as ``stdout_logger``). A call's event
    is there before its answer.
    """

    def __init__(
        self,
        address: str,
        authority: Authority,
        issuer: Issuer,
        audit: list[AuditEvent],
        guard: Guard,
    ) -> None:
        self.address = address
        self._guard = guard
        self.authority = authority
        self.issuer = issuer
        self.audit = audit
        self._clients: dict[str, Issued] = {}

    def client(self, name: str) -> Issued:
        """Return the client certificate ``spiffe://TRUST-DOMAIN/client/NAME``, always the same.

        Raises ``secure_tls.AuthorityError`` for what is no such name.
        """
        if name not in self._clients:
            self._clients.setdefault(name, self.authority.issue_client(name))
        return self._clients[name]

    def _credentials(
        self,
        client: str | Issued,
        subject: str | None,
        roles: Iterable[str],
        scopes: Iterable[str],
        token: str | Literal[False] | None,
    ) -> grpc.ChannelCredentials:
        if token is not None and (subject is not None or roles or scopes):
            raise ValueError(
                "Subject, roles and scopes are those of the token that is made for a channel; this "
                "channel is to have another or none. Leave them out, or ask issuer.token() for one."
            )
        issued = self.client(client) if isinstance(client, str) else client
        credentials = grpc.ssl_channel_credentials(
            self.authority.certificate_pem, issued.private_key_pem, issued.certificate_pem
        )
        if token is False:
            return credentials
        if token is None:
            if subject is None:
                subject = client if isinstance(client, str) else "alice"
            token = self.issuer.token(issued, subject=subject, roles=roles, scopes=scopes)
        return grpc.composite_channel_credentials(
            credentials, grpc.access_token_call_credentials(token)
        )


@contextmanager
def guarding(
    authority: Authority,
    issuer: Issuer,
    policy: str | Mapping[str, Any],
    authenticators: Sequence[Authenticator | Mapping[str, Any]],
    audit: list[AuditEvent],
) -> Iterator[Guard]:
    """Build the guard as production does, from values in memory."""
    sections = [AuthenticatorSection("jwt", LOCAL_ISSUER, LocalIssuerSettings())]
    sections += [_section(one) for one in authenticators if isinstance(one, Mapping)]
    text = policy if isinstance(policy, str) else json.dumps(policy)
    # The policy's own loggers are production's: here events go to ``audit`` only.
    parsed = Policy.parse(text, known_loggers=None)
    chain = build_chain(
        _config(authority, issuer, sections),
        clock=issuer.clock,
        find_key=issuer.find_key,
        others=[one for one in authenticators if not isinstance(one, Mapping)],
    )
    leaf = authority.issue_server("server", ["localhost"], [ip_address(HOST)])
    guard = Guard(
        tls=TLSSet.of_pem(
            leaf.certificate_pem,
            leaf.private_key_pem,
            authority.certificate_pem,
            trust_domains=[authority.trust_domain],
        ),
        policy=parsed,
        authenticators=chain,
        limits=Limits(door_threads=THREADS),
        audit=audit.append,
        clock=issuer.clock,
    )
    try:
        yield guard
    finally:
        guard.close()


def _section(table: Mapping[str, Any]) -> AuthenticatorSection:
    """Parse a table of ``[[authenticators]]``; its type need not be installed."""
    kind = table["type"]
    if not isinstance(kind, AuthenticatorType):
        return read_authenticator(table)
    settings = {key: value for key, value in table.items() if key not in {"type", "name"}}
    return AuthenticatorSection(
        table.get("name", "own"), kind, kind.settings.model_validate(settings)
    )


def _config(authority: Authority, issuer: Issuer, sections: list[AuthenticatorSection]) -> Config:
    # As ``Config(...)``, but without the environment variables.
    return Config.model_construct(
        server=ServerSection(door_threads=THREADS),
        tls=TLSSection(trust_domains=[authority.trust_domain]),
        tokens=TokensSection(issuer=issuer.name, audience=issuer.audience),
        authenticators=sections,
    )
