"""The rules for the tokens of each kind of issuer, by the profile's name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from secure_server.auth.claims import Claims, text_of, time_of
from secure_server.auth.errors import AuthenticationError

_HOUR = 3600.0
_DAY = 24 * _HOUR
_AT_JWT = frozenset({"at+jwt", "application/at+jwt"})  # RFC 9068, section 2.1
_JWT = frozenset({"jwt"})
_UNTYPED = frozenset({""})


def _nothing(_claims: Claims, _audience: str) -> None:
    """Demand nothing more."""


@dataclass(frozen=True, slots=True)
class Profile:
    """The rules for the tokens of one kind of issuer, beyond those for all.

    All tokens have ``iss``, ``aud``, ``sub`` and ``exp``. ``types`` are the values of ``typ`` in
    lower case, with "" where it may be missing; ``required`` are text claims that must be present;
    ``max_lifetime`` is seconds from ``iat`` to ``exp``. ``revoked_by`` is the claim to revoke by,
    or empty: then revocation uses a digest of the claims.
    """

    name: str
    types: frozenset[str]
    required: tuple[str, ...] = ()
    max_lifetime: float = _HOUR
    revoked_by: str = "jti"
    client_id: tuple[str, ...] = ("client_id",)
    """The claims that may name the client; the first one present is used."""
    scopes: str = "scope"
    session: str = ""
    """The claim that names a session of the identity service; other issuers have none."""
    check: Callable[[Claims, str], None] = _nothing


def _check_id_token(claims: Claims, audience: str) -> None:
    """OpenID Connect Core 1.0, section 3.1.3.7, steps 4 and 5."""
    others = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
    if (others or "azp" in claims) and claims.get("azp") != audience:
        raise AuthenticationError("azp", "The ID token was issued to another client.")


def _check_google(claims: Claims, _audience: str) -> None:
    if "email" in claims and claims.get("email_verified") is not True:
        raise AuthenticationError("email_verified", "Google has not verified the e-mail address.")


def _check_kubernetes(claims: Claims, _audience: str) -> None:
    """Compare the subject with the structured claims: both must name the same service account."""
    details = claims.get("kubernetes.io")
    account = details.get("serviceaccount") if isinstance(details, dict) else None
    if not isinstance(details, dict) or not isinstance(account, dict):
        raise AuthenticationError("kubernetes.io", "The token is not of a service account.")
    name = f"system:serviceaccount:{text_of(details, 'namespace')}:{text_of(account, 'name')}"
    if claims.get("sub") != name:
        raise AuthenticationError("sub", "The subject is not the token's service account.")


def _check_github(claims: Claims, _audience: str) -> None:
    owner, _, _ = text_of(claims, "repository").partition("/")
    if owner != text_of(claims, "repository_owner"):
        raise AuthenticationError("repository_owner", "The repository is not its owner's.")


def _check_entra(claims: Claims, _audience: str) -> None:
    if claims.get("ver") != "2.0":
        raise AuthenticationError("ver", "The token is not of version 2.0 of Entra's.")
    # The issuer was compared as a whole; this checks that it is the tenant's own.
    if f"/{text_of(claims, 'tid')}/" not in text_of(claims, "iss"):
        raise AuthenticationError("tid", "The token is of another tenant than its issuer's.")
    if claims.get("idtyp", "user") not in {"user", "app"}:
        raise AuthenticationError("idtyp", "The token is neither a user's nor an application's.")


_ALL = (
    # RFC 9068, sections 2.1 and 2.2: access tokens as the standard has them.
    Profile("rfc9068", _AT_JWT, ("client_id", "jti"), max_lifetime=_DAY),
    # OpenID Connect Core 1.0, section 2.
    Profile(
        "id_token",
        _JWT | _UNTYPED,
        max_lifetime=_DAY,
        revoked_by="",
        client_id=("azp",),
        check=_check_id_token,
    ),
    # ID tokens of Google's accounts and service accounts; `azp` may be another than the audience.
    Profile("google", _JWT, ("azp",), revoked_by="", client_id=("azp",), check=_check_google),
    # Bound service-account tokens. Older clusters give them no jti.
    Profile("kubernetes", _UNTYPED, max_lifetime=_DAY, revoked_by="", check=_check_kubernetes),
    # GitHub Actions: a job's token.
    Profile(
        "github",
        _JWT,
        ("jti", "repository", "repository_owner", "workflow"),
        check=_check_github,
    ),
    # Microsoft Entra, access tokens of version 2.0; with continuous access evaluation they live
    # longer than a day.
    Profile(
        "entra",
        _JWT,
        ("azp", "oid", "uti"),
        max_lifetime=28 * _HOUR,
        revoked_by="uti",
        client_id=("azp",),
        scopes="scp",
        check=_check_entra,
    ),
)

PROFILES: Mapping[str, Profile] = MappingProxyType({profile.name: profile for profile in _ALL})

OWN = Profile("own", _AT_JWT, ("client_id", "jti"), session="sid")
"""The tokens of the identity service."""


def lifetime(claims: Claims) -> float:
    """Return how long a token lives, in seconds: from ``iat``, which every profile demands."""
    return time_of(claims, "exp") - time_of(claims, "iat")
