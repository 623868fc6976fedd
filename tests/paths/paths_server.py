"""A guarded server that trusts what a row says, from files as an operator writes them."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from paths_pki import DAY, Pki
from paths_row import Row
from paths_table import ZERO

from secure_server.auth import Authenticators
from secure_server.authz import Policy
from secure_server.guard import AuditEvent, Guard
from secure_server.guard.certificates import Certificates
from secure_server.sections import TLSSection
from secure_tls.authority import Authority, Issued
from secure_tls.keys import private_pem
from support.door import event_loop
from support.probe import STYLES

BOTH_STACKS = ("threaded", "aio-generator")

_POLICY = '{"name": "all", "allow_rules": [{"name": "all"}]}'


@functools.cache
def _server() -> tuple[Authority, Issued]:
    # Its guard's clock stands at the table's moments, its TLS reads the present one.
    authority = Authority.create("server.example", clock=lambda: ZERO - 10 * DAY)
    names = ["localhost"], [ip_address("127.0.0.1")]
    return authority, authority.issue_server("server", *names, timedelta(days=90))


class Server:
    """It serves the probe, to anyone whose certificate is good; ``now`` is the guard's clock."""

    def __init__(self, row: Row, pki: Pki, root: Path, style: str, now: float) -> None:
        self.pki = pki
        self.style = style
        self.now = now
        self.audit: list[AuditEvent] = []
        self.probe = STYLES[style]()
        self.crl = root / "crl"
        self._tls = Certificates(_tls(row, pki, root), lambda: self.now)
        self.guard = Guard(
            tls=self._tls.watched,
            authenticators=Authenticators([]),
            policy=Policy.parse(_POLICY),
            audit=self.audit.append,
            clock=lambda: self.now,
        )
        self.guard.reloads.follow(self._tls)
        self._channels: list[grpc.Channel] = []
        if style == "threaded":
            self._pool = ThreadPoolExecutor(16)
            self._grpc: Any = grpc.server(self._pool, interceptors=[self.guard.interceptor()])
            self._port = self._add()
            self._grpc.start()
        else:
            self._port = event_loop().run(self._start())

    async def _start(self) -> int:
        self._grpc = grpc.aio.server(interceptors=[self.guard.aio_interceptor()])
        port = self._add()
        await self._grpc.start()
        return port

    def _add(self) -> int:
        self._grpc.add_generic_rpc_handlers((self.probe,))
        port: int = self._grpc.add_secure_port("127.0.0.1:0", self.guard.server_credentials())
        return port

    def channel(self, leaf: str, sent: Iterable[str]) -> grpc.Channel:
        """A connection of its own, whose client presents this leaf and sends these beside it."""
        credentials = grpc.ssl_channel_credentials(
            _server()[0].certificate_pem, private_pem(self.pki.key(leaf)), self.pki.pem(leaf, *sent)
        )
        options = [("grpc.use_local_subchannel_pool", 1)]
        channel = grpc.secure_channel(f"127.0.0.1:{self._port}", credentials, options)
        self._channels.append(channel)
        return channel

    def close(self) -> None:
        for channel in self._channels:
            channel.close()
        if self.style == "threaded":
            self._grpc.stop(0).wait()
            self._pool.shutdown()
        else:
            event_loop().run(self._grpc.stop(0))
        self.guard.close()


@contextmanager
def serving(row: Row, pki: Pki, root: Path, style: str, now: float) -> Iterator[Server]:
    server = Server(row, pki, root, style, now)
    try:
        yield server
    finally:
        server.close()


def write(path: Path, data: bytes) -> Path:
    """Write a file as it should be: another one, renamed into its place."""
    new = path.parent.parent / f"{path.name}.new"
    new.touch(mode=0o600)
    new.write_bytes(data)
    return new.rename(path)


def _tls(row: Row, pki: Pki, root: Path) -> TLSSection:
    folder = root / "tls"
    folder.mkdir()
    bundles = {
        domain: write(folder / f"{domain}.pem", pki.pem(*names))
        for domain, names in row.bundles.items()
    }
    assert row.domains is not None, "the configuration always names trust domains"
    return TLSSection(
        certificate=write(folder / "server.pem", _server()[1].certificate_pem),
        private_key=write(folder / "server.key", _server()[1].private_key_pem),
        client_ca=write(folder / "client_ca.pem", pki.pem(*row.trusted)),
        trust_bundles=bundles,
        trust_domains=list(row.domains),
        crl=None if row.lists is None else row.write_lists(pki, root / "crl"),
        stale_crl="refuse" if row.refuse_stale else "warn",
    )
