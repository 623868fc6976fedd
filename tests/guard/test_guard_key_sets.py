"""Key sets: what a guard of one's own verifies tokens by."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from secure_server import AuthenticatorError, ConfigError, Guard
from secure_server.auth.key_sets import KeySetError, read_key_set
from secure_server.testing import Issuer


def keys_of(*issuers: Issuer) -> dict[str, Any]:
    return {"keys": [key for issuer in issuers for key in json.loads(issuer.jwks())["keys"]]}


def test_an_issuers_key_set_is_read(tmp_path: Path) -> None:
    one, two = Issuer(), Issuer()
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps(keys_of(one, two)))
    assert set(read_key_set(path)) == {one.key_id, two.key_id}


def change(**members: Any) -> Callable[[dict[str, Any]], None]:
    return lambda document: document["keys"][0].update(members)


@pytest.mark.parametrize(
    "spoil",
    [
        change(use="enc"),
        change(key_ops=["sign"]),
        change(d="AAAA"),
        change(kid=7),
        change(alg="HS256"),
        change(alg="ES384"),
        change(x="AAAA"),
        lambda document: document["keys"][0].pop("kid"),
        lambda document: document["keys"].append(document["keys"][0]),
        lambda document: document["keys"].clear(),
        lambda document: document.clear(),
    ],
)
def test_a_spoilt_key_set_is_refused_by_name(
    tmp_path: Path, spoil: Callable[[dict[str, Any]], object]
) -> None:
    document = keys_of(Issuer())
    spoil(document)
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps(document))
    with pytest.raises(KeySetError, match=r"jwks\.json"):
        read_key_set(path)


@pytest.mark.parametrize("text", ["", "[]", "not json", '"text"'])
def test_a_file_that_is_no_key_set_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "jwks.json"
    path.write_text(text)
    with pytest.raises(KeySetError, match=r"jwks\.json"):
        read_key_set(path)
    with pytest.raises(KeySetError, match="cannot read"):
        read_key_set(tmp_path / "missing.json")


@pytest.mark.parametrize(
    ("settings", "missing"),
    [('[policy]\nfile = "policy.json"\n', "key_set"), ("", "policy.file")],
)
def test_from_config_says_what_is_missing_and_how_to_get_it(
    tmp_path: Path, settings: str, missing: str
) -> None:
    path = tmp_path / "secure-server.toml"
    path.write_text(settings)
    (tmp_path / "policy.json").write_text('{"name": "any", "allow_rules": [{"name": "any"}]}')
    with pytest.raises((ConfigError, AuthenticatorError), match=missing):
        Guard.from_config(path)
