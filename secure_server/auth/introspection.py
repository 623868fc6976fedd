"""``type = "introspection"``: opaque tokens, verified by asking their issuer (RFC 7662)."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any
from urllib.parse import quote

from pydantic import Field, model_validator

from secure_base.bounded_cache import BoundedCache
from secure_base.reloading import Reloaded, signature
from secure_base.single_flight import SingleFlight
from secure_server.auth import claims as read
from secure_server.auth.circuit import Circuit
from secure_server.auth.credentials import Credentials
from secure_server.auth.errors import (
    AuthenticationError,
    AuthenticatorError,
    AuthenticatorUnavailable,
)
from secure_server.auth.fetch import TIMEOUT, Fetcher, FetchError
from secure_server.auth.jws import read_json
from secure_server.auth.matchers import CredentialMatcher, Opaque
from secure_server.auth.oidc import LEEWAY
from secure_server.auth.plugin import AuthenticatorContext, AuthenticatorType
from secure_server.auth.principal import Principal
from secure_server.auth.role_map import RoleMap
from secure_server.fields import URL, File, Name, Section, Word
from secure_tls.errors import TLSFileError
from secure_tls.peer import Peer
from secure_tls.pem import read_secret

_FAILURES, _PAUSE = 5, 5.0  # in a row; seconds
_REFUSED_FOR = 5.0
"""Seconds for which the answer "not active" is cached."""
_MOST_ANSWERS = 10_000


class IntrospectionSettings(Section):
    """Which endpoint to ask, and what its answer must say."""

    endpoint: URL
    issuer: URL
    """The issuer of the tokens; must equal the answer's ``iss``, where it has one."""
    audience: Name
    """A value that the answer's ``aud`` must contain."""
    client_id: Name
    client_secret_file: File
    """The file of this server's client secret (HTTP Basic); mode 0600."""
    cache: Annotated[float, Field(ge=0, le=300)] = 30.0
    """Seconds for which an answer is cached; a revoked token works for at most as long."""
    roles_claim: Name | None = None
    roles: dict[str, Word] = Field(default_factory=dict)
    certificate_bound: bool = False
    ca: File | None = None
    allow_private_addresses: bool = False

    @model_validator(mode="after")
    def _check_roles(self) -> IntrospectionSettings:
        RoleMap.of_settings(self.roles_claim, self.roles)
        return self


class _Answer:
    """The issuer's answer about a token, or its failure; cached ``until``, by our clock."""

    __slots__ = ("error", "members", "until")

    def __init__(
        self, until: float, members: dict[str, Any], error: AuthenticationError | None = None
    ) -> None:
        self.until = until
        self.members = members
        self.error = error


class IntrospectionAuthenticator:
    """Recognises opaque tokens by asking their issuer; answers are cached for a short while.

    A class because it caches answers, by digests of the tokens. The guard's own cache keeps the
    principal until ``Principal.recheck_at``.
    """

    matchers: Collection[CredentialMatcher] = (Opaque(),)

    def __init__(self, settings: IntrospectionSettings, context: AuthenticatorContext) -> None:
        """Raises ``AuthenticatorError`` for a secret or CA bundle that cannot be used."""
        self.name = context.name
        self._settings = settings
        self._clock = context.clock
        self._bulkhead = context.bulkhead
        self._roles = RoleMap.of_settings(settings.roles_claim, settings.roles)
        self._circuit = Circuit(failures=_FAILURES, pause=_PAUSE)
        self._answers: BoundedCache[bytes, _Answer] = BoundedCache(_MOST_ANSWERS)
        # Calls that wait for another call's request: as long as it may take at two addresses.
        self._questions: SingleFlight[bytes, _Answer] = SingleFlight(2 * TIMEOUT)
        try:
            self._fetcher = Fetcher(
                ca=settings.ca, allow_private_addresses=settings.allow_private_addresses
            )
        except FetchError as error:
            raise AuthenticatorError(str(error)) from None
        self._secret: Reloaded[str] = Reloaded(
            f"introspection-secret {context.name}",
            lambda _: _read_secret(settings.client_secret_file),
            errors=(AuthenticatorError,),
            version=lambda: signature([settings.client_secret_file]),
        )
        self._closing = ExitStack()
        self._closing.callback(self._fetcher.close)
        self._closing.callback(self._fetcher.follow_ca(context.reloads, context.name))
        self._closing.callback(context.reloads.follow(self._secret))

    def authenticate(self, credentials: Credentials | None, peer: Peer | None) -> Principal | None:
        """Return the principal.

        Raises ``AuthenticationError``, and ``AuthenticatorUnavailable`` where the issuer does not
        answer.
        """
        if credentials is None:
            return None
        return self._recognise(credentials.value, peer, over_peer=True)

    def verify(self, text: str) -> Principal:
        """Return the principal of a token without checking its binding to a certificate.

        For revocation, never for admission.

        Raises ``AuthenticationError``, and ``AuthenticatorUnavailable`` as ``authenticate`` does.
        """
        return self._recognise(text, None, over_peer=False)

    def _recognise(self, token: str, peer: Peer | None, *, over_peer: bool) -> Principal:
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        answer = self._answers.get(digest)
        if answer is None or answer.until <= self._clock():
            answer = self._ask_once(digest, token)
        if answer.error is not None:
            raise type(answer.error)(answer.error.code, str(answer.error))
        try:
            return self._principal(answer, digest, peer, over_peer=over_peer)
        except AuthenticationError as error:
            error.claims = read.unverified(answer.members)
            raise

    def check(self) -> str:
        """Ask about a token that does not exist, and describe what is accepted.

        Raises ``AuthenticatorError``.
        """
        try:
            self._ask("secure-server-check")
        except AuthenticatorUnavailable as error:
            raise AuthenticatorError(str(error)) from None
        except AuthenticationError:
            pass  # not active: the right answer about a token that does not exist
        return (
            f"opaque tokens of {self._settings.issuer} for {self._settings.audience}, by asking "
            f"{self._settings.endpoint}"
        )

    def close(self) -> None:
        self._closing.close()

    def _ask_once(self, digest: bytes, token: str) -> _Answer:
        answer = self._questions.do(
            digest, lambda: self._answer(digest, token), waiting=self._bulkhead.waiting
        )
        if answer is None:
            raise AuthenticatorUnavailable("introspection", "The answer takes too long.")
        return answer

    def _answer(self, digest: bytes, token: str) -> _Answer:
        try:
            members = self._ask(token)
        except AuthenticatorUnavailable as error:
            return _Answer(0.0, {}, error)  # a failure is not cached
        except AuthenticationError as error:
            answer = _Answer(self._clock() + _REFUSED_FOR, {}, error)
        else:
            answer = _Answer(self._clock() + self._settings.cache, members)
        self._answers.put(digest, answer)
        return answer

    def _ask(self, token: str) -> dict[str, Any]:
        """Return the members of an answer that says active. Raises ``AuthenticationError``."""
        settings = self._settings
        if not self._circuit.try_pass():
            raise AuthenticatorUnavailable("introspection", f"{settings.endpoint} is down.")
        self._secret.look()  # the issuer may have changed it: reload it
        with self._bulkhead.waiting():
            try:
                body = self._fetcher.post(
                    settings.endpoint,
                    {"token": token, "token_type_hint": "access_token"},
                    (quote(settings.client_id, safe=""), quote(self._secret.value, safe="")),
                )
            except FetchError as error:
                self._circuit.report(answered=False)
                raise AuthenticatorUnavailable("introspection", str(error)) from None
        self._circuit.report(answered=True)
        try:
            members = read_json(body)
        except (ValueError, RecursionError):
            members = None
        if not isinstance(members, dict) or not isinstance(members.get("active"), bool):
            raise AuthenticationError("introspection", f"{settings.endpoint} answers nonsense.")
        if not members["active"]:
            raise AuthenticationError("inactive", "The issuer says that the token is not active.")
        return members

    def _principal(
        self, answer: _Answer, digest: bytes, peer: Peer | None, *, over_peer: bool
    ) -> Principal:
        members, now, settings = answer.members, self._clock(), self._settings
        expires = read.time_of(members, "exp") if "exp" in members else None
        if expires is not None and now >= expires + LEEWAY:
            raise AuthenticationError("expired", "The token has expired.")
        read.check_times(members, now, LEEWAY)
        if members.get("iss", settings.issuer) != settings.issuer:
            raise AuthenticationError("iss", "The token is another issuer's.")
        read.check_audience(members, settings.audience)
        thumbprint = read.thumbprint_of(members)
        if settings.certificate_bound and not thumbprint:
            raise AuthenticationError("cnf", "The token is not bound to a certificate.")
        if over_peer and thumbprint:
            read.check_binding(thumbprint, peer)
        client_id = read.text_of(members, "client_id") if "client_id" in members else ""
        return Principal(
            # A client that acts for itself is the subject (RFC 9068, section 2.2).
            subject=read.text_of(members, "sub")
            if "sub" in members or not client_id
            else client_id,
            issuer=settings.issuer,
            authenticator=self.name,
            roles=self._roles.of(members),
            scopes=read.scopes_of(members),
            client_id=client_id,
            token_id=read.text_of(members, "jti") if "jti" in members else _token_id(digest),
            expires_at=expires,
            recheck_at=answer.until,
            thumbprint=thumbprint,
            claims=MappingProxyType(members),
        )


def _read_secret(path: Path) -> str:
    try:
        secret = read_secret(path, allow_readable=False).decode("utf-8").strip()
    except TLSFileError as error:
        raise AuthenticatorError(str(error)) from None
    except UnicodeDecodeError:
        raise AuthenticatorError(f"{path}: not UTF-8.") from None
    if not secret:
        raise AuthenticatorError(f"{path}: empty.")
    return secret


def _token_id(digest: bytes) -> str:
    """Return the ID to revoke by: a digest of the text, for an opaque token has one spelling."""
    return "sha256:" + base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


INTROSPECTION = AuthenticatorType(IntrospectionSettings, IntrospectionAuthenticator)
