"""Checks that every accepted credential, key set and answer is good."""

from __future__ import annotations

import json
import tempfile
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa

from benchmarks.mutants import Mutants, Signer, base64url, decoded, twin
from secure_server.auth import jws
from secure_server.auth.api_keys import API_KEYS, APIKeysSettings, make_api_key
from secure_server.auth.authenticators import Authenticators
from secure_server.auth.bulkhead import Bulkhead
from secure_server.auth.certificate import CertificateAuthenticator
from secure_server.auth.credentials import Credentials
from secure_server.auth.errors import AuthenticationError
from secure_server.auth.introspection import IntrospectionAuthenticator, IntrospectionSettings
from secure_server.auth.jwt import JWTAuthenticator
from secure_server.auth.key_sets import KeySetError, parse_key_set
from secure_server.auth.keys import ALGORITHMS, VerificationKey, fits
from secure_server.auth.plugin import AuthenticatorContext, build
from secure_server.auth.profiles import OWN, PROFILES
from secure_server.testing import Issuer
from secure_tls.authority import Authority
from secure_tls.peer import parse_peer

_AUDIENCE = "example"
_LEEWAY = 30.0
_ANSWERS_FROM = "https://opaque.example.org"


class AcceptedMutantError(AssertionError):
    """A mutant without a valid signature was accepted."""


class _Canned:
    """Replaces the network by a given answer."""

    def __init__(self) -> None:
        self.body = b""

    def post(self, *_: object) -> bytes:
        return self.body

    def close(self) -> None:
        """Do nothing: no connection is open."""


class Verdicts:
    """Authenticators of all our types, a few credentials that they accept, and mutants of these.

    Its clock does not move: what was good stays good. Each method returns ``refused``, or why an
    accepted input is good; raises ``AcceptedMutantError`` where it is not; and passes on any
    exception of the code under test that is not its own error.
    """

    def __init__(self) -> None:
        self._now = now = time.time()
        self._folder = tempfile.TemporaryDirectory(prefix="mutants-")
        folder = Path(self._folder.name)
        self._peer = parse_peer(Authority.create("example.org").issue_client("a").certificate_pem)

        issuers = [(_issuer(name.lower(), name, now), name) for name in ALGORITHMS]
        issuers.append((_issuer("own", "ES256", now), "ES256"))
        self._signers = [Signer.of(issuer, algorithm) for issuer, algorithm in issuers]
        key, file = _api_key(folder)
        self._context = AuthenticatorContext("api_key", lambda: now, Bulkhead(1))
        self._chain = Authenticators(
            [
                *(_jwt(issuer, now) for issuer, _ in issuers),
                build(API_KEYS, APIKeysSettings(file=file), self._context),
                CertificateAuthenticator("certificate", {}),
            ]
        )
        # Bound to the certificate and, except for our own issuer, to none.
        tokens = [issuer.token(self._peer.thumbprint) for issuer, _ in issuers]
        tokens += [issuer.token(None, subject="bob") for issuer, _ in issuers[:-1]]
        self._known = {
            text: self._chain.authenticate(Credentials("bearer", text), self._peer)
            for text in (*tokens, key)
        }
        algorithms = [algorithm for _, algorithm in (*issuers, *issuers[:-1])]
        self._twins = {
            _with_twin(token, algorithm): token
            for token, algorithm in zip(tokens, algorithms, strict=True)
        }
        self.mutants = Mutants(self._signers, (*tokens, key))
        self.jwks: list[dict[str, Any]] = [
            jwk for issuer, _ in issuers for jwk in json.loads(issuer.jwks())["keys"]
        ]
        self._asked, self._canned = _introspection(folder, self._context)
        self.members: dict[str, Any] = {
            "active": True,
            "iss": _ANSWERS_FROM,
            "aud": _AUDIENCE,
            "sub": "alice",
            "exp": int(now) + 600,
            "cnf": {"x5t#S256": self._peer.thumbprint},
        }
        self._count = 0

    def close(self) -> None:
        """Let go of threads and files."""
        self._chain.close()
        self._asked.close()
        self._folder.cleanup()

    def text(self, text: str) -> str:
        """Read any text as a token and as credentials."""
        with suppress(AuthenticationError):
            jws.parse(text)
        return self.authorization(text)

    def authorization(self, text: str) -> str:
        """Ask the chain. A ``twin`` is another signature of the very same content."""
        try:
            credentials = Credentials.parse(text)
            principal = self._chain.authenticate(credentials, self._peer)
        except AuthenticationError:
            return "refused"
        original = self._twins.get(credentials.value, credentials.value)
        # Equal principals have equal token IDs: revoking one spelling revokes all.
        if credentials.scheme != "bearer" or self._known.get(original) != principal:
            raise AcceptedMutantError(text)
        return "known" if original == credentials.value else "twin"

    def key_set(self, text: bytes) -> str:
        """Read a key set, and look at each key that was taken."""
        try:
            keys, _ = parse_key_set(text, "here")
        except KeySetError:
            return "refused"
        for jwk in json.loads(text)["keys"]:
            name = jwk.get("kid") if isinstance(jwk, dict) else None
            key = keys.get(name) if isinstance(name, str) else None
            if key is not None and not _may_verify(jwk, key):
                raise AcceptedMutantError(text)
        return "usable"

    def answer(self, body: bytes) -> str:
        """Have an answer of introspection read."""
        self._canned.body = body
        self._count += 1  # another token each time, so that nothing is cached
        try:
            self._asked.authenticate(Credentials("bearer", f"opaque-{self._count}"), self._peer)
        except AuthenticationError:
            return "refused"
        members = json.loads(body)
        audience = members.get("aud")
        if (
            members["active"] is not True
            or _AUDIENCE not in (audience if isinstance(audience, list) else [audience])
            or members.get("iss", _ANSWERS_FROM) != _ANSWERS_FROM
            or not self._now - _LEEWAY < members.get("exp", self._now)
            or members.get("cnf", self.members["cnf"]) != self.members["cnf"]
        ):
            raise AcceptedMutantError(body)
        return "active"


def _may_verify(jwk: dict[str, Any], key: VerificationKey) -> bool:
    public = key.public_key
    if isinstance(public, rsa.RSAPublicKey) and (
        not 2048 <= public.key_size <= 8192 or public.public_numbers().e < 65537
    ):
        return False
    return (
        fits(key.algorithm, public)
        and jwk.get("alg", key.algorithm) == key.algorithm
        and jwk.get("use", "sig") == "sig"
        and "verify" in jwk.get("key_ops", ["verify"])
        and not {"d", "k"} & jwk.keys()
    )


def _issuer(name: str, algorithm: str, now: float) -> Issuer:
    return Issuer(f"https://{name}.example.org", _AUDIENCE, algorithm=algorithm, clock=lambda: now)


def _jwt(issuer: Issuer, now: float) -> JWTAuthenticator:
    is_own = issuer.name == "https://own.example.org"
    return JWTAuthenticator(
        name=issuer.name,
        issuer=issuer.name,
        audience=issuer.audience,
        keys=issuer.key_set.get,
        max_lifetime=3600,
        leeway=_LEEWAY,
        clock=lambda: now,
        profile=OWN if is_own else PROFILES["rfc9068"],
        must_be_bound=is_own,
    )


def _with_twin(token: str, algorithm: str) -> str:
    signing_input, _, signature = token.rpartition(".")
    return f"{signing_input}.{base64url(twin(decoded(signature), algorithm))}"


def _api_key(folder: Path) -> tuple[str, Path]:
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    key, entry = make_api_key("ci", scopes=(), roles=(), expires=tomorrow)
    file = folder / "api-keys.toml"
    file.write_text(entry)
    return key, file


def _introspection(
    folder: Path, context: AuthenticatorContext
) -> tuple[IntrospectionAuthenticator, _Canned]:
    secret = folder / "secret"
    secret.touch(mode=0o600)
    secret.write_text("secret")
    settings = IntrospectionSettings(
        endpoint=f"{_ANSWERS_FROM}/introspect",
        issuer=_ANSWERS_FROM,
        audience=_AUDIENCE,
        client_id="guard",
        client_secret_file=secret,
    )
    asked, canned = IntrospectionAuthenticator(settings, context), _Canned()
    asked.close()
    asked._fetcher = canned  # type: ignore[assignment]  # noqa: SLF001 - not used again
    return asked, canned
