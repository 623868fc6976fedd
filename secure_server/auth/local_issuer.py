"""``type = "jwt"``: tokens of the identity service, as ``[tokens]`` describes them."""

from __future__ import annotations

from collections.abc import Callable

from secure_server.auth.errors import AuthenticatorError
from secure_server.auth.jwt import JWTAuthenticator
from secure_server.auth.plugin import AuthenticatorContext, AuthenticatorType, LocalIssuer
from secure_server.fields import Section

MAX_TOKEN_LIFETIME = 3600.0
"""Seconds; the longest lifetime that the identity service can be configured to issue."""

LEEWAY = 10.0
"""Seconds by which the clocks of our own machines may differ."""


class LocalIssuerSettings(Section):
    """No settings of its own: ``[tokens]`` has them."""


class LocalIssuerAuthenticator(JWTAuthenticator):
    """A ``JWTAuthenticator`` for the tokens of the identity service."""

    def __init__(self, name: str, own: LocalIssuer, clock: Callable[[], float]) -> None:
        super().__init__(
            name=name,
            issuer=own.issuer,
            audience=own.audience,
            keys=own.keys,
            max_lifetime=MAX_TOKEN_LIFETIME,
            leeway=LEEWAY,
            clock=clock,
        )
        self._own = own

    def check(self) -> str:
        """Describe which tokens are accepted."""
        own = self._own
        return f"access tokens of {own.issuer} for {own.audience}, bound to a certificate"


def _build(
    _settings: LocalIssuerSettings, context: AuthenticatorContext
) -> LocalIssuerAuthenticator:
    if context.own is None:
        raise AuthenticatorError(
            "there are no keys to verify its tokens by: name a file with the issuer's public keys "
            "as [tokens] key_set, such as `secure-client keys > jwks.json` writes it."
        )
    return LocalIssuerAuthenticator(context.name, context.own, context.clock)


LOCAL_ISSUER = AuthenticatorType(LocalIssuerSettings, _build)
