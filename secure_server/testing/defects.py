"""Defective tokens: each has one defect and is otherwise good."""

from __future__ import annotations

import base64
import difflib
import hashlib
import hmac
import json
import secrets
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

_HOUR = 3600
_YEAR = 365 * 24 * _HOUR
_ALPHABET = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
_CURVES = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}


@dataclass(frozen=True, slots=True)
class Draft:
    """A token before it is signed; ``now`` is its issuer's, in seconds since the epoch."""

    header: Mapping[str, Any]
    claims: Mapping[str, Any]
    private_key: Any
    algorithm: str
    now: int

    def claiming(self, **claims: Any) -> Draft:
        return replace(self, claims={**self.claims, **claims})

    def headed(self, **header: Any) -> Draft:
        return replace(self, header={**self.header, **header})

    def without_claim(self, name: str) -> Draft:
        return replace(self, claims=_without(self.claims, name))

    def without_header(self, name: str) -> Draft:
        return replace(self, header=_without(self.header, name))

    def signed_by_stranger(self) -> Draft:
        return replace(self, private_key=generate_key(self.algorithm))

    def signature(self, signing_input: str) -> bytes:
        algorithm = jwt.get_algorithm_by_name(self.algorithm)
        return bytes(algorithm.sign(signing_input.encode(), self.private_key))

    def sign(self, *, header: str | None = None, claims: str | None = None) -> str:
        """Write the compact serialization (RFC 7515, section 7.1), with these texts as they are."""
        signing_input = self.signing_input(header=header, claims=claims)
        return f"{signing_input}.{_base64url(self.signature(signing_input))}"

    def signing_input(self, *, header: str | None = None, claims: str | None = None) -> str:
        first, second = header or _json(self.header), claims or _json(self.claims)
        return f"{_base64url(first.encode())}.{_base64url(second.encode())}"


def _without(members: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in members.items() if key != name}


def _json(members: object) -> str:
    return json.dumps(members, separators=(",", ":"))


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _with_member(members: Mapping[str, Any], member: str) -> str:
    """Write JSON with a member before the others, which may repeat a name."""
    return "{" + member + "," + _json(members)[1:]


def generate_key(algorithm: str) -> Any:
    """Return a new private key for one of the algorithms that the guard accepts."""
    if algorithm in _CURVES:
        return ec.generate_private_key(_CURVES[algorithm])
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _with_signature(draft: Draft, change: Callable[[bytes], bytes]) -> str:
    signing_input = draft.signing_input()
    return f"{signing_input}.{_base64url(change(draft.signature(signing_input)))}"


def _der(signature: bytes) -> bytes:
    half = len(signature) // 2
    return encode_dss_signature(
        int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big")
    )


def _hmac_with_public_key(draft: Draft) -> str:
    pem = draft.private_key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    signing_input = draft.headed(alg="HS256").signing_input()
    digest = hmac.new(pem, signing_input.encode(), hashlib.sha256).digest()
    return f"{signing_input}.{_base64url(digest)}"


def _embedded_jwk(draft: Draft) -> str:
    forged = draft.signed_by_stranger()
    algorithm = jwt.get_algorithm_by_name(draft.algorithm)
    jwk = algorithm.to_jwk(forged.private_key.public_key(), as_dict=True)
    return forged.headed(jwk=jwk).sign()


def _tampered_payload(draft: Draft) -> str:
    header, _, signature = draft.sign().split(".")
    forged = draft.claiming(roles=[*draft.claims.get("roles", []), "tampered"])
    return f"{header}.{_base64url(_json(forged.claims).encode())}.{signature}"


def _respelt_signature(draft: Draft) -> str:
    # 64 bytes, or 256, leave four of the last character's six bits unused.
    token = draft.sign()
    return token[:-1] + _ALPHABET[_ALPHABET.index(token[-1]) + 1]


def _json_serialization(draft: Draft) -> str:
    protected, payload, signature = draft.sign().split(".")
    return _json({"protected": protected, "payload": payload, "signature": signature})


def _lacks_claim(name: str) -> Callable[[Draft], str]:
    return lambda draft: draft.without_claim(name).sign()


_TABLE: dict[str, tuple[str, Callable[[Draft], str]]] = {
    # Times: RFC 7519, sections 4.1.4 to 4.1.6.
    "expired": (
        "It expired over an hour ago.",
        lambda draft: draft.claiming(iat=draft.now - 2 * _HOUR, exp=draft.now - _HOUR).sign(),
    ),
    "not_yet_valid": (
        "Its `nbf` is half an hour ahead.",
        lambda draft: draft.claiming(nbf=draft.now + _HOUR // 2).sign(),
    ),
    "issued_in_future": (
        "Its `iat` is half an hour ahead.",
        lambda draft: draft.claiming(iat=draft.now + _HOUR // 2).sign(),
    ),
    "lifetime_too_long": (
        "Its lifetime is ten years.",
        lambda draft: draft.claiming(exp=draft.now + 10 * _YEAR).sign(),
    ),
    "string_exp": (
        "Its `exp` is the right number, but as a text.",
        lambda draft: draft.claiming(exp=str(draft.claims["exp"])).sign(),
    ),
    "boolean_exp": (
        "Its `exp` is `true`, which some languages take for 1.",
        lambda draft: draft.claiming(exp=True).sign(),
    ),
    "infinite_exp": (
        "Its `exp` is 1e400, which overflows to infinity.",
        lambda draft: draft.sign(
            claims=_with_member(draft.without_claim("exp").claims, '"exp":1e400')
        ),
    ),
    "nan_exp": (
        "Its `exp` is NaN, which is no JSON and compares as neither earlier nor later.",
        lambda draft: draft.claiming(exp=float("nan")).sign(),
    ),
    # Claims: RFC 9068, section 2.2.
    "wrong_issuer": (
        "Its `iss` is another issuer's.",
        lambda draft: draft.claiming(iss=f"{draft.claims['iss']}.example.com").sign(),
    ),
    "wrong_audience": (
        "Its `aud` is another audience.",
        lambda draft: draft.claiming(aud=f"not-{draft.claims['aud']}").sign(),
    ),
    "empty_audience": (
        "Its `aud` is an empty list.",
        lambda draft: draft.claiming(aud=[]).sign(),
    ),
    "missing_iss": ("It does not say who issued it.", _lacks_claim("iss")),
    "missing_aud": ("It does not say whom it is meant for.", _lacks_claim("aud")),
    "missing_exp": ("It would never expire.", _lacks_claim("exp")),
    "missing_iat": ("It does not say when it was issued.", _lacks_claim("iat")),
    "missing_sub": ("It does not say who is calling.", _lacks_claim("sub")),
    "missing_jti": ("It could not be revoked by its ID.", _lacks_claim("jti")),
    "missing_client_id": ("It does not say which client it went to.", _lacks_claim("client_id")),
    "empty_sub": ("Its `sub` is empty.", lambda draft: draft.claiming(sub="").sign()),
    "text_roles": (
        "Its `roles` are one text instead of a list.",
        lambda draft: draft.claiming(roles="admin").sign(),
    ),
    "list_scope": (
        "Its `scope` is a list instead of one text (RFC 8693, section 4.2).",
        lambda draft: draft.claiming(scope=["read"]).sign(),
    ),
    # Binding to a certificate: RFC 8705, section 3.
    "unbound": ("It is bound to no certificate.", _lacks_claim("cnf")),
    "bound_to_other_certificate": (
        "It is bound to a certificate that does not exist.",
        lambda draft: draft.claiming(cnf={"x5t#S256": _base64url(secrets.token_bytes(32))}).sign(),
    ),
    # Header: RFC 7515, section 4; RFC 8725, sections 3.1, 3.2, 3.10 and 3.11.
    "alg_none": (
        "Its `alg` is `none`, and it has no signature.",
        lambda draft: draft.headed(alg="none").signing_input() + ".",
    ),
    "missing_alg": (
        "It has no `alg`.",
        lambda draft: draft.without_header("alg").sign(),
    ),
    "wrong_alg": (
        "Its `alg` is not its key's: RS256, or ES256 for an RS256 key.",
        lambda draft: draft.headed(alg="ES256" if draft.algorithm == "RS256" else "RS256").sign(),
    ),
    "hmac_with_public_key": (
        "Its `alg` is HS256, keyed with the issuer's public key in PEM.",
        _hmac_with_public_key,
    ),
    "missing_kid": (
        "It has no `kid`.",
        lambda draft: draft.without_header("kid").sign(),
    ),
    "unknown_kid": (
        "Its `kid` is unknown, though the issuer signed it.",
        lambda draft: draft.headed(kid=_base64url(secrets.token_bytes(32))).sign(),
    ),
    "embedded_jwk": (
        "It is signed by a key that it carries in `jwk`.",
        _embedded_jwk,
    ),
    "remote_jwk": (
        "It is signed by a key that it says to fetch, by `jku`.",
        lambda draft: (
            draft.headed(jku="https://attacker.invalid/jwks.json").signed_by_stranger().sign()
        ),
    ),
    "wrong_typ": (
        "Its `typ` is JWT, as an ID token's may be.",
        lambda draft: draft.headed(typ="JWT").sign(),
    ),
    "missing_typ": (
        "It has no `typ`.",
        lambda draft: draft.without_header("typ").sign(),
    ),
    "crit_extension": (
        "Its `crit` demands an unknown extension (RFC 7515, section 4.1.11).",
        lambda draft: draft.headed(**{"crit": ["x-unknown"], "x-unknown": 1}).sign(),
    ),
    "unencoded_payload": (
        "Its header says by `b64` that the payload is not base64url (RFC 7797).",
        lambda draft: draft.headed(crit=["b64"], b64=False).sign(),
    ),
    # Signature: RFC 7518, section 3.4.
    "foreign_key": (
        "It is signed by a key that is not the issuer's.",
        lambda draft: draft.signed_by_stranger().sign(),
    ),
    "tampered_payload": ("A role was added after it was signed.", _tampered_payload),
    "missing_signature": (
        "Its signature is empty.",
        lambda draft: _with_signature(draft, lambda _: b""),
    ),
    "truncated_signature": (
        "Its signature lacks the last byte.",
        lambda draft: _with_signature(draft, lambda signature: signature[:-1]),
    ),
    "zero_signature": (
        "R and S of its signature are zero, which careless verifiers accept for every message.",
        lambda draft: _with_signature(draft, lambda signature: bytes(len(signature))),
    ),
    "der_signature": (
        "Its signature is written in DER, its two halves as R and S.",
        lambda draft: _with_signature(draft, _der),
    ),
    # Text: RFC 7515, sections 2, 4 and 7.
    "padded": (
        "Its signature ends in the padding `==` of base64.",
        lambda draft: draft.sign() + "==",
    ),
    "respelt_signature": (
        "Another text for the same signature: a bit that base64url ignores is set.",
        _respelt_signature,
    ),
    "duplicate_member": (
        "Its payload has `sub` twice; parsers differ in which of them counts.",
        lambda draft: draft.sign(claims=_with_member(draft.claims, '"sub":"mallory"')),
    ),
    "duplicate_header_member": (
        "Its header has `alg` twice; parsers differ in which of them counts.",
        lambda draft: draft.sign(header=_with_member(draft.header, '"alg":"none"')),
    ),
    "array_payload": (
        "Its payload is a JSON array.",
        lambda draft: draft.sign(claims=_json([dict(draft.claims)])),
    ),
    "oversized": (
        "It is longer than 8 KiB.",
        lambda draft: draft.claiming(padding="x" * 8192).sign(),
    ),
    "json_serialization": (
        "It is in the JSON serialization of RFC 7515, section 7.2.2.",
        _json_serialization,
    ),
}

DEFECTS: Mapping[str, str] = MappingProxyType({name: line for name, (line, _) in _TABLE.items()})
"""Every defect that ``Issuer.token`` can make, and what is wrong with such a token."""


def spoil(draft: Draft, defect: str) -> str:
    """Sign the draft, or not, so that it has this defect. Raises ``ValueError``."""
    if defect not in _TABLE:
        near = difflib.get_close_matches(defect, _TABLE)
        hint = f"did you mean {' or '.join(near)}?" if near else "DEFECTS names them all."
        raise ValueError(f"{defect!r} is no defect of a token; {hint}")
    return _TABLE[defect][1](draft)
