"""Secrets stay where they belong: U29, G18 and O3 over real connections."""

import base64
import io
import logging
import sqlite3
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path

import grpc
import pytest
import structlog
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from services.people import (
    Person,
    Refused,
    administrator,
    described,
    newcomer,
    refused,
    rows,
)

from secure_api.tokens.v1 import token_service_pb2 as tokens_pb
from secure_api.users.v1 import user_service_pb2 as users_pb
from secure_server.guard import AuditEvent, Core
from secure_server.guard.caller import Caller
from secure_server.logs import set_up_logging
from secure_server.tokens.issuer import AccessToken, Issuer
from secure_server.tokens.session import Session
from secure_server.tokens.sessions import Sessions
from secure_server.users import records
from support.forge import REMOVE
from support.house import DEADLINE, PASSWORD, House, bearer, running_house

METADATA = tuple[tuple[str, str | bytes], ...]


def test_G18_every_refusal_of_a_credential_is_the_same_to_the_last_byte(
    house: House, admin_token: str, log: list[dict[str, object]]
) -> None:
    """Only the audit log has the reasons, which differ."""
    user = newcomer(house, admin_token)
    mine, forge, now = user.client.thumbprint, house.forge, int(time.time())
    user.do("Logout", tokens_pb.LogoutRequest())
    who_am_i = "/secure_api.tokens.v1.TokenService/WhoAmI"
    good = user.log_in().access_token
    attempts: list[tuple[str, METADATA]] = [
        (who_am_i, ()),
        ("/secure_api.tokens.v1.TokenService/NoSuchMethod", ()),
        ("/secure_api.users.v1.UserService/ListUsers", ()),
        (who_am_i, bearer(user.tokens.access_token)),  # revoked
        (who_am_i, bearer(admin_token)),  # another certificate's
        (who_am_i, bearer(user.tokens.refresh_token)),
        (who_am_i, bearer("garbage")),
        (who_am_i, (("authorization", "Bearer "),)),
        (who_am_i, (("authorization", "Basic dXNlcjpwYXNz"),)),
        (who_am_i, (*bearer(good), *bearer(good))),
        (who_am_i, bearer(forge.token(mine, iat=now - 700, exp=now - 100))),
        (who_am_i, bearer(forge.token(mine, aud="elsewhere"))),
        (who_am_i, bearer(forge.token(mine, iss="https://elsewhere.example"))),
        (who_am_i, bearer(forge.token(mine, sub=REMOVE))),
        (who_am_i, bearer(forge.token(mine, {"typ": "JWT"}))),
        (who_am_i, bearer(forge.token(mine, {"alg": "none"}))),
        (who_am_i, bearer(forge.token(mine, key=ec.generate_private_key(ec.SECP256R1())))),
    ]
    channel = house.channel(user.client)
    log.clear()
    refusals = [
        refused(channel.stream_unary(method), iter([b""]), metadata=metadata, timeout=DEADLINE)
        for method, metadata in attempts
    ]
    assert len(set(refusals)) == 1, set(refusals)
    assert refusals[0].told == ("UNAUTHENTICATED", "CREDENTIALS_REFUSED", "")
    reasons = [line["reason"] for line in log if line["event"] == "call refused"]
    assert len(reasons) == len(attempts)
    assert len(set(reasons)) >= 10
    assert user.is_known(good)


@contextmanager
def logging_as(form: str) -> Iterator[io.StringIO]:
    """Log as the server's own process does, but into memory."""
    root, configured = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers[:], root.level
    try:
        with redirect_stderr(io.StringIO()) as stderr:
            set_up_logging(form, "debug")
            yield stderr
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.configure(**configured)


@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.parametrize(
    "evil",
    ["x\n2026-01-01 [info] logged in user=admin\r\t", "x\x1b[2K\x07\x00\x7f\x85\u2028\u202e"],
    ids=["lines", "control"],
)
def test_O3_no_line_break_or_control_character_of_a_caller_reaches_the_log(
    house: House, form: str, evil: str
) -> None:
    """Neither a user name nor a claim, verified or not, brings one into the log."""
    user = Person(house, "evil", house.client("evil"))
    with logging_as(form) as stderr:
        request = tokens_pb.LoginRequest(user_name=evil, password="x")
        user.refused("Login", request, "")
        user.refused("WhoAmI", tokens_pb.WhoAmIRequest(), house.forge.token("other", sub=evil))
        verified = house.forge.token(user.client.thumbprint, sub=evil, roles=[])
        user.refused("ListUsers", users_pb.ListUsersRequest(), verified)
    logged = stderr.getvalue()
    assert "logged in user=admin" in logged or "[2K" in logged, "the claim is there, escaped"
    assert logged.count("\n") == 3
    assert [c for c in logged if c != "\n" and not c.isprintable()] == []


class Story:
    """Everything that others could read: responses, errors, logs; and the secrets."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.secrets: dict[str, str] = {}

    def secret(self, what: str, text: str) -> str:
        self.secrets[f"{what} {len(self.secrets)}"] = text
        return text

    def keep(self, tokens: tokens_pb.Tokens) -> tokens_pb.Tokens:
        if tokens.refresh_token:
            self.secret("refresh token", tokens.refresh_token)
        self.secret("access token", tokens.access_token)
        self.secret("signature", tokens.access_token.rpartition(".")[2])
        return tokens

    def refused(self, call: Callable[..., object], *arguments: object) -> Refused:
        with pytest.raises(grpc.RpcError) as caught:
            call(*arguments)
        error = caught.value
        self.told += [repr(error), str(error), error.debug_error_string()]
        self.told += [repr(error.initial_metadata()), repr(error.trailing_metadata())]
        return described(error)

    def read(self, message: object) -> None:
        self.told += [str(message), repr(message), repr(message.SerializeToString())]

    def leaks(self) -> list[str]:
        everything = "\n".join(self.told)
        return [what for what, text in self.secrets.items() if text in everything]


@pytest.mark.parametrize("form", ["json", "text"])
def test_U29_no_secret_is_told_or_logged_from_the_first_log_in_to_a_broken_database(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Passwords, tokens, hashes and the signing key, through every method and every log."""
    story = Story()
    with (
        logging_as(form) as stderr,
        running_house(tmp_path, '[http]\nlisten = "127.0.0.1:0"\n') as house,
    ):
        _live(house, story, monkeypatch)
        with urllib.request.urlopen(
            f"http://{house.server.http_address}/metrics", timeout=DEADLINE
        ) as page:
            story.told.append(page.read().decode())
    logged = stderr.getvalue()
    for expected in (
        "logged in",
        "refresh refused",
        "call refused",
        "a servicer raised",
        "the store failed",
    ):
        assert expected in logged
    story.told.append(logged)
    assert len(story.secrets) > 20
    assert story.leaks() == []
    story.told.append(next(iter(story.secrets.values())))
    assert len(story.leaks()) == 1, "a leak would be found"


def _live(house: House, story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    admin = administrator(house, story.keep(house.first_log_in()).access_token)
    story.secret("password", PASSWORD)
    initial = story.secret("password", "initial " + uuid.uuid4().hex)
    chosen = story.secret("password", "chosen " + uuid.uuid4().hex)
    wrong = story.secret("password", "wrong " + uuid.uuid4().hex)
    later = story.secret("password", "later " + uuid.uuid4().hex)
    stream, watching = admin.watch()
    story.read(watching)
    story.read(admin.create("ada", initial))
    ada = Person(house, "ada", house.client("ada"))

    def login(user: str, password: str, new: str = "") -> tokens_pb.Tokens:
        request = tokens_pb.LoginRequest(user_name=user, password=password, new_password=new)
        return ada.do("Login", request, "")

    story.refused(login, "ada", initial)
    story.refused(login, "ada", wrong)
    story.refused(login, wrong, "x")  # typed into the wrong field
    story.refused(login, "ada", wrong * 40)
    first = ada.tokens = story.keep(login("ada", initial, chosen))
    story.refused(login, "ada", initial, later)
    story.refused(login, "ada", chosen, later)
    second = story.keep(ada.refresh(first))
    story.keep(ada.refresh(first))  # repeated, as if the answer had been lost
    third = story.keep(ada.refresh(second))
    story.refused(ada.refresh, first)
    story.refused(ada.refresh, third)
    story.refused(ada.me, second.access_token)
    ada.tokens = story.keep(login("ada", chosen))
    story.refused(ada.me, ada.tokens.refresh_token)
    story.refused(ada.refresh, ada.tokens.access_token)
    change = users_pb.ChangePasswordRequest(name="users/ada", new_password=later)
    story.refused(ada.do, "ChangePassword", change)
    change.current_password = wrong
    story.refused(ada.do, "ChangePassword", change)
    change.current_password = chosen
    story.read(ada.do("ChangePassword", change))
    story.read(ada.me())
    story.read(ada.get())
    story.read(admin.update("ada", ["display_name"], display_name="Ada"))
    story.read(admin.do("ListUsers", users_pb.ListUsersRequest()))
    bad_rows = [
        users_pb.CreateUserRequest(user_id="ada", password=wrong),
        users_pb.CreateUserRequest(user_id="Bad Name", password=wrong),
        users_pb.CreateUserRequest(user_id="long", password=wrong * 40),
        users_pb.CreateUserRequest(user_id="wrong", password=wrong),  # the name is in it
    ]
    story.read(admin.do("ImportUsers", rows(*bad_rows)))
    for token in (ada.tokens.access_token, second.access_token, ada.tokens.refresh_token):
        request = tokens_pb.IntrospectRequest(token=token)
        for answer in admin.do("Introspect", iter([request])):
            story.read(answer)
    stolen = tokens_pb.RevokeTokenRequest(token=admin.tokens.access_token)
    story.refused(ada.do, "RevokeToken", stolen)
    elsewhere = Person(house, "eve", house.client("eve"))
    story.refused(elsewhere.me, ada.tokens.access_token)
    story.refused(elsewhere.refresh, ada.tokens.refresh_token)
    story.refused(ada.me)
    story.read(next(stream))
    story.read(next(stream))
    stream.cancel()
    _add_what_the_server_keeps(house, story)
    with monkeypatch.context() as patch:
        patch.setattr(Issuer, "issue", lambda *_, **__: 1 / 0)
        with pytest.raises(grpc.RpcError) as caught:
            login("ada", later)
        story.told.append(repr(caught.value))

    with sqlite3.connect(house.root / "store.db") as connection:
        connection.execute("DROP TABLE sessions")
    connection.close()
    assert story.refused(login, "ada", later).code == "UNAVAILABLE"
    assert story.refused(ada.refresh, first).code == "UNAVAILABLE"


def _add_what_the_server_keeps(house: House, story: Story) -> None:
    with sqlite3.connect(house.root / "store.db") as connection:
        hashes = connection.execute("SELECT password_hash FROM users").fetchall()
    connection.close()
    for (stored,) in hashes:
        story.secret("password hash", stored)
        story.secret("password hash", stored.rpartition("$")[2])
    pem = house.config.tokens.signing_key.read_bytes()
    key = load_pem_private_key(pem, None)
    scalar = key.private_numbers().private_value
    story.secret("signing key", str(scalar))
    story.secret("signing key", f"{scalar:x}")
    story.secret("signing key", base64.urlsafe_b64encode(scalar.to_bytes(32)).decode()[:43])
    story.secret("signing key", pem.decode().partition("KEY-----\n")[2].splitlines()[0])


def test_U29_what_the_server_hands_around_has_no_secret_in_its_repr(
    house: House, admin_token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor has an error: reprs appear in tracebacks and in debuggers' logs."""
    built: list[object] = []
    monkeypatch.setattr(Sessions, "open", _spy(built, Sessions.open))
    monkeypatch.setattr(Sessions, "rotate", _spy(built, Sessions.rotate))
    monkeypatch.setattr(Issuer, "issue", _spy(built, Issuer.issue))
    monkeypatch.setattr(records, "find", _spy(built, records.find))
    monkeypatch.setattr(Core, "admit", _spy(built, Core.admit))

    user = newcomer(house, admin_token)
    tokens = user.refresh(user.tokens)
    principal = user.me(tokens.access_token) and built[-1].principal
    built += [AuditEvent("m", allowed=True, principal=principal), house.server]
    kinds = {type(one) for one in built}
    assert {Session, AccessToken, records.Record, Caller} <= kinds
    texts = [f"{one!r} {one}" for one in built]
    for secret in (PASSWORD, tokens.access_token, tokens.refresh_token, "$argon2id"):
        assert not [text for text in texts if secret in text]


def _spy(built: list[object], real):
    def spy(*arguments: object, **options: object) -> object:
        result = real(*arguments, **options)
        built.append(result)
        return result

    return spy
