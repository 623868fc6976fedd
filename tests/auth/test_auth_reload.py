"""A secret and the authorities of an issuer, rotated while the server runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from auth_door import STACKS, guarded, introspection, oidc

from secure_server.auth.api_keys import API_KEYS
from secure_server.auth.introspection import INTROSPECTION
from secure_server.auth.oidc import OIDC
from secure_server.auth.plugin import AuthenticatorContext, build
from secure_server.testing import Provider, running_provider
from secure_server.testing.provider import KEYS, page
from secure_tls.authority import Authority
from support.door import wait_until


@pytest.fixture
def provider() -> Iterator[Provider]:
    """One of its own: it is given another certificate."""
    with running_provider() as running:
        yield running


@pytest.mark.parametrize("stack", STACKS)
def test_a_new_secret_is_used_for_the_next_question(
    provider: Provider, tmp_path: Path, stack: str
) -> None:
    table = introspection(provider, tmp_path)
    tokens = [provider.opaque(f"opaque-{number}") for number in range(3)]
    with guarded(stack, table) as door:
        assert door.ask(f"Bearer {tokens[0]}")[0] == "OK"
        provider.client_secret = "another-secret"
        assert door.ask(f"Bearer {tokens[1]}")[0] == "UNAVAILABLE"
        table["client_secret_file"].write_text("another-secret\n")
        assert door.ask(f"Bearer {tokens[1]}")[0] == "OK"
        # After an unusable one the last good one stays.
        table["client_secret_file"].chmod(0o644)
        assert door.ask(f"Bearer {tokens[2]}")[0] == "OK"


def replace_authorities(ca: Path, authority: Authority, door, source: str) -> None:
    """Write another bundle, and wait until it is the one that counts."""
    status = door.server._guard.reloads.statuses[source]
    before = status.succeeded_at
    ca.write_bytes(authority.certificate_pem)
    wait_until(lambda: status.succeeded_at > before)


@pytest.fixture
def ca(provider: Provider, tmp_path: Path) -> Path:
    path = tmp_path / "provider-ca.pem"
    path.write_bytes(provider.ca_file.read_bytes())
    return path


@pytest.mark.parametrize("stack", STACKS)
def test_new_authorities_of_an_introspection_endpoint_count_for_new_connections(
    provider: Provider, tmp_path: Path, ca: Path, stack: str
) -> None:
    successor = Authority.create("example.org")
    tokens = [provider.opaque(f"opaque-{number}") for number in range(3)]
    with guarded(stack, introspection(provider, tmp_path, ca=ca)) as door:
        assert door.ask(f"Bearer {tokens[0]}")[0] == "OK"
        replace_authorities(ca, successor, door, "ca introspection")
        assert door.ask(f"Bearer {tokens[1]}")[0] == "UNAVAILABLE", "the old one is trusted still"
        provider.renew(successor)
        assert door.ask(f"Bearer {tokens[1]}")[0] == "OK"
        connections = provider.connections
        assert door.ask(f"Bearer {tokens[2]}")[0] == "OK"
        assert provider.connections == connections, "connections are kept"


@pytest.mark.parametrize("stack", STACKS)
def test_new_authorities_of_an_openid_provider_count_for_new_connections(
    provider: Provider, ca: Path, stack: str
) -> None:
    successor = Authority.create("example.org")
    with guarded(stack, oidc(provider, ca=ca)) as door:
        old = provider.issuer.token(None)
        assert door.ask(f"Bearer {old}")[0] == "OK"
        provider.issuer.rotate()
        keys = door.member("oidc")._source._keys
        replace_authorities(ca, successor, door, "ca oidc")
        assert door.ask(f"Bearer {provider.issuer.token(None)}")[0] == "UNAVAILABLE"
        assert door.ask(f"Bearer {old}")[0] == "OK", "the last good keys stay"
        provider.renew(successor)
        keys._asked_at = float("-inf")  # the cooldown is over
        assert door.ask(f"Bearer {provider.issuer.token(None)}")[0] == "OK"


# callers that wait hold places, for their own request or another's


@pytest.mark.parametrize("kind", ["introspection", "keys"])
def test_a_call_that_waits_for_anothers_request_holds_a_place_too(
    provider: Provider, tmp_path: Path, kind: str
) -> None:
    """Half of the 32 threads may wait: further callers are refused at once as unavailable."""
    over = threading.Event()

    def late() -> Any:
        over.wait(20)
        return page({"active": False} if kind == "introspection" else {})

    table = introspection(provider, tmp_path) if kind == "introspection" else oidc(provider)
    with guarded("threads", table) as door, ThreadPoolExecutor(40) as pool:
        if kind == "introspection":
            provider.answers["/introspect"] = late
            token = provider.opaque("one-and-the-same")
        else:
            assert door.ask(f"Bearer {provider.issuer.token(None)}")[0] == "OK"
            provider.answers[KEYS] = late
            token = provider.issuer.token(None, defect="unknown_kid")
        waiting = [pool.submit(door.ask, f"Bearer {token}") for _ in range(24)]
        try:
            wait_until(lambda: sum(one.done() for one in waiting) == 8)
            assert {one.result()[0] for one in waiting if one.done()} == {"UNAVAILABLE"}
        finally:
            over.set()


def test_the_files_of_a_closed_authenticator_are_not_reloaded(
    provider: Provider, tmp_path: Path
) -> None:
    (tmp_path / "keys.json").write_text(provider.issuer.jwks())
    (tmp_path / "api-keys.toml").touch()
    kinds: list[tuple[Any, dict[str, Any]]] = [
        (OIDC, oidc(provider)),
        (OIDC, oidc(provider, key_set=tmp_path / "keys.json")),
        (INTROSPECTION, introspection(provider, tmp_path)),
        (API_KEYS, {"file": tmp_path / "api-keys.toml"}),
    ]
    for kind, table in kinds:
        table.pop("type", None)
        context = AuthenticatorContext("it", time.time)
        authenticator: Any = build(kind, kind.settings(**table), context)
        assert context.reloads.statuses
        authenticator.close()
        assert context.reloads.statuses == {}
        assert context.reloads._followed == []
