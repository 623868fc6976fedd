"""Users of the house, and everything that a refused caller sees."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from secure_api.tokens.v1 import token_service_pb2 as tokens_pb
from secure_api.tokens.v1.token_service_pb2_grpc import TokenServiceStub
from secure_api.users.v1 import user_service_pb2 as users_pb
from secure_api.users.v1.user_service_pb2_grpc import UserServiceStub
from secure_server.store.tailer import Tailer
from support.house import DEADLINE, PASSWORD, Client, House, bearer


@dataclass(frozen=True)
class Refused:
    """An error with everything that the caller receives, its trailers included."""

    code: str
    text: str
    reason: str
    field: str
    trailers: tuple[tuple[str, str | bytes], ...]

    @property
    def told(self) -> tuple[str, str, str]:
        return self.code, self.reason, self.field


def outcome(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Make a call; returns its result or its ``Refused``."""
    try:
        result = call(*arguments, **options)
        return list(result) if hasattr(result, "__next__") else result
    except grpc.RpcError as error:
        return described(error)


def described(error: Any) -> Refused:
    """Every error has one ``ErrorInfo``, and its status says the same in the trailers."""
    status = rpc_status.from_call(error)  # raises where code and text are not the same
    assert status is not None, error
    (detail,) = status.details
    info = error_details_pb2.ErrorInfo()
    assert detail.Unpack(info)
    assert info.domain == "secure-grpc"
    assert set(info.metadata) <= {"field"}
    return Refused(
        error.code().name,
        error.details(),
        info.reason,
        info.metadata.get("field", ""),
        tuple((key, value) for key, value in error.trailing_metadata()),
    )


def refused(call: Callable[..., Any], *arguments: Any, **options: Any) -> Refused:
    """Make a call that must fail."""
    result = outcome(call, *arguments, **options)
    assert isinstance(result, Refused), result
    return result


class Person:
    """A user or workload with a client certificate and usually tokens."""

    def __init__(
        self, house: House, name: str, client: Client, tokens: tokens_pb.Tokens | None = None
    ) -> None:
        self.house = house
        self.name = name
        self.client = client
        self.tokens = tokens or tokens_pb.Tokens()
        self.password = PASSWORD
        channel = house.channel(client)
        self.stubs = UserServiceStub(channel), TokenServiceStub(channel)

    @property
    def resource(self) -> str:
        return f"users/{self.name}"

    def method(self, name: str) -> Any:
        return next(getattr(stub, name) for stub in self.stubs if hasattr(stub, name))

    def do(self, method: str, request: Any, token: str | None = None) -> Any:
        """Call with this user's access token, with another, or without one (``""``)."""
        token = self.tokens.access_token if token is None else token
        return self.method(method)(
            request, metadata=bearer(token) if token else (), timeout=DEADLINE
        )

    def refused(self, method: str, request: Any, token: str | None = None) -> Refused:
        return refused(self.do, method, request, token)

    def me(self, token: str | None = None) -> tokens_pb.WhoAmIResponse:
        return self.do("WhoAmI", tokens_pb.WhoAmIRequest(), token)

    def is_known(self, token: str) -> bool:
        """Whether the server accepts an access token now."""
        answer = outcome(self.me, token)
        if isinstance(answer, Refused):
            assert answer.told == ("UNAUTHENTICATED", "CREDENTIALS_REFUSED", "")
            return False
        return True

    def log_in(self, password: str | None = None, new: str = "") -> tokens_pb.Tokens:
        request = tokens_pb.LoginRequest(
            user_name=self.name, password=password or self.password, new_password=new
        )
        return self.do("Login", request, "")

    def refresh(self, tokens: tokens_pb.Tokens | str) -> tokens_pb.Tokens:
        text = tokens if isinstance(tokens, str) else tokens.refresh_token
        return self.do("Refresh", tokens_pb.RefreshRequest(refresh_token=text), "")

    def get(self, name: str | None = None) -> users_pb.User:
        return self.do("GetUser", users_pb.GetUserRequest(name=name or self.resource))

    def create(self, name: str, password: str = "", /, **fields: Any) -> users_pb.User:
        request = users_pb.CreateUserRequest(
            user_id=name, user=users_pb.User(**fields), password=password
        )
        return self.do("CreateUser", request)

    def update(self, name: str, paths: Iterable[str] | None = None, **fields: Any) -> Any:
        return self.do("UpdateUser", update_request(name, paths, **fields))

    def watch(self, resume_token: str = "") -> Any:
        """Open a stream of changes and read its first message; returns both."""
        stream = self.do("WatchUsers", users_pb.WatchUsersRequest(resume_token=resume_token))
        return stream, next(stream)


def update_request(
    name: str, paths: Iterable[str] | None = None, **fields: Any
) -> users_pb.UpdateUserRequest:
    request = users_pb.UpdateUserRequest(user=users_pb.User(name=f"users/{name}", **fields))
    if paths is not None:
        request.update_mask.SetInParent()
        request.update_mask.paths.extend(paths)
    return request


def administrator(house: House, access_token: str) -> Person:
    return Person(house, "admin", house.admin, tokens_pb.Tokens(access_token=access_token))


def newcomer(house: House, admin_token: str, *roles: str, called: str = "user") -> Person:
    """A new user, logged in. It takes several password hashes."""
    name = fresh(called)
    return Person(house, name, house.client(name), house.make_user(admin_token, name, *roles))


def without_tailer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop the tailer's thread from looking at the database, as if its interval were endless.

    The next call then knows only what the transaction that wrote it has told.
    """
    look = Tailer.look

    def unless_polling(self: Tailer) -> None:
        if threading.current_thread().name != "store-tailer":
            look(self)

    monkeypatch.setattr(Tailer, "look", unless_polling)


def fresh(prefix: str) -> str:
    """A user name that no other test has."""
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


def at_once(calls: Iterable[Callable[[], Any]]) -> list[Any]:
    """Make calls at the same time; returns the outcome of each."""
    calls = list(calls)
    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(outcome, calls))


def rows(*requests: users_pb.CreateUserRequest) -> Iterator[users_pb.ImportUsersRequest]:
    for request in requests:
        yield users_pb.ImportUsersRequest(row=request)
