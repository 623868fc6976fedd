"""Which credentials of a plug-in's authenticator can be revoked."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from secure_server.auth import ANONYMOUS, Authenticators, Principal
from secure_server.auth.local_issuer import LocalIssuerAuthenticator
from secure_server.auth.plugin import LocalIssuer
from secure_server.services.revocable import NotRevocableError, Revocable

GOOD = Principal(
    subject="alice", issuer="https://acme", authenticator="acme", token_id="t", expires_at=1000.0
)


@pytest.fixture
def revocable() -> Revocable:
    own = LocalIssuer("https://us", "us", lambda _key_id: None)
    return Revocable(LocalIssuerAuthenticator("jwt", own, time.time), Authenticators([]))


def test_a_token_with_issuer_id_and_end_is_revocable_until_then(revocable: Revocable) -> None:
    assert revocable.end_of_caller(GOOD) == 1000.0


@pytest.mark.parametrize(
    ("caller", "told"),
    [
        (ANONYMOUS, "no token"),
        (replace(GOOD, token_id=""), "no ID"),
        (replace(GOOD, issuer=""), "no ID"),
        (replace(GOOD, expires_at=None), "no end"),
    ],
    ids=["anonymous", "no ID", "no issuer", "no end"],
)
def test_M14_a_caller_without_one_of_these_is_told_so(
    revocable: Revocable, caller: Principal, told: str
) -> None:
    with pytest.raises(NotRevocableError, match=told):
        revocable.end_of_caller(caller)


def test_M14_the_longest_life_of_unknown_issuers_tokens_is_not_known(revocable: Revocable) -> None:
    assert revocable.lifetime_of("https://us") == 3600.0
    with pytest.raises(NotRevocableError, match="ID alone"):
        revocable.lifetime_of("https://acme")
