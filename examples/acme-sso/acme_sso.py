"""``type = "acme-sso"``: callers who share a secret with us and sign each credential with it.

A credential is ``ACME-HMAC KEYID:TIMESTAMP:SIGNATURE``. The timestamp is in seconds since the
epoch; the signature is HMAC-SHA-256 (RFC 2104) over ``KEYID:TIMESTAMP:THUMBPRINT``, base64url
without padding. The thumbprint is that of the client certificate (RFC 8705, section 3.1), so that
a stolen credential is worthless with any other certificate.
"""

from __future__ import annotations

import base64
import hmac
import os
import re
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, ValidationError

from secure_server.plugins import (
    AuthenticationError,
    AuthenticatorContext,
    AuthenticatorError,
    AuthenticatorType,
    CredentialMatcher,
    Credentials,
    File,
    Peer,
    Principal,
    Reloaded,
    Scheme,
    Settings,
    signature,
)

SCHEME = "ACME-HMAC"
ISSUER = "acme-sso"
"""The issuer of the principals: ``request_principals = ["acme-sso/ci"]`` of a policy."""
WINDOW = 60
"""Seconds before and after its timestamp for which a credential is good."""

_VALUE = re.compile(r"([a-z0-9-]{1,64}):([0-9]{10}):([A-Za-z0-9_-]{43})")


class AcmeSettings(Settings):
    """The table of ``[[authenticators]]``, beside ``type`` and ``name``."""

    file: File
    """The keys: TOML, mode 0600. Reloaded as it changes."""


class Key(Settings):
    """One table ``[keys.KEYID]`` of the file."""

    # As long as the hash, or it is the weaker of the two (RFC 2104, section 3): 256 random bits.
    secret: Annotated[SecretStr, Field(min_length=43)]
    owner: Annotated[str, Field(min_length=1)]
    roles: frozenset[str] = frozenset()
    scopes: frozenset[str] = frozenset()


class KeyFile(Settings):
    """The whole of the file."""

    keys: dict[Annotated[str, Field(pattern="^[a-z0-9-]{1,64}$")], Key]


class AcmeAuthenticator:
    """Authenticates the owner of a key by a signature over the client certificate."""

    matchers: Collection[CredentialMatcher] = (Scheme(SCHEME),)

    def __init__(self, settings: AcmeSettings, context: AuthenticatorContext) -> None:
        """Raises ``AuthenticatorError`` for a file that cannot be used."""
        self.name = context.name
        self._clock = context.clock
        self._file = settings.file
        self._keys: Reloaded[Mapping[str, Key]] = Reloaded(
            f"keys {self.name}",
            lambda _: read_keys(settings.file),
            errors=(AuthenticatorError,),
            version=lambda: signature([settings.file]),
        )
        self._keys.subscribe(lambda _: context.cache_epoch.advance())
        self.close = context.reloads.follow(self._keys)

    def authenticate(self, credentials: Credentials | None, peer: Peer | None) -> Principal | None:
        """Say whose signature it is. Raises ``AuthenticationError``."""
        if credentials is None:
            return None
        match = _VALUE.fullmatch(credentials.value)
        if match is None:
            raise AuthenticationError("malformed", "It is not KEYID:TIMESTAMP:SIGNATURE.")
        if peer is None:
            raise AuthenticationError("cnf", "It needs the client certificate that was signed.")
        key_id, timestamp, signature = match[1], int(match[2]), match[3]
        key = self._keys.value.get(key_id)
        if key is None:
            raise AuthenticationError("acme_key", f"There is no key {key_id}.")
        now, good_until, whose = self._clock(), timestamp + WINDOW, {"sub": key.owner}
        if now < timestamp - WINDOW:
            raise AuthenticationError("clock", "From the future: compare clocks.", claims=whose)
        if now >= good_until:
            raise AuthenticationError("expired", "It was signed too long ago.", claims=whose)
        expected = _signature(key.secret.get_secret_value(), key_id, timestamp, peer.thumbprint)
        # In constant time, and as text: base64url has other spellings of the same bytes.
        if not hmac.compare_digest(signature, expected):
            raise AuthenticationError(
                "signature", "By another secret, or for another certificate.", claims=whose
            )
        return Principal(
            subject=key.owner,
            issuer=ISSUER,
            authenticator=self.name,
            roles=key.roles,
            scopes=key.scopes,
            client_id=key_id,
            token_id=f"{key_id}:{timestamp}",
            expires_at=good_until,
            thumbprint=peer.thumbprint,
        )

    def check(self) -> str:
        """Say what is accepted."""
        return (
            f"{SCHEME} signatures with the keys {', '.join(sorted(self._keys.value))} out of "
            f"{self._file}, for {WINDOW} seconds, over the certificate that was signed"
        )


def sign(key_id: str, secret: str, thumbprint: str, timestamp: int) -> str:
    """Return the ``authorization`` for calls over the certificate with this thumbprint."""
    return f"{SCHEME} {key_id}:{timestamp}:{_signature(secret, key_id, timestamp, thumbprint)}"


def _signature(secret: str, key_id: str, timestamp: int, thumbprint: str) -> str:
    text = f"{key_id}:{timestamp}:{thumbprint}"
    digest = hmac.digest(secret.encode(), text.encode(), "sha256")
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def read_keys(path: Path) -> Mapping[str, Key]:
    """Read the keys by their ids. Raises ``AuthenticatorError``, which never quotes a secret."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise AuthenticatorError(f"{path}: others can read the secrets: chmod 600 {path}.")
            return KeyFile.model_validate(tomllib.load(file)).keys
    except OSError as error:
        raise AuthenticatorError(f"{path}: cannot be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise AuthenticatorError(f"{path}: not TOML: {error}.") from None
    except ValidationError as error:
        problem = error.errors(include_input=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise AuthenticatorError(f"{path}: {where} is wrong: {problem['msg']}.") from None


ACME_SSO = AuthenticatorType(AcmeSettings, AcmeAuthenticator, api_version=1)
