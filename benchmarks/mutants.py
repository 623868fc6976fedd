"""Mutants of good tokens, key sets and answers of introspection.

atheris (in ``benchmarks.fuzz_tokens``) or hypothesis (in the tests) chooses what to change; this
module makes the changes for both.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from secure_server.testing.defects import Draft, generate_key

T = TypeVar("T")
Pairs = list[tuple[str, str]]
"""The members of a JSON object, names and JSON texts: in order, as often as they are there."""

ORDERS = {  # of the base points (FIPS 186-4, appendix D.1.2)
    "ES256": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    "ES384": int("F" * 48 + "C7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973", 16),
    "ES512": int(
        "1" + "F" * 64 + "FA51868783BF2F966B7FCC0148F709A5D03BB5C9B8899C47AEBB6FB71E91386409", 16
    ),
}
HEADER = ("alg", "typ", "kid", "crit", "b64", "jwk", "jku", "x5u", "x5c", "cty", "zip", "enc")
CLAIMS = ("iss", "sub", "aud", "exp", "iat", "nbf", "jti", "client_id", "scope", "roles", "cnf")
MEMBERS = ("kty", "kid", "use", "key_ops", "alg", "crv", "x", "y", "n", "e", "d", "k", "p", "oth")
VALUES = (
    *("null", "true", "false", "0", "-1", "-0", "1", "1e400", "1E3", "NaN", "Infinity", "9" * 30),
    *("9" * 5000, '""', '"none"', '"HS256"', '"JWT"', '"sig"', '"\\ud800"', '"\\u0000"', '"a  b"'),
    *("[]", "{}", '["verify"]', '["b64"]', '{"a":1,"a":2}', "[" * 300 + "]" * 300, "[" * 9000),
    *('{"x5t#S256":"x"}', '["example"]', '"AQAB"', '"AQ"', '"Aw"', '"RSA"', '"EC"', '"OKP"'),
    *('"P-256"', '"Ed448"', '"secp256k1"', '"oct"', '"RS256"', '"PS256"', '"ES256"', '"EdDSA"'),
)


class Choices(Protocol):
    """Decides what to change: a fuzzer or hypothesis."""

    def below(self, count: int) -> int:
        """Return a number from 0 to ``count`` - 1."""

    def text(self, most: int) -> str:
        """Return a text of at most so many characters, of any kind."""

    def data(self, most: int) -> bytes:
        """Return at most so many bytes."""


def pick(choices: Choices, these: Sequence[T]) -> T:
    return these[choices.below(len(these))]


@dataclass(frozen=True)
class Signer:
    """An issuer and its keys. ``stranger`` is another key of the same type."""

    issuer: str
    key_id: str
    algorithm: str
    private_key: Any
    stranger: Any

    @classmethod
    def of(cls, issuer: Any, algorithm: str) -> Signer:
        key = issuer._private_key  # noqa: SLF001 - to forge what only it could sign
        return cls(issuer.name, issuer.key_id, algorithm, key, generate_key(algorithm))


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decoded(text: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        return b""


def twin(signature: bytes, algorithm: str) -> bytes:
    """Return the other ECDSA signature that verifies for the same content, (r, n - s) for (r, s),
    which needs no key to make. Other signatures are returned unchanged.
    """
    order = ORDERS.get(algorithm, 0)
    half = (order.bit_length() + 7) // 8
    s = int.from_bytes(signature[half:], "big")
    if len(signature) != 2 * half or not 0 < s < order:
        return signature
    return signature[:half] + (order - s).to_bytes(half, "big")


def pairs_of(text: bytes) -> Pairs | None:
    try:
        members = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(members, dict):
        return None
    return [(name, json.dumps(value)) for name, value in members.items()]


def text_of(pairs: Pairs) -> str:
    return "{" + ",".join(f"{json.dumps(name)}:{value}" for name, value in pairs) + "}"


def edited(choices: Choices, pairs: Pairs, names: Sequence[str], values: Sequence[str]) -> Pairs:
    """Set, take out, repeat or rename one member."""
    name = pick(choices, names) if choices.below(8) else choices.text(8)
    value = pick(choices, values) if choices.below(4) else json.dumps(choices.text(12))
    match choices.below(5):
        case 0:
            return [pair for pair in pairs if pair[0] != name]
        case 1:
            return [*pairs, (name, value)]
        case 2:
            return [(one.upper() if one == name else one, text) for one, text in pairs]
        case 3:
            return [*pairs, pick(choices, pairs)] if pairs else pairs
        case _:
            return [(one, value if one == name else text) for one, text in pairs]


def spliced(choices: Choices, text: str) -> str:
    """Replace a piece by another."""
    start = choices.below(len(text) + 1)
    end = min(len(text), start + choices.below(4))
    return text[:start] + choices.text(4) + text[end:]


def _header(algorithm: str, key_id: str) -> str:
    fields = {"alg": algorithm, "typ": "at+jwt", "kid": key_id}
    return base64url(
        text_of([(name, json.dumps(value)) for name, value in fields.items()]).encode()
    )


class Mutants:
    """Makes mutants of tokens of these issuers only.

    A class because keys, which are slow to make, are made once for very many mutants.
    """

    def __init__(self, signers: Sequence[Signer], tokens: Sequence[str]) -> None:
        self._signers = signers
        self._tokens = tokens
        texts = [*(one.issuer for one in signers), *(one.key_id for one in signers)]
        self._values = (*VALUES, *map(json.dumps, texts))
        self._operations = (
            self._flipped,
            self._respelt,
            self._edited,
            self._swapped,
            self._resigned,
            self._signed_otherwise,
            spliced,
        )

    def authorization(self, choices: Choices) -> str:
        """Return a good token after one to three changes, under a scheme."""
        token = pick(choices, self._tokens)
        for _ in range(1 + choices.below(3)):
            token = pick(choices, self._operations)(choices, token)
        scheme = pick(choices, ("Bearer", "bearer", "BEARER", "Basic", "DPoP", ""))
        return f"{scheme} {token}"

    def key_set(self, choices: Choices, jwks: Sequence[dict[str, Any]]) -> bytes:
        """Return a key set of up to three of these keys, most of them changed."""
        keys = []
        for _ in range(1 + choices.below(3)):
            pairs = [(name, json.dumps(value)) for name, value in pick(choices, jwks).items()]
            for _ in range(choices.below(4)):
                pairs = edited(choices, pairs, MEMBERS, self._values)
            keys.append(text_of(pairs))
        text = f'{{"keys":[{",".join(keys)}]}}'
        return self._bytes(choices, text)

    def answer(self, choices: Choices, members: dict[str, Any]) -> bytes:
        """Return these members after up to three changes."""
        pairs = [(name, json.dumps(value)) for name, value in members.items()]
        for _ in range(choices.below(4)):
            pairs = edited(choices, pairs, ("active", *CLAIMS), self._values)
        return self._bytes(choices, text_of(pairs))

    @staticmethod
    def _bytes(choices: Choices, text: str) -> bytes:
        match choices.below(8):
            case 0:
                return choices.data(64)
            case 1:
                return spliced(choices, text).encode("utf-8", "surrogatepass")
            case 2:
                return text.encode(pick(choices, ("utf-16", "utf-32", "utf-8-sig")))
            case _:
                return text.encode()

    @staticmethod
    def _flipped(choices: Choices, token: str) -> str:
        place = choices.below(len(token)) if token else 0
        flip = chr(ord(token[place]) ^ (1 << choices.below(7))) if token else ""
        return token[:place] + flip + token[place + 1 :]

    @staticmethod
    def _respelt(choices: Choices, token: str) -> str:
        """Write a part in another way that careless parsers take for the same."""
        parts = token.split(".")
        place = choices.below(len(parts))
        part, data = parts[place], decoded(parts[place])
        parts[place] = pick(
            choices,
            (
                *(part + "=", part + "==", part + "\n", " " + part, part + "A", part.lower()),
                *(part.replace("-", "+").replace("_", "/"), base64.b64encode(data).decode()),
                part[:-1] + chr(ord(part[-1]) + 1) if part else "A",
                *(base64url(data.replace(b":", b": ")), base64url(b" " + data + b"\n")),
                *(base64url(b"\xef\xbb\xbf" + data), base64url(data + b"\x00")),
                base64url(data.decode("utf-8", "replace").encode("utf-16")),
            ),
        )
        return ".".join(parts)

    def _edited(self, choices: Choices, token: str) -> str:
        """Change a member of the header or the claims, and leave the signature."""
        parts = token.split(".")
        place = choices.below(2)
        pairs = pairs_of(decoded(parts[place])) if len(parts) > 1 else None
        if pairs is not None:
            changed = edited(choices, pairs, (HEADER, CLAIMS)[place], self._values)
            parts[place] = base64url(text_of(changed).encode("utf-8", "surrogatepass"))
        return ".".join(parts)

    def _swapped(self, choices: Choices, token: str) -> str:
        """Use parts of other tokens, or the parts in another order or number."""
        parts, others = token.split("."), pick(choices, self._tokens).split(".")
        place = choices.below(len(parts))
        match choices.below(4):
            case 0:
                parts[place] = pick(choices, others)
            case 1:
                parts.insert(place, pick(choices, parts))
            case 2:
                del parts[place]
            case _:
                parts.reverse()
        return ".".join(parts)

    def _resigned(self, choices: Choices, token: str) -> str:
        """Sign the content with another issuer's key, or with a public key as an HMAC secret."""
        header, _, payload = token.rpartition(".")[0].partition(".")
        claims = dict(pairs_of(decoded(payload)) or [])
        signer = pick(choices, self._signers)
        # A token that an issuer signs in its own name is good, and not a mutant.
        is_its_own = claims.get("iss") == json.dumps(signer.issuer)
        key = signer.stranger if is_its_own or choices.below(2) else signer.private_key
        kind = choices.below(3)
        if kind:
            header = _header(signer.algorithm if kind == 1 else "HS256", signer.key_id)
        content = f"{header}.{payload}".encode("ascii", "replace").decode()
        if kind == 2:
            form = pick(choices, (Encoding.PEM, Encoding.DER))
            public = signer.private_key.public_key()
            secret = public.public_bytes(form, PublicFormat.SubjectPublicKeyInfo)
            signature = hmac.digest(secret, content.encode(), "sha256")
        else:
            signature = Draft({}, {}, key, signer.algorithm, 0).signature(content)
        return f"{content}.{base64url(signature)}"

    def _signed_otherwise(self, choices: Choices, token: str) -> str:
        """Keep what was signed, and change the signature."""
        signing_input, _, text = token.rpartition(".")
        raw = decoded(text)
        half = len(raw) // 2
        r, s = int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big")
        changed = pick(
            choices,
            (
                *(twin(raw, name) for name in ORDERS),
                *(bytes(len(raw)), b"\xff" * len(raw), b"", raw[:-1], raw[1:], raw + b"\x00"),
                *(raw[half:] + raw[:half], raw[:half] + bytes(half), b"\x00" + raw, raw + raw),
                *(encode_dss_signature(r, s), choices.data(64)),
            ),
        )
        return f"{signing_input}.{base64url(changed)}"
