"""Project Wycheproof's vectors for JSON Web Keys and signatures: we agree but for what is listed.

Each case goes through the code that a token goes through: the reader of key sets, the reader of the
compact serialization, the key's own check of a signature.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import jwt
import pytest

from secure_server import AuthenticationError
from secure_server.auth import jws
from secure_server.auth.key_sets import KeySetError, parse_key_set, read_key_set
from secure_server.auth.keys import KeySet
from secure_server.testing.defects import Draft

VECTORS = Path(__file__).parents[1] / "vectors" / "wycheproof"

HMAC = "No algorithm with a shared secret is accepted: a verifier could then sign."
JWE = "Encrypted tokens are not accepted: the token of a call is read, never decrypted."

REFUSALS = {HMAC: "no usable key", JWE: "not compact"}

EXCEPTIONS = {
    ("json_web_key_test", 2): HMAC,
    ("json_web_key_test", 13): HMAC,
    ("json_web_key_test", 14): HMAC,
    ("json_web_key_test", 15): HMAC,
    ("json_web_crypto_test", 1): HMAC,
    ("json_web_crypto_test", 48): HMAC,
    ("json_web_crypto_test", 50): JWE,
    ("json_web_crypto_test", 67): JWE,
}
"""Valid by the vectors and refused by us. The reverse there is not."""

# The payload of every case is the text "foo" or nothing, which is no JSON object.
NO_CLAIMS = "The payload is not a JSON object with unique members."


class Case(NamedTuple):
    file: str
    number: int
    comment: str
    is_valid: bool
    jwks: str
    text: str
    private: dict[str, Any]


def cases() -> list[Case]:
    found = []
    for file in ("json_web_key_test", "json_web_crypto_test"):
        for group in json.loads((VECTORS / f"{file}.json").read_text())["testGroups"]:
            # A secret has no public half: a verifier would hold the signer's key.
            keys = group.get("public") or group["private"]
            jwks = json.dumps(keys if "keys" in keys else {"keys": [keys]})
            for test in group["tests"]:
                token = test.get("jws", test.get("jwe"))
                text = token if isinstance(token, str) else json.dumps(token)
                is_valid = {"valid": True, "invalid": False}[test["result"]]
                number, comment = test["tcId"], test["comment"]
                found.append(Case(file, number, comment, is_valid, jwks, text, group["private"]))
    return found


CASES = cases()


def usable(case: Case) -> KeySet:
    try:
        return parse_key_set(case.jwks.encode(), "here")[0]
    except KeySetError:
        return {}


def refusal(case: Case) -> str:
    """The first of our rules that the case breaks; nothing where its signature is good."""
    try:
        assert jws.parse(case.text) is None, "no case has claims"
        return "not compact"
    except AuthenticationError as error:
        if str(error) != NO_CLAIMS:
            return str(error)
    # All that is wrong with the text is that it has no claims. Those of a token would do.
    first, second, third = case.text.split(".")
    token = jws.parse(f"{first}.e30.{third}")
    assert token is not None
    keys = usable(case)
    if not keys:
        return "no usable key"
    key = keys.get(token.header["kid"])
    if key is None:
        return "unknown kid"
    if token.header["alg"] != key.algorithm:
        return "another alg than the key's"
    is_good = key.verifies(f"{first}.{second}".encode(), token.signature)
    return "" if is_good else "signature"


@pytest.mark.parametrize(
    "case", CASES, ids=lambda case: f"{case.file}-{case.number}-{case.comment}"
)
def test_a_case_of_wycheproof_ends_as_it_should(case: Case) -> None:
    reason = refusal(case)
    if (case.file, case.number) in EXCEPTIONS:
        assert case.is_valid
        assert reason == REFUSALS[EXCEPTIONS[case.file, case.number]]
    else:
        assert (reason == "") == case.is_valid, reason


def test_all_cases_ran_and_each_kind_of_fault_has_its_own_reason() -> None:
    assert len(CASES) == 26 + 83
    assert len(EXCEPTIONS) == 8
    assert {(case.file, case.number) for case in CASES} >= EXCEPTIONS.keys()
    assert Counter(map(refusal, CASES)) == {
        "": 3,
        "not compact": 63,
        "no usable key": 31,
        "unknown kid": 4,
        "another alg than the key's": 1,
        "signature": 7,
    }


SECRET = "it is a secret"
NO_KEY = "it is no public key that is understood"

BAD_KEY_SETS = {
    1: SECRET,  # beside a public key, which does not save the file
    3: SECRET,  # a good set of secrets; the token is what is bad
    4: "another key has the same `kid`",
    6: "its `use` is not sig",
    7: "of a kind that can be factored (CVE-2017-15361)",
    8: "has 1024 bits",
    9: NO_KEY,  # the exponent 1
    10: SECRET,
    11: SECRET,
    12: SECRET,
    16: SECRET,
    17: SECRET,
    18: SECRET,
    19: "its `alg` is none of",
    20: "its `alg` is none of",
    21: "its `use` is not sig",
    22: NO_KEY,  # a point beside the curve
    23: NO_KEY,  # on another curve
    24: NO_KEY,  # of another type
    25: SECRET,
    26: SECRET,
}


def test_J23_a_file_with_a_bad_key_set_is_refused_with_its_name_and_the_keys(
    tmp_path: Path,
) -> None:
    told = {}
    for case in CASES:
        if case.file != "json_web_key_test" or case.is_valid:
            continue
        path = tmp_path / f"{case.number}.json"
        path.write_text(case.jwks)
        with pytest.raises(KeySetError) as refused:
            read_key_set(path)
        assert str(refused.value).startswith(f"{path}: ")
        assert json.loads(case.jwks)["keys"][0]["kid"] in str(refused.value)
        told[case.number] = str(refused.value)
    assert told.keys() == BAD_KEY_SETS.keys()
    assert [number for number, reason in BAD_KEY_SETS.items() if reason not in told[number]] == []


@pytest.mark.parametrize(
    "case",
    [case for case in CASES if case.is_valid and (case.file, case.number) not in EXCEPTIONS],
    ids=lambda case: f"{case.file}-{case.number}",
)
def test_the_keys_of_the_valid_cases_verify_a_token_with_claims(case: Case) -> None:
    """So that it is not their payload alone that the reader refuses."""
    jwk = case.private.get("keys", [case.private])[0]
    header = {"alg": jwk["alg"], "kid": jwk["kid"]}
    text = Draft(header, {"sub": "foo"}, jwt.PyJWK(jwk).key, jwk["alg"], now=0).sign()
    token = jws.parse(text)
    assert token is not None
    assert token.claims == {"sub": "foo"}
    assert usable(case)[token.header["kid"]].verifies(token.signing_input, token.signature)
