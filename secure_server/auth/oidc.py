"""``type = "oidc"``: the tokens of an OpenID Connect provider or OAuth authorization server."""

from __future__ import annotations

from contextlib import ExitStack
from types import MappingProxyType
from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from secure_base.reloading import Fetched, Reloaded
from secure_server.auth.discovery import fetching, follow_key_file, key_names, key_set_url
from secure_server.auth.errors import AuthenticatorError
from secure_server.auth.fetch import Fetcher, FetchError
from secure_server.auth.jwt import JWTAuthenticator
from secure_server.auth.key_source import FETCHED, KeySource
from secure_server.auth.keys import KeySet, VerificationKey
from secure_server.auth.plugin import AuthenticatorContext, AuthenticatorType
from secure_server.auth.profiles import PROFILES
from secure_server.auth.role_map import RoleMap
from secure_server.fields import URL, File, Name, Section, Word

LEEWAY = 30.0
"""Seconds by which an issuer's clock may differ from ours."""

MAX_LIFETIME = 7 * 86400.0
"""Seconds; the most that ``max_lifetime`` can be set to."""

Algorithm = Literal["RS256", "PS256", "ES256", "ES384", "ES512", "EdDSA"]


class OIDCSettings(Section):
    """The rules for one issuer's tokens, and where its keys are."""

    profile: Literal["rfc9068", "id_token", "google", "kubernetes", "github", "entra"]
    issuer: URL
    """The claim ``iss``, compared byte by byte."""
    audience: Name
    """A value that the claim ``aud`` must contain."""
    subject_claim: Name = "sub"
    roles_claim: Name | None = None
    roles: dict[str, Word] = Field(default_factory=dict)
    """Maps values of that claim to our roles; values that are not listed give none."""
    algorithms: Annotated[tuple[Algorithm, ...], Field(min_length=1)] = get_args(Algorithm)
    max_lifetime: Annotated[float, Field(gt=0, le=MAX_LIFETIME)] | None = None
    """Seconds; the profile's own by default."""
    certificate_bound: bool = False
    """Accept no token that is not bound to the caller's certificate (RFC 8705)."""
    jwks_uri: URL | None = None
    """The URL of the keys, for issuers without discovery."""
    key_set: File | None = None
    """A JWKS file instead; nothing is fetched."""
    ca: File | None = None
    """Authorities (PEM) to trust when fetching; the system's by default."""
    allow_private_addresses: bool = False

    @model_validator(mode="after")
    def _check_together(self) -> OIDCSettings:
        RoleMap.of_settings(self.roles_claim, self.roles)
        if self.jwks_uri is not None and self.key_set is not None:
            raise ValueError("has both jwks_uri and key_set: the keys come from one place")
        return self


class OIDCAuthenticator(JWTAuthenticator):
    """A ``JWTAuthenticator`` with the source of its keys."""

    def __init__(self, settings: OIDCSettings, context: AuthenticatorContext) -> None:
        """Raises ``AuthenticatorError``."""
        profile = PROFILES[settings.profile]
        self._source = _key_source(settings, context)
        self._settings = settings
        super().__init__(
            name=context.name,
            issuer=settings.issuer,
            audience=settings.audience,
            keys=self._source.find,
            max_lifetime=settings.max_lifetime or profile.max_lifetime,
            leeway=LEEWAY,
            clock=context.clock,
            profile=profile,
            must_be_bound=settings.certificate_bound,
            subject_claim=settings.subject_claim,
            roles=RoleMap.of_settings(settings.roles_claim, settings.roles),
        )

    @property
    def token_lifetime(self) -> float:
        """Seconds. Not the configured value, which may be raised while a token still lives."""
        return MAX_LIFETIME

    def check(self) -> str:
        """Wait for the keys and describe what is accepted. Raises ``AuthenticatorError``."""
        keys = self._source.loaded()
        named = ", ".join(f"{key.key_id} ({key.algorithm})" for key in keys.values())
        settings = self._settings
        bound = ", bound to a certificate" if settings.certificate_bound else ""
        return (
            f"{settings.profile} tokens of {settings.issuer} for {settings.audience}{bound}, "
            f"signed by {named}"
        )

    def close(self) -> None:
        self._source.close()


def _key_source(
    settings: OIDCSettings, context: AuthenticatorContext
) -> KeySource[VerificationKey]:
    if settings.key_set is not None:
        return follow_key_file(
            settings.key_set,
            settings.issuer,
            reloads=context.reloads,
            bulkhead=context.bulkhead,
            cache_epoch=context.cache_epoch,
            algorithms=settings.algorithms,
        )
    try:
        fetcher = Fetcher(ca=settings.ca, allow_private_addresses=settings.allow_private_addresses)
    except FetchError as error:
        raise AuthenticatorError(str(error)) from None
    closing = ExitStack()
    closing.callback(fetcher.follow_ca(context.reloads, context.name))

    def location() -> str:
        return settings.jwks_uri or key_set_url(fetcher, settings.issuer)

    nothing: KeySet = MappingProxyType({})
    keys = Fetched(
        Reloaded(
            f"keys {settings.issuer}",
            fetching(fetcher, location, settings.algorithms),
            errors=(AuthenticatorError,),
            first=nothing,
            describe=key_names,
        ),
        FETCHED,
        stale=nothing,
        release=fetcher.close,
    )
    closing.callback(context.reloads.add(keys.status))
    closing.callback(keys.close)
    source: KeySource[VerificationKey] = KeySource(
        keys,
        name=settings.issuer,
        bulkhead=context.bulkhead,
        cache_epoch=context.cache_epoch,
        close=closing.close,
    )
    keys.start()
    return source


OIDC = AuthenticatorType(OIDCSettings, OIDCAuthenticator)
