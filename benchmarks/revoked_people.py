"""Whose tokens are revoked, and how: what ``python -m benchmarks.revoked`` does to a server."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import grpc
import jwt
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub

from secure_api.tokens.v1 import token_service_pb2 as pb
from secure_api.tokens.v1.token_service_pb2_grpc import TokenServiceStub
from secure_client.session import SessionFile, session_of
from tests.support.running import DEADLINE, ClientFiles, bearer

CLIENTS = ("desktop", "laptop")
USERS = ("alice", "bob")
SETTINGS = "[tokens]\naccess_token_lifetime = 3600\n" + "".join(
    f'[[workloads]]\nspiffe_id = "spiffe://example.org/client/{client}"\n' for client in CLIENTS
)


class Kind(StrEnum):
    """What is revoked."""

    TOKEN = "token"
    SESSION = "session"
    USER = "user"
    CLIENT = "client"


class Way(StrEnum):
    """The call or command that revokes."""

    CALL = "call"
    COMMAND = "command"


@dataclass(frozen=True)
class Revocation:
    """One thing to revoke, with all that was issued until now."""

    kind: Kind
    value: str

    def call(self, stub: TokenServiceStub, token: str) -> None:
        """Revoke by gRPC. Raises ``grpc.RpcError``."""
        method, request = {
            Kind.TOKEN: (stub.RevokeToken, pb.RevokeTokenRequest(token_id=self.value)),
            Kind.SESSION: (
                stub.RevokeSession,
                pb.RevokeSessionRequest(name=f"users/-/sessions/{self.value}"),
            ),
            Kind.USER: (stub.RevokeUser, pb.RevokeUserRequest(name=f"users/{self.value}")),
            Kind.CLIENT: (stub.RevokeClient, pb.RevokeClientRequest(client_id=_spiffe(self.value))),
        }[self.kind]
        method(request, metadata=bearer(token), timeout=DEADLINE)

    @property
    def command(self) -> list[str]:
        """The words for ``secure-client``."""
        return {
            Kind.TOKEN: ["tokens", "revoke", "--jti", self.value],
            Kind.SESSION: ["sessions", "revoke", self.value],
            Kind.USER: ["tokens", "revoke", "--user", self.value],
            Kind.CLIENT: ["tokens", "revoke", "--client", _spiffe(self.value)],
        }[self.kind]


@dataclass(eq=False)
class Credential:
    """An access token, of a session or of a workload, and whether it must be refused."""

    name: str
    user: str
    client: str
    token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    revoked: bool = False
    """The revocation was acknowledged."""
    found_revoked: bool = False
    """The revocation was not acknowledged, but in force after the restart."""
    session_ended: bool = False
    since: float = 0.0
    """When it was revoked, by ``time.monotonic``."""
    awaited: bool = False

    def __post_init__(self) -> None:
        claims = jwt.decode(self.token, options={"verify_signature": False})
        self.token_id, self.session_id = str(claims["jti"]), str(claims.get("sid", ""))
        self.expires_at = float(claims["exp"])

    def mark(self, kind: Kind) -> str:
        """Return the ID that a revocation of that kind uses; empty where it has none."""
        return {
            Kind.TOKEN: self.token_id,
            Kind.SESSION: self.session_id,
            Kind.USER: self.user,
            Kind.CLIENT: self.client,
        }[kind]

    def is_meant_by(self, revocation: Revocation) -> bool:
        """Whether this revocation revokes it."""
        return self.mark(revocation.kind) == revocation.value

    def end(self, revocation: Revocation, *, told: bool, since: float) -> None:
        """Note that a revocation of it is in force."""
        self.since = self.since or since
        self.revoked |= told
        self.found_revoked |= not told
        self.session_ended |= revocation.kind is not Kind.TOKEN

    @property
    def is_good(self) -> bool:
        return not self.revoked and not self.found_revoked


def log_in(stub: TokenServiceStub, name: str, user: str, client: str, password: str) -> Credential:
    """Open a session; the channel of the stub is the client's."""
    request = pb.LoginRequest(user_name=user, password=password)
    tokens = stub.Login(request, timeout=DEADLINE)
    return Credential(name, user, client, tokens.access_token, tokens.refresh_token)


def as_workload(stub: TokenServiceStub, name: str, client: str) -> Credential:
    """Fetch a token of the client's own."""
    tokens = stub.IssueToken(pb.IssueTokenRequest(), timeout=DEADLINE)
    return Credential(name, "", client, tokens.access_token, "")


def is_served(stub: TokenServiceStub, credential: Credential) -> bool:
    """Make a call with it."""
    return not _refuses(
        lambda: stub.WhoAmI(pb.WhoAmIRequest(), metadata=bearer(credential.token), timeout=DEADLINE)
    )


def is_refreshed(stub: TokenServiceStub, credential: Credential) -> bool:
    """Trade its refresh token for the next one."""

    def refresh() -> None:
        request = pb.RefreshRequest(refresh_token=credential.refresh_token)
        credential.refresh_token = stub.Refresh(request, timeout=DEADLINE).refresh_token

    return not _refuses(refresh)


class Administrator:
    """An administrator who revokes, by gRPC and by ``secure-client`` with its own folder."""

    def __init__(self, files: ClientFiles, folder: Path) -> None:
        self.files = files
        self._folder = folder
        self.tokens = pb.Tokens()

    def log_in(self, address: str, password: str, new_password: str = "") -> None:
        request = pb.LoginRequest(user_name="admin", password=password, new_password=new_password)
        with self.files.channel(address) as channel:
            self.tokens = TokenServiceStub(channel).Login(request, timeout=DEADLINE)

    def revoke(self, address: str, revocation: Revocation, way: Way) -> str:
        """Return an empty text on success, else the error: then the revocation is in doubt."""
        if way is Way.CALL:
            with self.files.channel(address) as channel:
                try:
                    revocation.call(TokenServiceStub(channel), self.tokens.access_token)
                except grpc.RpcError as error:
                    return f"{error.code().name}: {error.details()}"
                return ""
        session = session_of(self.tokens, "admin", address)
        SessionFile(self._folder / "secure-client", "default").save(session)
        done = subprocess.run(
            [str(Path(sys.executable).with_name("secure-client")), *revocation.command],
            env=self._environment(address),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        return "" if done.returncode == 0 else f"{done.returncode}: {done.stderr}"

    def _environment(self, address: str) -> dict[str, str]:
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith("SECURE_")
        }
        return inherited | {
            "XDG_CONFIG_HOME": str(self._folder),
            "SECURE_CLIENT_TARGET": address,
            "SECURE_CLIENT_CA": str(self.files.ca),
            "SECURE_CLIENT_CERTIFICATE": str(self.files.certificate),
            "SECURE_CLIENT_PRIVATE_KEY": str(self.files.private_key),
        }


class Stream:
    """An open stream, and when and how it ended."""

    def __init__(self, channel: grpc.Channel, credential: Credential) -> None:
        self.credential = credential
        self._ended = threading.Event()
        self._ended_at = 0.0
        self._call = HealthStub(channel).Watch(
            HealthCheckRequest(), metadata=bearer(credential.token)
        )
        next(self._call)
        self._call.add_done_callback(self._note)

    def _note(self, _call: object) -> None:
        self._ended_at = time.monotonic()
        self._ended.set()

    @property
    def is_open(self) -> bool:
        return not self._ended.is_set()

    def seconds_to_end(self, since: float) -> float:
        """Wait for its end by a revocation; infinite where that did not come."""
        if not self._ended.wait(DEADLINE) or self._call.code() is not _REFUSED:
            return float("inf")
        return self._ended_at - since

    def close(self) -> None:
        self._call.cancel()


_REFUSED = grpc.StatusCode.UNAUTHENTICATED


def _refuses(call: Callable[[], object]) -> bool:
    try:
        call()
    except grpc.RpcError as error:
        if error.code() is _REFUSED:
            return True
        raise
    return False


def _spiffe(client: str) -> str:
    return f"spiffe://example.org/client/{client}"
