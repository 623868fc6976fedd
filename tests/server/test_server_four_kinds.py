"""The service behind its guard, over real TLS: each of the four kinds, served and refused."""

import threading
from collections.abc import Iterator

import grpc
import pytest

from support.house import KINDS, House, bearer, call


@pytest.mark.parametrize("kind", KINDS)
def test_a_good_token_over_its_certificate_is_served(
    house: House, admin_token: str, kind: str
) -> None:
    outcome = call(house.channel(house.admin), kind, bearer(admin_token))
    assert outcome.served, outcome
    assert len(outcome.responses) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_token_the_refusal_comes_at_once_even_to_a_silent_caller(
    house: House, kind: str
) -> None:
    never = threading.Event()

    def silent() -> Iterator[bytes]:
        never.wait()
        yield b""

    try:
        outcome = call(house.channel(house.admin), kind, silent=silent(), timeout=10)
    finally:
        never.set()
    assert outcome.code is grpc.StatusCode.UNAUTHENTICATED
    assert outcome.reason == "CREDENTIALS_REFUSED"
