"""The plug-in's own tests, with ``secure_server.testing``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from acme_sso import ACME_SSO, SCHEME, read_keys, sign

from secure_server import current_principal
from secure_server.plugins import AuthenticatorContext, AuthenticatorError
from secure_server.testing import Issuer, aio_guarded_server, guarded_server
from secure_tls import parse_peer

SECRET = "a-secret-of-forty-three-characters-or-more-x"  # noqa: S105 - used in this test only
KEYS = f"""\
[keys.ci]
secret = "{SECRET}"
owner = "robots/ci"
roles = ["robot"]
scopes = ["read"]
"""
POLICY = {
    "name": "acme",
    "allow_rules": [{"name": "known", "source": {"request_principals": ["*"]}}],
}
NOW = int(time.time())


def who(_request: bytes, _context: Any) -> bytes:
    caller = current_principal()
    return f"{caller.authenticator} {caller.subject} {[*caller.roles, *caller.scopes]}".encode()


async def who_async(request: bytes, context: Any) -> bytes:
    return who(request, context)


class Door:
    """A guarded server of either stack, and the clock that it reads."""

    now = float(NOW)

    def __init__(self, server: Any, runner: asyncio.Runner | None) -> None:
        self.server = server
        self.runner = runner

    def sign(self, timestamp: int = NOW, **other: Any) -> str:
        """Sign as ``ci`` for the client ``alice``, unless told otherwise."""
        certificate = self.server.client(other.pop("client", "alice")).certificate_pem
        signed = {"key_id": "ci", "secret": SECRET, "timestamp": timestamp} | other
        return sign(thumbprint=parse_peer(certificate).thumbprint, **signed)

    def ask(self, authorization: str, over: str = "alice") -> str:
        """Return who was recognised, or the true reason of the refusal, from audit."""
        try:
            if self.runner is None:
                return self._call(over, authorization).decode()
            return self.runner.run(self._call_async(over, authorization)).decode()
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAUTHENTICATED:
                raise
            return self.server.audit[-1].code

    def _call(self, over: str, authorization: str) -> Any:
        call = self.server.channel(over, token=False).unary_unary("/acme.Probe/Who")
        return call(b"", metadata=(("authorization", authorization),), timeout=10)

    async def _call_async(self, over: str, authorization: str) -> Any:
        return await self._call(over, authorization)


@contextmanager
def opened(stack: str, file: Path) -> Iterator[Door]:
    handler = who if stack == "threads" else who_async

    def add_servicers(server: Any) -> None:
        methods = {"Who": grpc.unary_unary_rpc_method_handler(handler)}
        server.add_registered_method_handlers("acme.Probe", methods)

    settings: dict[str, Any] = {
        "policy": POLICY,
        "authenticators": [{"type": ACME_SSO, "name": "acme-sso", "file": file}],
        "issuer": Issuer(clock=lambda: Door.now),
    }
    if stack == "threads":
        with guarded_server(add_servicers, **settings) as server:
            yield Door(server, None)
        return
    with asyncio.Runner() as runner:
        context = aio_guarded_server(add_servicers, **settings)
        yield Door(runner.run(context.__aenter__()), runner)
        runner.run(context.__aexit__(None, None, None))


def write(folder: Path, text: str, mode: int = 0o600) -> Path:
    file = folder / "keys.toml"
    file.write_text(text)
    file.chmod(mode)
    return file


@pytest.fixture(scope="module", params=["threads", "asyncio"])
def door(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with opened(request.param, write(tmp_path_factory.mktemp("acme"), KEYS)) as door:
        yield door


@pytest.fixture(autouse=True)
def at(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that sets the clock, in seconds from now."""
    return lambda seconds: monkeypatch.setattr(Door, "now", NOW + seconds)


def test_a_signature_over_the_callers_own_certificate_is_recognised(door: Door) -> None:
    for _ in range(2):  # the second is remembered
        assert door.ask(door.sign()) == "acme-sso robots/ci ['robot', 'read']"
    assert door.ask(door.sign(client="bob"), over="bob").startswith("acme-sso robots/ci")
    assert door.ask(door.sign().replace(SCHEME, "acme-HMAC")).startswith("acme-sso")


def changed(position: int, by: str) -> Any:
    """Return a function that replaces one part of a good credential."""

    def change(door: Door) -> str:
        parts = door.sign().removeprefix(f"{SCHEME} ").split(":")
        parts[position] = by.format(*parts)
        return f"{SCHEME} {':'.join(parts)}"

    return change


WRONG = {
    "signed_with_another_secret": ("signature", lambda door: door.sign(secret=SECRET[::-1])),
    "signed_for_another_certificate": ("signature", lambda door: door.sign(client="mallory")),
    "by_a_key_that_is_none": ("acme_key", lambda door: door.sign(key_id="gone")),
    "too_old": ("expired", lambda door: door.sign(NOW - 3600)),
    "from_the_future": ("clock", lambda door: door.sign(NOW + 3600)),
    "with_a_fresher_timestamp": ("signature", changed(1, str(NOW + 1))),
    "with_the_empty_signature": ("malformed", changed(2, "")),
    "with_a_padded_signature": ("malformed", changed(2, "{2}=")),
    "with_a_longer_signature": ("malformed", changed(2, "{2}A")),
    "with_a_key_id_of_a_path": ("malformed", changed(0, "../ci")),
    "with_a_timestamp_of_words": ("malformed", changed(1, "0x65f00000")),
    "without_a_timestamp": ("malformed", lambda _: f"{SCHEME} ci:" + "A" * 43),
    "as_a_bearer_token": ("unclaimed", lambda door: door.sign().replace(SCHEME, "Bearer")),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_refused_and_audit_has_its_name(door: Door, name: str) -> None:
    code, make = WRONG[name]
    assert door.ask(make(door)) == code


def test_a_recorded_credential_is_worthless_over_another_connection(door: Door) -> None:
    recorded = door.sign()
    assert door.ask(recorded).startswith("acme-sso")
    assert door.ask(recorded, over="mallory") == "signature"
    assert door.server.audit[-1].unverified == {"sub": "robots/ci"}
    assert recorded.rpartition(":")[2] not in repr(door.server.audit)


def test_another_spelling_of_the_same_bytes_is_not_the_signature(door: Door) -> None:
    """The last of 43 characters has two unused bits."""
    good = door.sign()
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    twin = good[:-1] + alphabet[alphabet.index(good[-1]) + 1]
    assert door.ask(good).startswith("acme-sso")
    assert door.ask(twin) == "signature"


@pytest.mark.parametrize(
    ("seconds", "outcome"),
    [(-60.5, "clock"), (-60, "acme-sso"), (0, "acme-sso"), (59.9, "acme-sso"), (60, "expired")],
)
def test_a_credential_is_good_for_a_minute_around_the_clock(
    door: Door, at: Any, seconds: float, outcome: str
) -> None:
    at(seconds)
    client = f"edge-{seconds + 100}"  # a new client each time: no earlier result is cached for it
    assert door.ask(door.sign(client=client), over=client).startswith(outcome)


def test_who_was_recognised_is_forgotten_when_the_credential_ends(door: Door, at: Any) -> None:
    authorization = door.sign(NOW - 1)
    at(58.9)
    assert door.ask(authorization).startswith("acme-sso")
    at(59)
    assert door.ask(authorization) == "expired"


def test_the_signature_is_what_openssl_makes_of_it() -> None:
    """printf ci:1700000000:dGh1bWJwcmludA | openssl dgst -sha256 -hmac SECRET -binary | basenc …"""
    expected = "D82aXXi2U9NAOxbqFb-0gS1yyNFfeXwgDveWZq0ArdA"
    assert sign("ci", SECRET, "dGh1bWJwcmludA", 1_700_000_000) == (
        f"ACME-HMAC ci:1700000000:{expected}"
    )


@pytest.mark.parametrize(
    ("text", "mode", "reason"),
    [
        (KEYS, 0o640, "others can read the secrets: chmod 600 "),
        (KEYS, 0o604, "others can read the secrets: chmod 600 "),
        ("[keys\n", 0o600, "not TOML: "),
        ("\xff", 0o600, "not TOML: "),
        ("", 0o600, "keys is wrong: Field required."),
        (KEYS.replace(SECRET, SECRET[:42]), 0o600, "keys.ci.secret is wrong: "),
        (KEYS.replace("owner", "ownr"), 0o600, "keys.ci.owner is wrong: Field required."),
        (KEYS.replace("[keys.ci]", "[keys.'a b']"), 0o600, "keys.a b."),
        (KEYS + "until = 3\n", 0o600, "keys.ci.until is wrong: "),
    ],
)
def test_a_file_that_cannot_be_used_says_why_and_keeps_its_secrets(
    tmp_path: Path, text: str, mode: int, reason: str
) -> None:
    file = write(tmp_path, "", mode)
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(AuthenticatorError) as refused:
        read_keys(file)
    assert str(refused.value).startswith(f"{file}: {reason}")
    assert SECRET[:42] not in str(refused.value)


def test_without_the_file_nothing_starts(tmp_path: Path) -> None:
    with pytest.raises(AuthenticatorError, match=r"keys\.toml: cannot be read: No such file"):
        read_keys(tmp_path / "keys.toml")


def test_check_says_what_is_accepted(tmp_path: Path) -> None:
    settings = ACME_SSO.settings(file=write(tmp_path, KEYS))
    authenticator = ACME_SSO.build(settings, AuthenticatorContext("acme-sso", time.time))
    assert authenticator.check() == (
        f"ACME-HMAC signatures with the keys ci out of {tmp_path / 'keys.toml'}, for 60 seconds, "
        "over the certificate that was signed"
    )
    assert SECRET not in repr(read_keys(settings.file))


@pytest.mark.parametrize("stack", ["threads", "asyncio"])
def test_the_file_is_reloaded_while_the_server_runs(tmp_path: Path, stack: str) -> None:
    with opened(stack, write(tmp_path, KEYS)) as door:
        authorization = door.sign()
        assert door.ask(authorization).startswith("acme-sso")
        write(tmp_path, KEYS.replace("[keys.ci]", "[keys.another]"))
        end = time.monotonic() + 10
        while door.ask(authorization) != "acme_key":
            assert time.monotonic() < end
