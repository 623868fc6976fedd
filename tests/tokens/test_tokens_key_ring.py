"""The signing key: made once, private, and nothing but what it must be."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from secure_server.tokens.key_ring import KeyRing, SigningKeyError


def write(path: Path, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> None:
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


def test_the_key_is_made_private_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "state" / "signing-key.pem"
    made = KeyRing.open(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert KeyRing.open(path).key_id == made.key_id
    assert [each.name for each in path.parent.iterdir()] == ["signing-key.pem"]


def test_eight_who_start_at_once_agree_on_one_key(tmp_path: Path) -> None:
    path = tmp_path / "signing-key.pem"
    with ThreadPoolExecutor(8) as pool:
        rings = list(pool.map(lambda _: KeyRing.open(path), range(8)))
    assert len({ring.key_id for ring in rings}) == 1


def test_a_key_that_others_can_read_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "signing-key.pem"
    KeyRing.open(path)
    path.chmod(0o640)
    with pytest.raises(SigningKeyError, match=r"signing-key\.pem.*chmod 600"):
        KeyRing.open(path)


@pytest.mark.parametrize("text", ["", "nonsense", "-----BEGIN PRIVATE KEY-----\n"])
def test_what_is_no_key_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "signing-key.pem"
    path.touch(mode=0o600)
    path.write_text(text)
    with pytest.raises(SigningKeyError, match=r"signing-key\.pem: not an unencrypted private key"):
        KeyRing.open(path)


@pytest.mark.parametrize("curve", [ec.SECP384R1(), None])
def test_a_key_of_another_kind_is_refused(tmp_path: Path, curve: ec.EllipticCurve | None) -> None:
    key = ec.generate_private_key(curve) if curve else rsa.generate_private_key(65537, 2048)
    write(tmp_path / "signing-key.pem", key)
    with pytest.raises(SigningKeyError, match="P-256"):
        KeyRing.open(tmp_path / "signing-key.pem")


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(SigningKeyError, match="The signing key cannot be made"):
        KeyRing.open(tmp_path / "state" / "signing-key.pem")


def test_the_public_half_is_public_and_the_repr_holds_no_more(tmp_path: Path) -> None:
    ring = KeyRing.open(tmp_path / "signing-key.pem")
    (jwk,) = ring.public_jwks()
    assert set(jwk) == {"kty", "crv", "x", "y", "kid", "use", "alg"}
    assert repr(ring) == f"KeyRing(key_id={ring.key_id!r})"
