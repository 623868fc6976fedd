"""``type = "jwt"``: the tokens that ``[tokens]`` describes, of this server or of another one."""

from __future__ import annotations

from collections.abc import Callable

from secure_server.auth.errors import AuthenticatorError
from secure_server.auth.jwt import JWTAuthenticator
from secure_server.auth.plugin import AuthenticatorContext, AuthenticatorType, LocalIssuer
from secure_server.fields import Section

MAX_TOKEN_LIFETIME = 3600.0
"""Seconds; the most that our issuer can be set to. A longer token is not ours."""

LEEWAY = 10.0
"""Seconds by which the clocks of our own machines may differ."""


class LocalIssuerSettings(Section):
    """There is nothing to set: ``[tokens]`` says it all."""


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
        """Say what is accepted."""
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
