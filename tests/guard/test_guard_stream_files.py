"""Files that change under open streams: a revocation list and a policy, on both stacks.

The guard is built as users build it, from files, and looks at them as often as it does for users.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from secure_server import Guard
from secure_server.testing import Issuer
from secure_tls.authority import Authority, Issued
from support.door import ask, event_loop, wait_until
from support.open_streams import STREAMS, Open, hold
from support.probe import STYLES

SETTINGS = """\
[tls]
certificate = "server.pem"
private_key = "server.key"
client_ca = "ca.pem"
crl = "crl.pem"

[tokens]
issuer = "https://issuer.example.org"
audience = "example"
key_set = "jwks.json"

[policy]
file = "policy.json"
"""


class Files:
    """A guarded server whose files a test changes."""

    def __init__(self, root: Path, style: str) -> None:
        self.style = style
        self.probe = STYLES[style]()
        self.authority = Authority.create("example.org")
        self.issuer = Issuer()
        self._root = root
        self._crls = itertools.count(1)
        leaf = self.authority.issue_server("server", ["localhost"], [ip_address("127.0.0.1")])
        self.write("server.pem", leaf.certificate_pem)
        self.write("server.key", leaf.private_key_pem)
        self.write("ca.pem", self.authority.certificate_pem)
        self.write("jwks.json", self.issuer.jwks().encode())
        self.revoke()
        self.allow("gone", "other")
        (root / "secure-server.toml").write_text(SETTINGS)
        self.guard = Guard.from_config(root / "secure-server.toml")
        if style == "threaded":
            self.server: Any = grpc.server(
                ThreadPoolExecutor(16), interceptors=[self.guard.interceptor()]
            )
            port = self._add()
            self.server.start()
        else:
            port = event_loop().run(self._start())
        self.address = f"127.0.0.1:{port}"

    async def _start(self) -> int:
        self.server = grpc.aio.server(interceptors=[self.guard.aio_interceptor()])
        port = self._add()
        await self.server.start()
        return port

    def _add(self) -> int:
        self.server.add_generic_rpc_handlers((self.probe,))
        port: int = self.server.add_secure_port("127.0.0.1:0", self.guard.server_credentials())
        return port

    def write(self, name: str, data: bytes) -> None:
        """Write a file as it should be: another one, renamed into its place."""
        new = self._root / f"{name}.new"
        new.touch(mode=0o600)
        new.write_bytes(data)
        new.rename(self._root / name)

    def revoke(self, *issued: Issued) -> None:
        serials = [one.certificate.serial_number for one in issued]
        crl = self.authority.crl(serials, number=next(self._crls))
        self.write("crl.pem", crl.public_bytes(Encoding.PEM))

    def allow(self, *subjects: str) -> None:
        principals = [f"{self.issuer.name}/{subject}" for subject in subjects]
        rule = {"name": "these", "source": {"request_principals": principals}}
        self.write("policy.json", json.dumps({"name": "p", "allow_rules": [rule]}).encode())

    def channel(self, issued: Issued) -> grpc.Channel:
        credentials = grpc.ssl_channel_credentials(
            self.authority.certificate_pem, issued.private_key_pem, issued.certificate_pem
        )
        options = [("grpc.use_local_subchannel_pool", 1)]
        return grpc.secure_channel(self.address, credentials, options)

    def close(self) -> None:
        if self.style == "threaded":
            self.server.stop(0).wait()
        else:
            event_loop().run(self.server.stop(0))
        self.guard.close()


class Caller:
    """A client with a certificate, a token bound to it, and a stream of each kind."""

    def __init__(self, files: Files, name: str, stack: ExitStack) -> None:
        self.issued = files.authority.issue_client(name)
        self._token = files.issuer.token(self.issued, subject=name)
        self._channel = stack.enter_context(files.channel(self.issued))
        self.streams = [Open(self._channel, kind, stack, self._token) for kind in STREAMS]

    def code(self) -> grpc.StatusCode:
        """Make a call over the connection of the streams."""
        authorization = f"Bearer {self._token}"
        return ask(self._channel, "unary_unary", authorization, messages=(b"now",)).code


@pytest.fixture(params=["threaded", "aio-generator"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Files]:
    files = Files(tmp_path, request.param)
    try:
        let_go = hold(files)
        held = files.probe.behave
        files.probe.behave = lambda message, context: (
            message if message == b"now" else held(message, context)
        )
        yield files
        let_go()
    finally:
        files.close()


@pytest.fixture
def callers(files: Files) -> Iterator[tuple[Caller, Caller]]:
    """A client to be refused and another one, with streams that their handlers never end."""
    with ExitStack() as stack:
        both = Caller(files, "gone", stack), Caller(files, "other", stack)
        wait_until(lambda: len(files.probe.callers) == 2 * len(STREAMS))
        assert [one.code() for one in both] == [grpc.StatusCode.OK] * 2
        yield both


def test_T14_G11_a_certificate_on_the_revocation_list_ends_its_calls_and_streams_within_a_second(
    files: Files, callers: tuple[Caller, Caller]
) -> None:
    gone, other = callers
    before = time.monotonic()
    files.revoke(gone.issued)
    for stream in gone.streams:
        stream.assert_ended("SESSION_ENDED", before)
    assert gone.code() is grpc.StatusCode.UNAUTHENTICATED, "its connection is open still"
    assert other.code() is grpc.StatusCode.OK
    assert all(stream.is_open for stream in other.streams)


def test_G12_a_new_policy_file_ends_the_streams_that_it_refuses_within_a_second(
    files: Files, callers: tuple[Caller, Caller]
) -> None:
    gone, other = callers
    before = time.monotonic()
    files.allow("other")
    for stream in gone.streams:
        stream.assert_ended("POLICY_CHANGED", before)
    assert gone.code() is grpc.StatusCode.PERMISSION_DENIED
    assert other.code() is grpc.StatusCode.OK
    assert all(stream.is_open for stream in other.streams)
