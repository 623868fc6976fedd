"""JSON Web Tokens (group J) on the asyncio stack: each defect, and the caches around them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from support.door import Door, ask, open_door
from support.forge import REMOVE, Forge, b64, parts
from support.probe import KINDS, STYLES

ASYNCIO = [style for style in STYLES if style.startswith("aio")]
UA, OK = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.OK

Defect = Callable[[Forge, str], str]


def header(**changes: Any) -> Defect:
    return lambda forge, thumbprint: forge.token(thumbprint, changes)


def claims(**changes: Any) -> Defect:
    return lambda forge, thumbprint: forge.token(thumbprint, **changes)


def _stripped(forge: Forge, thumbprint: str) -> str:
    return forge.token(thumbprint, {"alg": "none"}).rpartition(".")[0] + "."


def _hmac_by_public_key(forge: Forge, thumbprint: str) -> str:
    public = forge.key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    first = b64(json.dumps(forge.header(alg="HS256")).encode())
    second = b64(json.dumps(forge.claims(thumbprint)).encode())
    signature = hmac.digest(public, f"{first}.{second}".encode(), "sha256")
    return f"{first}.{second}.{b64(signature)}"


def _brings_its_key(forge: Forge, thumbprint: str) -> str:
    mine = ec.generate_private_key(ec.SECP256R1())
    jwk = jwt.get_algorithm_by_name("ES256").to_jwk(mine.public_key(), as_dict=True)
    return forge.token(thumbprint, {"jwk": jwk}, key=mine)


def _five_parts(forge: Forge, thumbprint: str) -> str:
    first, second, third = forge.token(thumbprint).split(".")
    return f"{first}.AAAA.AAAA.{second}.{third}"


def _text_for_a_date(forge: Forge, thumbprint: str) -> str:
    payload = json.dumps(forge.claims(thumbprint, exp=123456789))
    return forge.sign(forge.header(), payload.replace("123456789", '"9999999999"').encode())


def _duplicate_member(forge: Forge, thumbprint: str) -> str:
    payload = json.dumps(forge.claims(thumbprint))[:-1] + ', "sub": "users/admin"}'
    return forge.sign(forge.header(), payload.encode())


def _no_signature(forge: Forge, thumbprint: str) -> str:
    return f"{forge.token(thumbprint).rpartition('.')[0]}.{b64(bytes(64))}"


def _flipped_bit(forge: Forge, thumbprint: str) -> str:
    token = forge.token(thumbprint)
    raw = parts(token)[2]
    return f"{token.rpartition('.')[0]}.{b64(raw[:-1] + bytes([raw[-1] ^ 1]))}"


def _lifetime(forge: Forge, thumbprint: str) -> str:
    now = int(time.time())
    return forge.token(thumbprint, iat=now, exp=now + 3601)


DEFECTS: dict[str, Defect] = {
    "J1 alg none": header(alg="none"),
    "J1 alg none, no signature": _stripped,
    "J2 HMAC by the public key": _hmac_by_public_key,
    "J4 another alg": header(alg="ES384"),
    "J5 its own key": _brings_its_key,
    "J5 jku": header(jku="https://127.0.0.1:1/keys", kid="mine"),
    "J6 unknown crit": header(crit=["made-up"]),
    "J7 b64": header(b64=False, crit=["b64"]),
    "J8 five parts": _five_parts,
    "J9 typ": header(typ="JWT"),
    "J10 no exp": claims(exp=REMOVE),
    "J10 no jti": claims(jti=REMOVE),
    "J11 exp is a text": _text_for_a_date,
    "J12 lifetime": _lifetime,
    "J13 expired": claims(iat=1000, exp=2000),
    "J14 nbf": lambda forge, thumbprint: forge.token(thumbprint, nbf=int(time.time()) + 60),
    "J15 aud": claims(aud="other"),
    "J16 iss": claims(iss="https://issuer/"),
    "J18 duplicate member": _duplicate_member,
    "J19 deep": lambda forge, _thumbprint: forge.sign(forge.header(), b"[" * 2000 + b"]" * 2000),
    "J20 zeros for a signature": _no_signature,
    "J20 flipped bit": _flipped_bit,
    "J22 kid": header(kid="../../etc/passwd"),
    "J24 another certificate": lambda forge, _thumbprint: forge.token(
        b64(hashlib.sha256(b"other").digest())
    ),
    "J24 bound to nothing": claims(cnf=REMOVE),
    "J26 scope": claims(scope="a  b"),
    "no token at all": lambda _forge, _thumbprint: base64.b64encode(b"token").decode(),
}


@pytest.fixture(scope="module", params=ASYNCIO)
def shared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Door]:
    with open_door(tmp_path_factory.mktemp("door"), style=request.param) as door:
        yield door


@pytest.fixture
def door(shared: Door) -> Door:
    shared.probe.reset()
    shared.events.clear()
    return shared


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_token_with_a_defect_is_refused_cold_and_warm(door: Door, defect: str) -> None:
    """Alike on each kind, each time; the same with one good claim more or less is served."""
    token = DEFECTS[defect](door.forge, door.thumbprint)
    channel = door.channel()
    for kind in KINDS:
        refused = ask(channel, kind, f"Bearer {token}")
        assert refused.code is UA, (kind, refused)
        assert refused.details == "The credentials of this call were refused."
        assert (refused.responses, door.probe.parsed, door.probe.callers) == ([], [], [])
        (event,) = door.events
        assert not event.allowed
        assert event.principal.is_anonymous
        assert token not in repr(event)
        door.events.clear()
        assert ask(channel, kind, f"Bearer {door.token()}").code is OK
        door.probe.reset()
        door.events.clear()


@pytest.mark.parametrize("style", ASYNCIO)
def test_J13_a_cached_caller_ends_with_the_token(tmp_path: Path, style: str) -> None:
    """Also where the event loop answers from the cache."""
    now = time.time()
    moment = [now]
    with open_door(tmp_path, style=style, clock=lambda: moment[0]) as door:
        token = door.token(iat=int(now), exp=int(now) + 300)
        channel = door.channel()
        for seconds, code in ((0, OK), (299, OK), (int(now) - now + 310.5, UA)):
            moment[0] = now + seconds
            for kind in KINDS:
                assert ask(channel, kind, f"Bearer {token}").code is code, seconds


@pytest.mark.parametrize("style", ASYNCIO)
def test_a_warm_token_over_another_certificate_is_refused(tmp_path: Path, style: str) -> None:
    with open_door(tmp_path, style=style) as door:
        token = f"Bearer {door.token()}"
        thief = door.channel(door.authority.issue_client("thief"))
        for kind in KINDS:
            assert ask(door.channel(), kind, token).code is OK
            assert ask(thief, kind, token).code is UA


@pytest.mark.parametrize("style", ASYNCIO)
def test_good_and_bad_tokens_at_once(tmp_path: Path, style: str) -> None:
    with open_door(tmp_path, style=style) as door, ThreadPoolExecutor(16) as pool:
        channel = door.channel()
        good = [door.token(sub=f"users/{number}") for number in range(4)]
        bad = [_flipped_bit(door.forge, door.thumbprint), door.token(exp=2000, iat=1000)]

        def one(number: int) -> bool:
            is_good = number % 3 > 0
            token = (good if is_good else bad)[number % 2]
            answered = ask(channel, KINDS[number % 4], f"Bearer {token}")
            return answered.code is (OK if is_good else UA)

        assert all(pool.map(one, range(240)))
        assert {caller.principal.subject for caller in door.probe.callers} <= {
            f"users/{number}" for number in range(4)
        }
