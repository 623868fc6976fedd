"""A small token service behind real mutual TLS, and certificates for it."""

import ipaddress
import threading
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from client_fakes import NOW, access_token
from google.protobuf import empty_pb2
from google.rpc import error_details_pb2, status_pb2

from secure_api.tokens.v1 import token_service_pb2 as pb
from secure_api.tokens.v1 import token_service_pb2_grpc as pb_grpc
from secure_api.users.v1 import user_service_pb2 as users
from secure_api.users.v1 import user_service_pb2_grpc as users_grpc
from secure_client import ConnectionSettings
from secure_tls import Authority


@dataclass
class World:
    """One authority, and the files that it has issued, in one folder."""

    folder: Path
    authority: Authority

    @property
    def ca(self) -> Path:
        return self.folder / "ca.pem"

    def client(self, name="alice", issued=None):
        """Put a new pair into the files of this name, by default of this name as well."""
        certificate, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        issued = issued or self.authority.issue_client(name)
        key.touch(mode=0o600)
        key.write_bytes(issued.private_key_pem)
        certificate.write_bytes(issued.certificate_pem)
        return certificate, key

    def connection(self, port, name="alice"):
        certificate, key = self.client(name)
        return ConnectionSettings(f"localhost:{port}", self.ca, certificate, key)


def make_world(folder):
    authority = Authority.create("example.org")
    world = World(folder, authority)
    world.ca.write_bytes(authority.certificate_pem)
    return world


@dataclass
class TokenService(pb_grpc.TokenServiceServicer):
    """Counts its calls, and answers as configured."""

    lifetime: float = 900
    now: float = NOW
    calls: list = field(default_factory=list)
    good_refresh: set = field(default_factory=lambda: {"refresh-0"})
    refused: set = field(default_factory=set)
    fail: dict = field(default_factory=dict)
    gate: threading.Event | None = None
    issued: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def _enter(self, name, context):
        authorization = [v for k, v in context.invocation_metadata() if k == "authorization"]
        with self.lock:
            self.calls.append((name, authorization))
            failures = self.fail.get(name, [])
            code = failures.pop(0) if failures else None
        if code is not None:
            context.abort(code, f"{name} fails")
        return authorization

    def _tokens(self, *, refresh):
        with self.lock:
            self.issued += 1
            number = self.issued
            tokens = pb.Tokens(access_token=access_token(number, lifetime=self.lifetime))
            tokens.access_token_expire_time.FromNanoseconds(int((self.now + self.lifetime) * 1e9))
            if refresh:
                tokens.refresh_token = f"refresh-{number}"
                self.good_refresh.add(tokens.refresh_token)
                tokens.refresh_token_expire_time.FromSeconds(int(self.now + 86400))
        return tokens

    def Refresh(self, request, context):
        self._enter("Refresh", context)
        if self.gate is not None:
            self.gate.wait(30)
        with self.lock:
            good = request.refresh_token in self.good_refresh
            # A refresh token works once.
            self.good_refresh.discard(request.refresh_token)
        if not good:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "not authenticated")
        return self._tokens(refresh=True)

    def IssueToken(self, request, context):
        self._enter("IssueToken", context)
        return self._tokens(refresh=False)

    def WhoAmI(self, request, context):
        authorization = self._enter("WhoAmI", context)
        if self.refused.intersection(authorization):
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "not authenticated")
        answer = pb.WhoAmIResponse()
        certificate = context.auth_context().get("x509_pem_cert", [b""])[0]
        answer.certificate.subject = certificate.decode()
        return answer

    def Login(self, request, context):
        self._enter("Login", context)
        if request.password not in ("right", "initial"):
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "not authenticated")
        if request.password == "initial" and not request.new_password:
            info = error_details_pb2.ErrorInfo(
                reason="PASSWORD_CHANGE_REQUIRED", domain="secure-grpc"
            )
            status = status_pb2.Status(
                code=grpc.StatusCode.FAILED_PRECONDITION.value[0], message="initial"
            )
            status.details.add().Pack(info)
            context.set_trailing_metadata(
                (("grpc-status-details-bin", status.SerializeToString()),)
            )
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "initial")
        return self._tokens(refresh=True)

    def Logout(self, request, context):
        self._enter("Logout", context)
        return empty_pb2.Empty()

    def Introspect(self, request_iterator, context):
        self._enter("Introspect", context)
        for request in request_iterator:
            yield pb.IntrospectResponse(correlation_id=request.correlation_id, active=True)

    def names(self):
        with self.lock:
            return [name for name, _ in self.calls]


class UserService(users_grpc.UserServiceServicer):
    """Users with hostile names, in pages of two."""

    def __init__(self):
        self.requests = []
        self.resumed = threading.Event()

    def CreateUser(self, request, context):
        self.requests.append(request)
        return users.User(name=f"users/{request.user_id}", state=users.User.STATE_ACTIVE)

    def UpdateUser(self, request, context):
        self.requests.append(request)
        return request.user

    def ListUsers(self, request, context):
        start = int(request.page_token or 0)
        page = users.ListUsersResponse(next_page_token=str(start + 2) if start < 4 else "")
        for number in (start, start + 1):
            page.users.add(name=f"users/u{number}", display_name="a\x1b[31m\u202e\nb")
        return page

    def ImportUsers(self, request_iterator, context):
        rows = [each.row for each in request_iterator]
        self.requests += rows
        answer = users.ImportUsersResponse(imported_count=len(rows))
        for index, row in enumerate(rows):
            if row.user_id == "bad":
                answer.imported_count -= 1
                answer.failed_count += 1
                answer.failures.add(index=index, user_id="bad", code=3, message="no\x07good")
        return answer

    def WatchUsers(self, request, context):
        self.requests.append(request)
        yield users.WatchUsersResponse(change="CHANGE_WATCHING", resume_token="t0")
        if not request.resume_token:
            yield users.WatchUsersResponse(
                change="CHANGE_CREATED", resume_token="t1", user=users.User(name="users/new")
            )
            context.abort(grpc.StatusCode.UNAVAILABLE, "rolling")
        self.resumed.set()
        context.abort(grpc.StatusCode.PERMISSION_DENIED, "no more")


@dataclass
class Running:
    port: int
    service: TokenService
    users: UserService

    @property
    def target(self):
        return f"localhost:{self.port}"


def start(world, service, *, authority=None, port=0):
    """Serve with a certificate of this authority, by default the world's."""
    issued = (authority or world.authority).issue_server(
        "token-service", ["localhost"], [ipaddress.ip_address("127.0.0.1")]
    )
    server = grpc.server(futures.ThreadPoolExecutor(32), options=[("grpc.so_reuseport", 0)])
    pb_grpc.add_TokenServiceServicer_to_server(service, server)
    people = UserService()
    users_grpc.add_UserServiceServicer_to_server(people, server)
    credentials = grpc.ssl_server_credentials(
        [(issued.private_key_pem, issued.certificate_pem)],
        world.authority.certificate_pem,
        require_client_auth=True,
    )
    port = server.add_secure_port(f"localhost:{port}", credentials)
    server.start()
    return server, Running(port, service, people)
