"""Any input gets the typed error, or an answer that it deserves.

``python -m benchmarks.fuzz_tokens`` makes the same mutants by coverage, for as long as one likes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from benchmarks import fuzz_tokens
from benchmarks.mutants import ORDERS, base64url, decoded, twin
from benchmarks.verdicts import AcceptedMutantError, Verdicts
from secure_server import AuthenticationError, Credentials
from secure_server.auth import jws
from secure_server.auth.keys import VerificationKey
from support.benchmark import run_benchmark

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=200)
"""Halves of surrogate pairs too, which gRPC never hands over, and others may."""

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=8,
)


class Drawn:
    """The choices of hypothesis."""

    def __init__(self, data: st.DataObject) -> None:
        self._data = data

    def below(self, count: int) -> int:
        return self._data.draw(st.integers(0, count - 1))

    def text(self, most: int) -> str:
        return self._data.draw(st.text(st.characters(exclude_categories=()), max_size=most))

    def data(self, most: int) -> bytes:
        return self._data.draw(st.binary(max_size=most))


@pytest.fixture(scope="module")
def verdicts() -> Iterator[Verdicts]:
    verdicts = Verdicts()
    yield verdicts
    verdicts.close()


@settings(max_examples=300, deadline=None)
@given(text=ANY_TEXT, scheme=st.sampled_from(["", "Bearer ", "Basic ", "bearer sgk_"]))
def test_no_text_raises_anything_but_the_typed_error(
    verdicts: Verdicts, text: str, scheme: str
) -> None:
    assert verdicts.text(scheme + text) == "refused"


@settings(max_examples=200, deadline=None)
@given(header=JSON, claims=JSON, signature=st.binary(max_size=80))
def test_no_json_in_the_place_of_a_token_raises_anything_but_the_typed_error(
    verdicts: Verdicts, header: Any, claims: Any, signature: bytes
) -> None:
    parts = (json.dumps(header).encode(), json.dumps(claims).encode(), signature)
    assert verdicts.text(f"Bearer {'.'.join(map(base64url, parts))}") == "refused"


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_no_mutant_of_a_good_token_is_accepted(verdicts: Verdicts, data: st.DataObject) -> None:
    verdicts.authorization(verdicts.mutants.authorization(Drawn(data)))


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_no_mutant_of_a_key_set_brings_in_a_key_that_must_not_verify(
    verdicts: Verdicts, data: st.DataObject
) -> None:
    verdicts.key_set(verdicts.mutants.key_set(Drawn(data), verdicts.jwks))


@settings(max_examples=100, deadline=None)
@given(
    keys=st.lists(
        st.dictionaries(st.sampled_from(["kid", "kty", "use", "alg", "x"]), JSON, max_size=3),
        max_size=3,
    )
)
def test_no_json_in_the_place_of_keys_raises_anything_but_the_typed_error(
    verdicts: Verdicts, keys: list[Any]
) -> None:
    assert verdicts.key_set(json.dumps({"keys": keys}).encode()) == "refused"


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_no_answer_of_introspection_without_active_is_accepted(
    verdicts: Verdicts, data: st.DataObject
) -> None:
    verdicts.answer(verdicts.mutants.answer(Drawn(data), verdicts.members))


def test_the_originals_of_the_mutants_are_accepted(verdicts: Verdicts) -> None:
    """Otherwise everything here would be refused for the wrong reason."""
    for token in verdicts.mutants._tokens:
        assert verdicts.authorization(f"bEaReR {token}") == "known"
    assert verdicts.key_set(json.dumps({"keys": verdicts.jwks}).encode()) == "usable"
    assert verdicts.answer(json.dumps(verdicts.members).encode()) == "active"


def test_the_twin_of_a_signature_is_the_same_token(verdicts: Verdicts) -> None:
    found = 0
    for token in verdicts.mutants._tokens:
        read = jws.parse(token)
        if read is not None and read.header["alg"] in ORDERS:
            signing_input, _, signature = token.rpartition(".")
            other = base64url(twin(decoded(signature), read.header["alg"]))
            assert other != signature
            assert verdicts.authorization(f"Bearer {signing_input}.{other}") == "twin"
            found += 1
    assert found == 7


def test_a_mutant_that_is_accepted_does_not_go_unnoticed(
    verdicts: Verdicts, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = verdicts.mutants._tokens[0]
    forged = token[:-4] + ("AAAA" if token[-4:] != "AAAA" else "BBBB")
    assert verdicts.authorization(f"Bearer {forged}") == "refused"
    monkeypatch.setattr(VerificationKey, "verifies", lambda *_: True)
    with pytest.raises(AcceptedMutantError):
        verdicts.authorization(f"Bearer {forged}")


@pytest.mark.parametrize("text", ["Bearer é", "Bearer x\x00", "Bearer \ud800", "Bearer x\n", "É x"])
def test_credentials_are_printable_ascii(text: str) -> None:
    with pytest.raises(AuthenticationError) as refused:
        Credentials.parse(text)
    assert refused.value.code == "authorization"


def test_half_a_surrogate_pair_gets_into_no_claim_and_into_no_audit() -> None:
    """It can be written down nowhere: a log that fails over it would not have the refusal."""
    for claims, is_whole in (
        ('"\\ud83d\\ude00"', True),
        ('"\\ud83d"', False),
        ('["\\udc00"]', False),
    ):
        token = ".".join(map(base64url, (b"{}", f'{{"sub":{claims}}}'.encode(), b"")))
        if is_whole:
            read = jws.parse(token)
            assert read is not None
            assert read.claims == {"sub": "\U0001f600"}
            continue
        with pytest.raises(AuthenticationError) as refused:
            jws.parse(token)
        assert refused.value.code == "malformed"
        assert refused.value.claims == {}


@pytest.mark.parametrize(
    "member", ['"active":true', '"sub":"mallory"', '"exp":NaN', '"client_id":"\\ud800"']
)
def test_K9_an_answer_that_readers_differ_about_is_nonsense(
    verdicts: Verdicts, member: str
) -> None:
    answer = json.dumps(verdicts.members | {"active": False, "sub": "bob"})
    assert verdicts.answer(f"{answer[:-1]},{member}}}".encode()) == "refused"
    active = json.dumps(verdicts.members)
    assert verdicts.answer(f"{active[:-1]},{member}}}".encode()) == "refused"


def test_K7_a_key_whose_alg_is_null_says_nothing_and_is_skipped(verdicts: Verdicts) -> None:
    (jwk, *_) = verdicts.jwks
    assert verdicts.key_set(json.dumps({"keys": [jwk | {"alg": None}]}).encode()) == "refused"
    del jwk["alg"]
    assert verdicts.key_set(json.dumps({"keys": [jwk]}).encode()) == "usable"


def test_without_atheris_the_command_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import typer

    monkeypatch.setitem(sys.modules, "atheris", None)
    app = typer.Typer()
    app.command()(fuzz_tokens.main)
    done = CliRunner().invoke(app, ["--seconds", "1"])
    assert done.exit_code == 2
    assert "pip install atheris==3.0.0" in done.stderr


@pytest.mark.skipif(find_spec("atheris") is None, reason="atheris is not installed")
def test_the_command_ends_with_a_line_of_json() -> None:
    summary = run_benchmark("benchmarks.fuzz_tokens", "--seconds", "1", timeout=60)
    assert summary["runs"] == sum(summary["outcomes"].values()) > 100
    assert (summary["crashes"], summary["accepted_mutants"]) == (0, 0)
