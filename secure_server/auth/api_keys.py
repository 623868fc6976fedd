"""``type = "api_key"``: long random keys; a file holds their SHA-256 digests."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, Field, TypeAdapter, ValidationError

from secure_base.reloading import Reloaded, signature
from secure_server.auth.credentials import Credentials
from secure_server.auth.errors import AuthenticationError, AuthenticatorError
from secure_server.auth.key_source import KeySource
from secure_server.auth.matchers import CredentialMatcher, Prefix
from secure_server.auth.plugin import AuthenticatorContext, AuthenticatorType
from secure_server.auth.principal import Principal
from secure_server.fields import File, Name, Section, Word
from secure_tls.peer import Peer

PREFIX = "sgk_"
"""How each key begins, so that scanners for leaked secrets recognise it."""

_KEY = re.compile(rf"{PREFIX}([0-9a-f]{{16}})_[A-Za-z0-9_-]{{43}}", re.ASCII)
_OWNER = re.compile(r"[\w.@:/-]{1,128}")


class APIKeysSettings(Section):
    """The file of digests, and the issuer of the principals."""

    file: File
    """TOML, as `secure-server api-keys create` writes it; reloaded when it changes."""
    issuer: Name = "api-keys"
    """The issuer of the principals, for policies: ``request_principals = ["api-keys/ci"]``."""


def _check_owner(text: str) -> str:
    if not _OWNER.fullmatch(text):
        raise ValueError("is not 1 to 128 letters, digits and . _ @ : / -")
    return text


class _Entry(Section):
    id: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    owner: Annotated[str, AfterValidator(_check_owner)]
    sha256: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{43}$")]
    expires: AwareDatetime
    scopes: tuple[Word, ...] = ()
    roles: tuple[Word, ...] = ()


_ENTRIES: TypeAdapter[list[_Entry]] = TypeAdapter(list[_Entry])


@dataclass(frozen=True, slots=True)
class APIKey:
    """One key, without the key: ``digest`` is its SHA-256, ``expires_at`` seconds since the epoch.

    A fast digest is enough: 256 random bits cannot be guessed at any speed.
    """

    key_id: str
    owner: str
    digest: bytes
    expires_at: float
    scopes: frozenset[str]
    roles: frozenset[str]


class APIKeyAuthenticator:
    """Recognises callers by an API key as bearer token."""

    matchers: Collection[CredentialMatcher] = (Prefix(PREFIX),)
    ended_by = (
        "An API key is good as long as the server's file of keys lists it: have its table removed "
        "from that file."
    )

    def __init__(self, settings: APIKeysSettings, context: AuthenticatorContext) -> None:
        """Raises ``AuthenticatorError`` for a file that cannot be used."""
        self.name = context.name
        self._issuer = settings.issuer
        self._file = settings.file
        self._clock = context.clock
        keys: Reloaded[Mapping[str, APIKey]] = Reloaded(
            f"api-keys {context.name}",
            lambda _: read_api_keys(settings.file),
            errors=(AuthenticatorError,),
            version=lambda: signature([settings.file]),
            describe=lambda keys: {"keys": len(keys)},
        )
        self._keys = KeySource(
            keys,
            name=str(settings.file),
            bulkhead=context.bulkhead,
            cache_epoch=context.cache_epoch,
            close=context.reloads.follow(keys),
        )

    def authenticate(self, credentials: Credentials | None, peer: Peer | None) -> Principal | None:  # noqa: ARG002 - a key is good over any certificate
        """Return the owner of the key as a principal. Raises ``AuthenticationError``."""
        match = None if credentials is None else _KEY.fullmatch(credentials.value)
        if credentials is None or match is None:
            raise AuthenticationError(
                "malformed", "The bearer token begins like an API key, but is malformed."
            )
        key = self._keys.find(match[1])
        digest = hashlib.sha256(credentials.value.encode()).digest()
        if key is None or not hmac.compare_digest(digest, key.digest):
            raise AuthenticationError("api_key", f"There is no such API key ({match[1]}).")
        if self._clock() >= key.expires_at:
            raise AuthenticationError(
                "expired",
                f"The API key {match[1]} has expired.",
                claims={"iss": self._issuer, "sub": key.owner},
            )
        return Principal(
            subject=key.owner,
            issuer=self._issuer,
            authenticator=self.name,
            roles=key.roles,
            scopes=key.scopes,
            token_id=key.key_id,
            expires_at=key.expires_at,
        )

    def check(self) -> str:
        """Describe which keys are accepted. Raises ``AuthenticatorError``."""
        keys, now = self._keys.loaded().values(), self._clock()
        live = sum(key.expires_at > now for key in keys)
        return f"API keys out of {self._file}: {live} of {len(keys)} are in time"

    def close(self) -> None:
        self._keys.close()


def read_api_keys(path: Path) -> Mapping[str, APIKey]:
    """Read a file of API keys, by their ``id``. Raises ``AuthenticatorError``."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        entries = _ENTRIES.validate_python(document.pop("keys", []))
    except OSError as error:
        raise AuthenticatorError(f"{path}: cannot read the API keys: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise AuthenticatorError(f"{path}: not TOML: {error}.") from None
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        number, *rest = problem["loc"] or (0,)
        where = f"keys[{number}]" + "".join(f".{part}" for part in rest)
        raise AuthenticatorError(f"{path}: {where} is wrong: {problem['msg']}.") from None
    if document:
        raise AuthenticatorError(
            f"{path}: {next(iter(document))!r} is not known: only [[keys]] is."
        )
    keys = {
        entry.id: APIKey(
            entry.id,
            entry.owner,
            base64.urlsafe_b64decode(entry.sha256 + "="),
            entry.expires.timestamp(),
            frozenset(entry.scopes),
            frozenset(entry.roles),
        )
        for entry in entries
    }
    if len(keys) != len(entries):
        raise AuthenticatorError(f"{path}: two keys have the same `id`.")
    return MappingProxyType(keys)


def make_api_key(
    owner: str, *, scopes: Collection[str], roles: Collection[str], expires: datetime
) -> tuple[str, str]:
    """Return a new key, to be shown once, and the entry for the file, which holds only a digest.

    Raises ``pydantic.ValidationError`` for an owner, scope or role that the file cannot hold.
    """
    key_id = secrets.token_hex(8)
    key = f"{PREFIX}{key_id}_{secrets.token_urlsafe(32)}"
    digest = base64.urlsafe_b64encode(hashlib.sha256(key.encode()).digest()).rstrip(b"=").decode()
    entry = _Entry(
        id=key_id,
        owner=owner,
        sha256=digest,
        expires=expires,
        scopes=tuple(sorted(scopes)),
        roles=tuple(sorted(roles)),
    )
    lines = [
        "[[keys]]",
        f"id = {_toml(entry.id)}",
        f"owner = {_toml(entry.owner)}",
        f"sha256 = {_toml(entry.sha256)}",
        f"expires = {entry.expires.isoformat(timespec='seconds')}",
        f"scopes = [{', '.join(map(_toml, entry.scopes))}]",
        f"roles = [{', '.join(map(_toml, entry.roles))}]",
    ]
    return key, "\n".join(lines) + "\n"


def _toml(text: str) -> str:
    """Write a basic string (TOML 1.0); every JSON string is one."""
    return json.dumps(text, ensure_ascii=False)


API_KEYS = AuthenticatorType(APIKeysSettings, APIKeyAuthenticator)
