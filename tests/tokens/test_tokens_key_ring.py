"""The life of a signing key, by an injected clock: published, signs, verifies, gone."""

from __future__ import annotations

import base64

import jwt
import pytest

from secure_server.tokens.key_ring import VERIFIES_FOR, KeyRing, KeyState
from secure_server.tokens.signing_key import SigningKey, SigningKeyError

START = 1_000_000
DAY = 86_400


@pytest.fixture
def ring() -> KeyRing:
    return KeyRing([SigningKey.generate(START, START)], START)


def states(ring: KeyRing) -> dict[str, KeyState]:
    return {entry.key.key_id: entry.state for entry in ring.entries}


def kid(token: str) -> str:
    return str(jwt.get_unverified_header(token)["kid"])


def published(ring: KeyRing) -> set[str]:
    return {jwk["kid"] for jwk in ring.public_jwks()}


def test_K6_a_key_is_published_then_signs_then_verifies_then_is_gone(ring: KeyRing) -> None:
    first = ring.key_id
    rotated = ring.rotated(START + DAY, 600)
    assert rotated.next is not None
    second = rotated.next.key_id

    for moment in (DAY, DAY + 599.9):
        now = rotated.at(START + moment)
        assert states(now) == {second: KeyState.NEXT, first: KeyState.SIGNING}
        assert published(now) == set(now.keys) == {first, second}
        assert kid(now.sign({})) == first

    for moment in (DAY + 600, DAY + 600 + VERIFIES_FOR - 0.1):
        now = rotated.at(START + moment)
        assert states(now) == {second: KeyState.SIGNING, first: KeyState.VERIFYING}
        assert published(now) == set(now.keys) == {first, second}
        assert kid(now.sign({})) == second
        assert now.next is None
        assert not now.has_dead_keys

    for moment in (DAY + 600 + VERIFIES_FOR, 400 * DAY):
        now = rotated.at(START + moment)
        assert states(now) == {second: KeyState.SIGNING}
        assert published(now) == set(now.keys) == {second}
        assert now.has_dead_keys


def test_K8_a_key_verifies_for_the_longest_token_that_there_can_be_and_its_leeway() -> None:
    assert VERIFIES_FOR == 3600 + 10


def test_since_and_until_follow_each_other_without_a_gap(ring: KeyRing) -> None:
    rotated = ring.rotated(START + 100, 600)
    (following, signing) = rotated.entries
    assert (following.since, following.until) == (START + 100, START + 700)
    assert (signing.since, signing.until) == (START, START + 700)
    (now_signing, verifying) = rotated.at(START + 700).entries
    assert (now_signing.since, now_signing.until) == (START + 700, None)
    assert (verifying.since, verifying.until) == (START + 700, START + 700 + VERIFIES_FOR)


def test_a_ring_is_itself_until_the_clock_changes_it(ring: KeyRing) -> None:
    rotated = ring.rotated(START, 600)
    assert rotated.at(START + 599) is rotated
    assert rotated.at(START + 600) is not rotated
    assert ring.at(START + 1000 * DAY) is ring


def test_a_key_that_signs_at_once_takes_the_place_of_one_that_was_to_sign_next(
    ring: KeyRing,
) -> None:
    """In an emergency the waiting key is as stolen as the one that signs: they lie in one file."""
    waiting = ring.rotated(START, 600)
    assert waiting.next is not None
    at_once = waiting.rotated(START + 10, 0)
    assert waiting.next.key_id not in at_once.keys
    assert states(at_once) == {at_once.key_id: KeyState.SIGNING, ring.key_id: KeyState.VERIFYING}
    assert at_once.key_id != ring.key_id


def test_rotations_in_one_second_all_count_and_the_last_signs(ring: KeyRing) -> None:
    rings = [ring]
    for _ in range(3):
        rings.append(rings[-1].rotated(START, 0))
    ids = [each.key_id for each in rings]
    assert len(set(ids)) == 4
    assert list(states(rings[-1])) == ids[::-1]


@pytest.mark.parametrize("publishing", [0, 600])
def test_a_clock_that_was_set_back_leaves_a_key_that_signs_and_can_be_rotated(
    ring: KeyRing, publishing: int
) -> None:
    early = ring.at(START - 30 * DAY)
    assert kid(early.sign({})) == ring.key_id
    rotated = early.rotated(START - 30 * DAY, publishing)
    assert rotated.key_id == ring.key_id if publishing else rotated.key_id != ring.key_id
    assert rotated.at(START - 30 * DAY + publishing).key_id != ring.key_id
    assert ring.key_id in rotated.keys


def test_there_are_never_more_keys_than_a_verifier_takes(ring: KeyRing) -> None:
    for _ in range(89):
        ring = ring.rotated(START, 0)
    assert len(ring.public_jwks()) == 90
    with pytest.raises(SigningKeyError, match=r"There are 90 keys .* ends at \d\d:\d\d:\d\d UTC"):
        ring.rotated(START, 0)
    assert len(ring.rotated(START + VERIFIES_FOR, 0).entries) == 2


def test_the_public_half_is_public_and_no_repr_holds_more(ring: KeyRing) -> None:
    (jwk,) = ring.public_jwks()
    assert set(jwk) == {"kty", "crv", "x", "y", "kid", "use", "alg"}
    scalar = ring.signing.private_key.private_numbers().private_value
    texts = [repr(each) for each in (ring, ring.signing, ring.entries, ring.keys)]
    secrets = [str(scalar), f"{scalar:x}", base64.b64encode(scalar.to_bytes(32)).decode()[:20]]
    assert not [text for text in texts for secret in secrets if secret in text]
    assert repr(ring) == f"KeyRing(key_id={ring.key_id!r}, keys=1)"
