"""A whole server in this process, on a real port, with certificates and clients of its own."""

from __future__ import annotations

import dataclasses
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import grpc

from secure_api.tokens.v1 import token_service_pb2 as tokens_pb
from secure_api.tokens.v1.token_service_pb2_grpc import TokenServiceStub
from secure_api.users.v1 import user_service_pb2 as users_pb
from secure_api.users.v1.user_service_pb2_grpc import UserServiceStub
from secure_server.app.lifecycle import Server
from secure_server.config import read_config
from secure_server.tokens.key_file import KeyFile
from secure_tls.authority import Authority, Issued
from secure_tls.peer import parse_peer
from support.forge import Forge

PASSWORD = "correct horse battery staple"
DEADLINE = 20.0


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The outcome of a call."""

    code: grpc.StatusCode
    details: str
    responses: list[Any]
    reason: str | None

    @property
    def served(self) -> bool:
        return self.code is grpc.StatusCode.OK


@dataclasses.dataclass(frozen=True)
class Client:
    """A client certificate of the house."""

    issued: Issued

    @property
    def thumbprint(self) -> str:
        return parse_peer(self.issued.certificate_pem).thumbprint


class House:
    """One server with everything around it. ``admin`` is the first administrator's client."""

    def __init__(
        self,
        root: Path,
        settings: str = "",
        *,
        clock: Callable[[], float] = time.time,
        authority: Authority | None = None,
        tls: str = "",
        store: str = "",
    ) -> None:
        self.root = root
        self.authority = authority or Authority.create("example.org")
        self.clients: dict[str, Client] = {}
        server = self.authority.issue_server(
            "server", ["localhost"], [ip_address("127.0.0.1"), ip_address("::1")]
        )
        self.write("ca.pem", self.authority.certificate_pem)
        self.write("server.pem", server.certificate_pem)
        self.write("server.key", server.private_key_pem)
        self.config_file = root / "secure-server.toml"
        self.config_file.write_text(
            '[server]\nlisten = "127.0.0.1:0"\ngrace = 5\n'
            '[tls]\ncertificate = "server.pem"\nprivate_key = "server.key"\nclient_ca = "ca.pem"\n'
            + tls
            + '[tokens]\nsigning_key = "signing-key.pem"\n'
            '[store]\nurl = "sqlite:///store.db"\n' + store + settings
        )
        self.config = read_config(self.config_file)
        self.server = Server(self.config, clock=clock)
        self._channels: list[grpc.Channel] = []
        self.admin = self.client("admin")

    def write(self, name: str, data: bytes) -> None:
        """Write a file in one step: the server looks at it at any moment."""
        path = self.root / name
        draft = path.with_name(f".{path.name}")
        draft.touch(mode=0o600)
        draft.write_bytes(data)
        draft.replace(path)

    @property
    def address(self) -> str:
        return self.server.address

    @property
    def forge(self) -> Forge:
        path = self.config.tokens.signing_key
        return Forge(
            path.read_bytes(),
            KeyFile(path).open(time.time()).key_id,
            self.config.tokens.issuer,
            self.config.tokens.audience,
        )

    def client(self, name: str, lifetime: timedelta = timedelta(days=1)) -> Client:
        if name not in self.clients:
            self.clients[name] = Client(self.authority.issue_client(name, lifetime))
        return self.clients[name]

    def channel(self, client: Client | Issued | None, *options: tuple[str, Any]) -> grpc.Channel:
        """Connect with a certificate, or without one. The house closes it."""
        issued = client.issued if isinstance(client, Client) else client
        credentials = grpc.ssl_channel_credentials(
            self.authority.certificate_pem,
            issued.private_key_pem if issued else None,
            issued.certificate_pem if issued else None,
        )
        channel = grpc.secure_channel(
            self.address, credentials, [("grpc.use_local_subchannel_pool", 1), *options]
        )
        self._channels.append(channel)
        return channel

    def first_log_in(self) -> tokens_pb.Tokens:
        """Make the first administrator and log it in."""
        from secure_server.store.database import Database
        from secure_server.users import Accounts, Passwords

        database = Database.open(self.config.store.url)
        passwords = Passwords()
        accounts = Accounts(database, passwords, clock=time.time, end_sessions=_none)
        secret = uuid.uuid4().hex
        accounts.bootstrap("admin", secret)
        passwords.close()
        database.close()
        return self.log_in("admin", secret, PASSWORD)

    def log_in(
        self, user: str, password: str, new_password: str = "", client: Client | None = None
    ) -> tokens_pb.Tokens:
        stub = TokenServiceStub(self.channel(client or self.admin))
        request = tokens_pb.LoginRequest(
            user_name=user, password=password, new_password=new_password
        )
        return stub.Login(request, timeout=DEADLINE)

    def make_user(self, admin_token: str, name: str, *roles: str) -> tokens_pb.Tokens:
        """Create a user who logs in over the client certificate of the same name."""
        secret = uuid.uuid4().hex
        UserServiceStub(self.channel(self.admin)).CreateUser(
            users_pb.CreateUserRequest(
                user_id=name, user=users_pb.User(roles=roles), password=secret
            ),
            metadata=bearer(admin_token),
            timeout=DEADLINE,
        )
        return self.log_in(name, secret, PASSWORD, self.client(name))

    def close(self) -> None:
        for channel in self._channels:
            channel.close()
        self.server.stop()


def _none(*_arguments: object) -> int:
    return 0


@contextmanager
def running_house(
    root: Path,
    settings: str = "",
    *,
    clock: Callable[[], float] = time.time,
    authority: Authority | None = None,
    tls: str = "",
    store: str = "",
) -> Iterator[House]:
    house = House(root, settings, clock=clock, authority=authority, tls=tls, store=store)
    try:
        house.server.start()
        yield house
    finally:
        house.close()


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


# One method of each kind, all of them for administrators; requests that are harmless to repeat.
KINDS = {
    "unary_unary": (
        "/secure_api.tokens.v1.TokenService/WhoAmI",
        tokens_pb.WhoAmIRequest,
        tokens_pb.WhoAmIResponse,
    ),
    "unary_stream": (
        "/secure_api.users.v1.UserService/WatchUsers",
        users_pb.WatchUsersRequest,
        users_pb.WatchUsersResponse,
    ),
    "stream_unary": (
        "/secure_api.users.v1.UserService/ImportUsers",
        users_pb.ImportUsersRequest,
        users_pb.ImportUsersResponse,
    ),
    "stream_stream": (
        "/secure_api.tokens.v1.TokenService/Introspect",
        tokens_pb.IntrospectRequest,
        tokens_pb.IntrospectResponse,
    ),
}


def call(
    channel: grpc.Channel,
    kind: str = "unary_unary",
    metadata: Any = (),
    *,
    method: str | None = None,
    request: bytes | None = None,
    silent: Iterator[bytes] | None = None,
    timeout: float = DEADLINE,
) -> Outcome:
    """Make one call of a kind with raw bytes and return its outcome.

    ``silent`` is an iterator that blocks: a caller of a streaming method who sends nothing.
    Of an endless response stream one message is read.
    """
    path, make_request, response = KINDS[kind]
    body = make_request().SerializeToString() if request is None else request
    argument: Any = body
    if kind.startswith("stream"):
        argument = silent if silent is not None else iter([body])
    invoke = getattr(channel, kind)(method or path, None, None)
    responses: list[Any] = []
    try:
        if kind.endswith("unary"):
            result, done = invoke.with_call(argument, metadata=metadata, timeout=timeout)
            responses.append(response.FromString(result))
        else:
            done = invoke(argument, metadata=metadata, timeout=timeout)
            for message in done:
                responses.append(response.FromString(message))
                if kind == "unary_stream":
                    done.cancel()
                    return Outcome(grpc.StatusCode.OK, "", responses, None)
        return Outcome(grpc.StatusCode.OK, "", responses, None)
    except grpc.RpcError as error:
        return Outcome(error.code(), error.details(), responses, reason_of(error))


def reason_of(error: Any) -> str | None:
    """Return the ``google.rpc.ErrorInfo`` reason of an error, if it has one."""
    from google.rpc import error_details_pb2
    from grpc_status import rpc_status

    status = rpc_status.from_call(error)
    for detail in status.details if status is not None else ():
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            assert info.domain == "secure-grpc"
            return info.reason
    return None
