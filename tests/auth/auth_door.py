"""An issuer on the network, and guards on both stacks that trust it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import grpc

from secure_server import current_principal
from secure_server.testing import Provider, aio_guarded_server, guarded_server
from secure_tls.peer import parse_peer
from support.door import event_loop

POLICY = {
    "name": "auth",
    "allow_rules": [{"name": "known", "source": {"request_principals": ["*"]}}],
}
METHOD = "/probe.Probe/Who"


def oidc(provider: Provider, **settings: Any) -> dict[str, Any]:
    """The table of ``[[authenticators]]`` for this provider."""
    return {
        "type": "oidc",
        "profile": "rfc9068",
        "issuer": provider.issuer.name,
        "audience": provider.issuer.audience,
        "ca": provider.ca_file,
        "allow_private_addresses": True,
    } | settings


def introspection(provider: Provider, folder: Any, **settings: Any) -> dict[str, Any]:
    secret = folder / "client-secret"
    secret.touch(mode=0o600)
    secret.write_text(provider.client_secret + "\n")
    return {
        "type": "introspection",
        "endpoint": provider.introspection_endpoint,
        "issuer": provider.issuer.name,
        "audience": provider.issuer.audience,
        "client_id": provider.client_id,
        "client_secret_file": secret,
        "ca": provider.ca_file,
        "allow_private_addresses": True,
    } | settings


class Guarded:
    """A guarded server on one of the stacks, whose one method says who is calling."""

    def __init__(self, server: Any) -> None:
        self.server = server
        self.audit = server.audit
        self._channels: dict[Any, grpc.Channel] = {}

    def ask(
        self, authorization: str | None = None, client: str = "alice", timeout: float = 20.0
    ) -> tuple[str, str]:
        """Call; return the status and the recognised caller, or the text."""
        if client not in self._channels:
            issued = self.server.client(client)
            credentials = grpc.ssl_channel_credentials(
                self.server.authority.certificate_pem,
                issued.private_key_pem,
                issued.certificate_pem,
            )
            self._channels[client] = grpc.secure_channel(
                self.server.address, credentials, [("grpc.use_local_subchannel_pool", 1)]
            )
        metadata = () if authorization is None else (("authorization", authorization),)
        call = self._channels[client].unary_unary(METHOD)
        try:
            return "OK", call(b"", metadata=metadata, timeout=timeout).decode()
        except grpc.RpcError as error:
            return error.code().name, error.details()

    def code(self, authorization: str | None = None, client: str = "alice") -> str:
        """Call, and return the reason that audit has; ``ok`` where there is none."""
        self.audit.clear()
        status, _ = self.ask(authorization, client)
        return "ok" if status == "OK" else self.audit[-1].code

    def core(self) -> Any:
        return self.server._guard.core

    def member(self, name: str) -> Any:
        authenticators = self.core()._recognition._authenticators
        return next(one for one in authenticators.members if one.name == name)

    def thumbprint(self, client: str) -> str:
        return parse_peer(self.server.client(client).certificate_pem).thumbprint

    def close(self) -> None:
        for channel in self._channels.values():
            channel.close()


def who(_request: bytes, _context: Any) -> bytes:
    principal = current_principal()
    roles, scopes = ",".join(sorted(principal.roles)), ",".join(sorted(principal.scopes))
    return f"{principal.authenticator} {principal.subject} [{roles}] [{scopes}]".encode()


async def who_async(request: bytes, context: Any) -> bytes:
    return who(request, context)


def _adding(function: Any) -> Any:
    methods = {"Who": grpc.unary_unary_rpc_method_handler(function)}
    return lambda server: server.add_registered_method_handlers("probe.Probe", methods)


@contextmanager
def guarded(
    stack: str, *authenticators: Mapping[str, Any] | Any, **settings: Any
) -> Iterator[Guarded]:
    """Run one on ``threads`` or ``asyncio``."""
    settings = {"policy": POLICY, "authenticators": authenticators} | settings
    if stack == "threads":
        with guarded_server(_adding(who), **settings) as server:
            found = Guarded(server)
            yield found
            found.close()
        return
    loop = event_loop()
    context = aio_guarded_server(_adding(who_async), **settings)
    found = Guarded(loop.run(context.__aenter__()))
    try:
        yield found
    finally:
        found.close()
        loop.run(context.__aexit__(None, None, None))


STACKS = ("threads", "asyncio")
