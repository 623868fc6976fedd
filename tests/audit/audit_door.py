"""A servicer behind ``Guard.from_config``, on either stack, with a policy file."""

from __future__ import annotations

import fcntl
import json
import os
import select
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Self

import grpc
import grpc.aio

from secure_server import Guard
from secure_server.testing import Issuer
from secure_tls.authority import Authority, Issued
from support.door import event_loop

STACKS = ("threads", "asyncio")
METHOD = "/probe.Probe/Get"
_CALLS_AT_ONCE = 16


def policy(*loggers: Mapping[str, Any], condition: str = "ON_DENY_AND_ALLOW", **keys: Any) -> str:
    """A policy that allows alice to call ``Get``, denies ``Never`` to every caller, and has
    loggers.
    """
    document = {
        "name": "probe",
        "deny_rules": [{"name": "never", "request": {"paths": ["/probe.Probe/Never"]}}],
        "allow_rules": [
            {
                "name": "alice-gets",
                "source": {"principals": ["spiffe://example.org/client/alice"]},
                "request": {"paths": [METHOD, "/probe.Probe/Never"]},
            }
        ],
        "audit_logging_options": {"audit_condition": condition, "audit_loggers": list(loggers)},
    }
    return json.dumps(document | keys)


def file_logger(path: Path, **settings: Any) -> dict[str, Any]:
    return {"name": "file_logger", "config": {"path": str(path)} | settings}


def records(path: Path) -> list[dict[str, Any]]:
    """The records in the file of a file logger."""
    text = path.read_text(encoding="ascii") if path.exists() else ""
    return [json.loads(line)["grpc_audit_log"] for line in text.splitlines()]


class _Any(grpc.GenericRpcHandler):
    """Serves every unary method, but those of ``missing.Service``."""

    def __init__(self, behavior: Callable[..., Any]) -> None:
        self._handler = grpc.unary_unary_rpc_method_handler(behavior)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        is_served = not handler_call_details.method.startswith("/missing.Service/")
        return self._handler if is_served else None


def _echo(request: bytes, _context: Any) -> bytes:
    return request


async def _echo_async(request: bytes, _context: Any) -> bytes:
    return request


class AuditedDoor:
    """A running server; ``close`` it. ``policy_file`` is the file that the guard follows."""

    def __init__(self, root: Path, stack: str, policy_text: str, trust_domain: str) -> None:
        self.authority = Authority.create(trust_domain)
        self.issuer = Issuer()
        self.policy_file = root / "policy.json"
        self.policy_file.write_text(policy_text)
        leaf = self.authority.issue_server("server", ["localhost"], [ip_address("127.0.0.1")])
        for name, data in (
            ("ca.pem", self.authority.certificate_pem),
            ("server.pem", leaf.certificate_pem),
            ("server.key", leaf.private_key_pem),
            ("jwks.json", self.issuer.jwks().encode()),
        ):
            (root / name).touch(mode=0o600)
            (root / name).write_bytes(data)
        config = root / "secure-server.toml"
        config.write_text(
            "[server]\ndoor_threads = 16\n"
            '[tls]\ncertificate = "server.pem"\nprivate_key = "server.key"\nclient_ca = "ca.pem"\n'
            f'trust_domains = ["{trust_domain}"]\n'
            f'[tokens]\nissuer = "{self.issuer.name}"\naudience = "{self.issuer.audience}"\n'
            'key_set = "jwks.json"\n'
            '[policy]\nfile = "policy.json"\n'
        )
        self._clients: dict[str, Issued] = {}
        self._channels: dict[str, grpc.Channel] = {}
        self._stack = stack
        self.guard = Guard.from_config(config)
        self._server, port = self._serve() if stack == "threads" else event_loop().run(self._run())
        self.address = f"127.0.0.1:{port}"

    def _serve(self) -> tuple[Any, int]:
        self._pool = ThreadPoolExecutor(16)
        guard = self.guard
        server = grpc.server(
            self._pool, interceptors=[guard.interceptor()], options=guard.options()
        )
        server.add_generic_rpc_handlers((_Any(_echo),))
        port = server.add_secure_port("127.0.0.1:0", guard.server_credentials())
        server.start()
        return server, port

    async def _run(self) -> tuple[Any, int]:
        guard = self.guard
        server = grpc.aio.server(interceptors=[guard.aio_interceptor()], options=guard.options())
        server.add_generic_rpc_handlers((_Any(_echo_async),))
        port = server.add_secure_port("127.0.0.1:0", guard.server_credentials())
        await server.start()
        return server, port

    @property
    def loggers(self) -> Any:
        return self.guard.audit_loggers

    @property
    def dropped(self) -> Mapping[str, int]:
        counts: Mapping[str, int] = self.loggers.dropped.counts
        return counts

    def client(self, name: str) -> Issued:
        if name not in self._clients:
            self._clients[name] = self.authority.issue_client(name)
        return self._clients[name]

    def channel(self, name: str = "alice") -> grpc.Channel:
        if name not in self._channels:
            issued = self.client(name)
            credentials = grpc.ssl_channel_credentials(
                self.authority.certificate_pem, issued.private_key_pem, issued.certificate_pem
            )
            self._channels[name] = grpc.secure_channel(
                self.address, credentials, [("grpc.use_local_subchannel_pool", 1)]
            )
        return self._channels[name]

    def call(
        self,
        method: str = METHOD,
        client: str = "alice",
        token: str | None = "good",
        headers: tuple[tuple[str, str], ...] = (),
    ) -> str:
        """Call with a valid token, with the given one, or with none for None; return the status."""
        if token == "good":
            token = self.issuer.token(self.client(client), subject=client)
        if token is not None:
            headers = (*headers, ("authorization", f"Bearer {token}"))
        try:
            self.channel(client).unary_unary(method)(b"", metadata=headers, timeout=20)
        except grpc.RpcError as error:
            return str(error.code().name)
        return "OK"

    def call_often(self, times: int, method: str = METHOD) -> list[str]:
        """Call many times, many at once, with one token; return the statuses."""
        token = self.issuer.token(self.client("alice"), subject="alice")
        self.channel()
        with ThreadPoolExecutor(_CALLS_AT_ONCE) as pool:
            return list(pool.map(lambda _: self.call(method, token=token), range(times)))

    def stop(self) -> None:
        for channel in self._channels.values():
            channel.close()
        if self._stack == "threads":
            self._server.stop(0).wait()
            self._pool.shutdown()
        else:
            event_loop().run(self._server.stop(0))

    def close(self) -> None:
        self.stop()
        self.guard.close()


@contextmanager
def audited(
    root: Path, stack: str, policy_text: str, *, trust_domain: str = "example.org"
) -> Iterator[AuditedDoor]:
    door = AuditedDoor(root, stack, policy_text, trust_domain)
    try:
        yield door
    finally:
        door.close()


class Pipe:
    """A pipe in the place of standard output, which only the test reads.

    The test makes it, not a fixture, because pytest gives each phase its own output.
    """

    def __enter__(self) -> Self:
        self._reader, writer = os.pipe()
        self._before = os.dup(1)
        os.dup2(writer, 1)
        os.close(writer)
        return self

    def __exit__(self, *_: object) -> None:
        os.dup2(self._before, 1)
        os.close(self._before)
        os.close(self._reader)  # a logger that still writes gets an error and continues

    def read(self, lines: int) -> list[str]:
        """Wait for so many lines and return them."""
        text = b""
        while text.count(b"\n") < lines:
            assert select.select([self._reader], [], [], 10)[0], text
            text += os.read(self._reader, 65536)
        return text.decode("ascii").splitlines()

    def shrink(self) -> None:
        """Make the pipe hold as little as a pipe can."""
        fcntl.fcntl(self._reader, fcntl.F_SETPIPE_SZ, 4096)

    def rest(self) -> list[str]:
        """Return the rest of the pipe, including what blocked writers still write."""
        text = b""
        while select.select([self._reader], [], [], 0.5)[0]:
            text += os.read(self._reader, 65536)
        return text.decode("ascii").splitlines()
