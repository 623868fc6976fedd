"""Operations: the store is gone, and the server is killed (O1, O8).

The service is threaded; O1 for streams on both stacks is in ``test_guard_stream_revocations.py``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from services.people import administrator, fresh, refused, rows

from secure_api.tokens.v1 import token_service_pb2 as tokens_pb
from secure_api.tokens.v1.token_service_pb2_grpc import TokenServiceStub
from secure_api.users.v1 import user_service_pb2 as users_pb
from secure_api.users.v1.user_service_pb2_grpc import UserServiceStub
from secure_server.sections import TokensSection
from secure_server.tokens.key_file import KeyFile
from secure_tls.peer import parse_peer
from support.door import wait_until
from support.forge import Forge
from support.house import KINDS, bearer, call, running_house
from support.open_streams import Open
from support.running import DEADLINE, Running, running_server

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
GET_KEY_SET = "/secure_api.tokens.v1.TokenService/GetKeySet"
AT_ONCE = 1.0  # seconds; nothing waits for a database that is known to be gone


def test_O1_without_its_database_what_needs_it_is_unavailable_at_once_and_nothing_is_open(
    tmp_path: Path,
) -> None:
    """Verified callers are served until the feed is too old. Then calls and streams are refused,
    and `Introspect` calls no token active.
    """
    with (
        running_house(tmp_path, store="max_feed_staleness = 2.0\n") as house,
        ExitStack() as stack,
    ):
        admin = administrator(house, house.first_log_in().access_token)
        token = admin.tokens.access_token
        session = admin.log_in()
        streams = {
            kind: Open(
                house.channel(house.admin), kind, stack, token, path=KINDS[kind][0], first=b""
            )
            for kind in ("stream_unary", "stream_stream")
        }
        next(streams["stream_stream"].call)
        watch, _ = admin.watch()
        guard = house.server._guard
        wait_until(lambda: len(guard.watch) == 3)
        guard.core._revocations._database.close()
        too_old_at = guard.core._revocations._read_at + 2.0

        name = fresh("missing")
        needing: dict[str, Callable[[], Any]] = {
            "Login": admin.log_in,
            "Refresh": lambda: admin.refresh(session),
            "GetUser": admin.get,
            "CreateUser": lambda: admin.create(name),
            "ListSessions": lambda: admin.do(
                "ListSessions", tokens_pb.ListSessionsRequest(parent=admin.resource)
            ),
            "RevokeToken": lambda: admin.do(
                "RevokeToken", tokens_pb.RevokeTokenRequest(token_id="an-id")
            ),
            "Logout": lambda: admin.do("Logout", tokens_pb.LogoutRequest(), session.access_token),
            "WatchUsers": lambda: list(admin.do("WatchUsers", users_pb.WatchUsersRequest())),
            "ImportUsers": lambda: admin.do(
                "ImportUsers", rows(users_pb.CreateUserRequest(user_id=name))
            ),
        }
        begun = time.monotonic()
        for method, use in needing.items():
            assert refused(use).told == ("UNAVAILABLE", "STORE_UNAVAILABLE", ""), method
        assert time.monotonic() - begun < AT_ONCE
        assert admin.me().token.subject == "users/admin"
        assert all(stream.is_open for stream in streams.values())
        assert time.monotonic() < too_old_at, "this machine is too slow for this test"

        for stream in streams.values():
            stream.assert_ended("", too_old_at)
            assert stream.ended_at >= too_old_at
        with pytest.raises(grpc.RpcError):
            list(watch)
        assert watch.code() is UNAVAILABLE
        for kind in KINDS:
            assert call(house.channel(house.admin), kind, bearer(token)).code is UNAVAILABLE, kind
        assert call(house.channel(house.admin), method=GET_KEY_SET, request=b"").served
        assert refused(admin.log_in).told == ("UNAVAILABLE", "STORE_UNAVAILABLE", "")


def test_O8_what_was_answered_as_revoked_is_revoked_after_kill_9(tmp_path: Path) -> None:
    """A token, session, user and client are refused from the next server's first call on."""
    gone = "spiffe://example.org/client/gone"
    with running_server(tmp_path) as running:
        metadata, of_session = bearer(running.admin_token()), running.admin_token()
        forge = _forge(running)
        thumbprint = parse_peer(running.admin.certificate.read_bytes()).thumbprint
        tokens = {
            "token": forge.token(thumbprint, jti="an-id"),
            "session": of_session,
            "user": forge.token(thumbprint, sub="users/user"),
            "client": forge.token(thumbprint, client_id=gone),
            "none": forge.token(thumbprint),
        }
        with running.admin.channel(running.address) as channel:
            stub = TokenServiceStub(channel)
            UserServiceStub(channel).CreateUser(
                users_pb.CreateUserRequest(user_id="user"), metadata=metadata
            )
            sessions = stub.ListSessions(
                tokens_pb.ListSessionsRequest(parent="users/admin"), metadata=metadata
            ).sessions
            (session,) = [one.name for one in sessions if not one.current]
            assert all(call(channel, metadata=bearer(token)).served for token in tokens.values())
            for method, request in (
                (stub.RevokeToken, tokens_pb.RevokeTokenRequest(token_id="an-id")),
                (stub.RevokeSession, tokens_pb.RevokeSessionRequest(name=session)),
                (stub.RevokeUser, tokens_pb.RevokeUserRequest(name="users/user")),
                (stub.RevokeClient, tokens_pb.RevokeClientRequest(client_id=gone)),
            ):
                method(request, metadata=metadata, timeout=DEADLINE)
            running.server.kill()
        server = running.installation.start()
        try:
            with running.admin.channel(server.address) as channel:
                codes = {
                    name: call(channel, metadata=bearer(token)).code
                    for name, token in tokens.items()
                }
        finally:
            server.stop()
    assert codes.pop("none") is grpc.StatusCode.OK
    assert set(codes.values()) == {grpc.StatusCode.UNAUTHENTICATED}, codes


def _forge(running: Running) -> Forge:
    key_file = running.installation.root / "state" / "signing-key.pem"
    settings = TokensSection()
    key_id = KeyFile(key_file).open(time.time()).key_id
    return Forge(key_file.read_bytes(), key_id, settings.issuer, settings.audience)
