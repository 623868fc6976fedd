"""The cookbook of RFC 7520, sections 3 and 4, and RFC 8037's signature: we agree but for what is
listed.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from secure_server import AuthenticationError
from secure_server.auth import jws
from secure_server.auth.key_sets import KeySetError, parse_key_set
from secure_server.auth.keys import VerificationKey

VECTORS = Path(__file__).parents[1] / "vectors" / "rfc7520"
EXAMPLES = (*sorted(VECTORS.glob("jws/*.json")), VECTORS / "curve25519" / "jws.json")

HMAC = "No algorithm with a shared secret is accepted: a verifier could then sign."
PS384 = "Of RSASSA-PSS there is PS256 alone: a key has one algorithm, and PS384 is none of ours."
NO_KID = "A key without a `kid` is skipped: no token could name it."

REFUSALS = {HMAC: "it is a secret", PS384: "'PS384' is none of", NO_KID: "it has no `kid`"}

EXCEPTIONS = {
    "4_2.rsa-pss_signature #1": PS384,
    "4_4.hmac-sha2_integrity_protection #1": HMAC,
    "4_5.signature_with_detached_content #1": HMAC,
    "4_6.protecting_specific_header_fields #1": HMAC,
    "4_7.protecting_content_only #1": HMAC,
    "4_8.multiple_signatures #3": HMAC,
    "jws #1": NO_KID,
}
"""The signatures that are good and are not accepted. One without the key's `kid` is, with it."""

# What the payload of every example is: a sentence.
NO_CLAIMS = "The payload is not a JSON object with unique members."


class Signature(NamedTuple):
    """One signature of an example: some have more than one."""

    name: str
    algorithm: str
    jwk: dict[str, Any]
    signing_input: str
    text: str


def signatures() -> Iterator[Signature]:
    for path in EXAMPLES:
        example = json.loads(path.read_text())
        keys, algorithms = example["input"]["key"], example["input"]["alg"]
        signings = example["signing"]
        if isinstance(signings, dict):
            keys, algorithms, signings = [keys], [algorithms], [signings]
        for number, parts in enumerate(zip(keys, algorithms, signings, strict=True), 1):
            key, algorithm, signing = parts
            name = f"{path.stem} #{number}"
            yield Signature(name, algorithm, key, signing["sig-input"], signing["sig"])


SIGNATURES = tuple(signatures())


def public(jwk: dict[str, Any]) -> dict[str, Any]:
    return {name: jwk[name] for name in jwk if name not in {"d", "p", "q", "dp", "dq", "qi"}}


def key_of(jwk: dict[str, Any], algorithm: str) -> VerificationKey:
    """Read a key for one algorithm, which the cookbook's do not name. Raises ``KeySetError``."""
    document = json.dumps({"keys": [public(jwk)]}).encode()
    ((_, key),) = parse_key_set(document, "here", [algorithm])[0].items()
    return key


def verifies(one: Signature, jwk: dict[str, Any]) -> bool:
    signature = urlsafe_b64decode(one.text + "==")
    return key_of(jwk, one.algorithm).verifies(one.signing_input.encode(), signature)


@pytest.mark.parametrize("one", SIGNATURES, ids=lambda one: one.name)
def test_a_signature_of_the_cookbook_is_verified_by_its_key(one: Signature) -> None:
    reason = EXCEPTIONS.get(one.name)
    if reason is not None:
        with pytest.raises(KeySetError, match=REFUSALS[reason]):
            key_of(one.jwk, one.algorithm)
    if reason in {None, NO_KID}:
        jwk = one.jwk | {"kid": one.jwk.get("kid", "ours")}
        assert verifies(one, jwk)
        assert not verifies(one._replace(signing_input=one.signing_input[:-1] + "A"), jwk)
        assert not verifies(one._replace(text=one.text[:-4] + "AAAA"), jwk)


def test_all_signatures_ran_and_those_that_are_not_accepted_are_listed() -> None:
    assert len(EXAMPLES) == 9
    assert len(SIGNATURES) == 11
    assert {one.name for one in SIGNATURES} >= EXCEPTIONS.keys()
    assert sorted({one.algorithm for one in SIGNATURES if one.name not in EXCEPTIONS}) == [
        "ES512",
        "RS256",
    ]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_read_as_what_it_is(path: Path) -> None:
    """In the compact serialization the header and signature are read, and the payload refused for
    being a sentence; one whose payload is elsewhere, and the two JSON serializations, are no token.
    """
    example = json.loads(path.read_text())
    output = example["output"]
    for serialization in output.keys() - {"compact"}:
        assert serialization in {"json", "json_flat"}
        assert jws.parse(json.dumps(output[serialization])) is None
    compact = output.get("compact")
    if compact is None:
        assert path.stem[:3] in {"4_6", "4_7", "4_8"}
    elif path.stem.startswith("4_5"):
        assert jws.parse(compact) is None
    else:
        with pytest.raises(AuthenticationError) as refused:
            jws.parse(compact)
        assert str(refused.value) == NO_CLAIMS
        header, _, signature = compact.split(".")
        token = jws.parse(f"{header}.e30.{signature}")
        assert token is not None
        assert token.header == example["signing"]["protected"]
        assert token.signature == urlsafe_b64decode(signature + "==")


KEYS = {
    "3_1.ec_public_key": "",
    "3_2.ec_private_key": "it is a secret",
    "3_3.rsa_public_key": "",
    "3_4.rsa_private_key": "it is a secret",
    "3_5.symmetric_key_mac_computation": "it is a secret",
    "3_6.symmetric_key_encryption": "its `use` is not sig",
}


def test_of_the_keys_of_the_cookbook_the_public_ones_for_signatures_are_usable() -> None:
    outcomes = {}
    for path in VECTORS.glob("jwk/*.json"):
        document = json.dumps({"keys": [json.loads(path.read_text())]}).encode()
        try:
            (key,) = parse_key_set(document, "here")[0].values()
        except KeySetError as error:
            outcomes[path.stem] = str(error)
        else:
            assert key.algorithm == {"3_1": "ES512", "3_3": "RS256"}[path.stem[:3]]
            outcomes[path.stem] = ""
    assert outcomes.keys() == KEYS.keys()
    for name, reason in KEYS.items():
        assert bool(outcomes[name]) == bool(reason), name
        assert reason in outcomes[name], name
