"""One call as an operator describes it, for asking a policy about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from secure_server.auth.principal import ANONYMOUS, Principal
from secure_server.authz import Policy
from secure_server.authz.errors import HeaderError
from secure_server.authz.headers import described_headers
from secure_tls.errors import SpiffeIDError
from secure_tls.peer import Peer
from secure_tls.spiffe import SpiffeID


class CallError(ValueError):
    """What was written describes no call."""


@dataclass(frozen=True, slots=True)
class Call:
    """What a policy decides about. ``peer`` is None without a client certificate."""

    method: str
    peer: Peer | None
    principal: Principal
    headers: Mapping[str, str]
    tls: bool = True


def principal_of(
    *,
    issuer: str | None = None,
    subject: str | None = None,
    roles: Iterable[str] = (),
    scopes: Iterable[str] = (),
    claims: Mapping[str, Any] | None = None,
) -> Principal:
    """Whom a token with these claims names; the anonymous where nothing is said.

    The claims ``iss``, ``sub``, ``roles`` and ``scope`` count as if said beside them.
    """
    if issuer is None and subject is None and claims is None and not (roles or scopes):
        return ANONYMOUS
    known = dict(claims or {})
    if issuer is not None:
        known["iss"] = issuer
    if subject is not None:
        known["sub"] = subject
    return Principal(
        subject=_text(known, "sub"),
        issuer=_text(known, "iss"),
        authenticator="claims",
        roles=frozenset((*roles, *_words(known, "roles"))),
        scopes=frozenset((*scopes, *_words(known, "scope"))),
        claims=known,
    )


def peer_of(
    *, uri_sans: Iterable[str] = (), dns_sans: Iterable[str] = (), subject: str = ""
) -> Peer:
    """Return the peer whose certificate says this; of it a policy looks at no more."""
    return Peer(
        spiffe_id=None,
        trust_domain=None,
        uri_sans=tuple(uri_sans),
        dns_sans=tuple(dns_sans),
        subject=subject,
        thumbprint="",
        issuer=b"",
        serial=1,
        not_before=0.0,
        not_after=0.0,
    )


def check_method(text: str) -> str:
    if not text.startswith("/"):
        raise CallError(f"{text!a} is no method: write its full path, /package.Service/Method.")
    return text


def check_spiffe_id(text: str) -> str:
    try:
        SpiffeID.parse(text)
    except SpiffeIDError as error:
        raise CallError(f"{text[:80]!a} is no SPIFFE ID. {error}") from None
    return text


def headers_of(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return what the door would hand to the policy of a call with these headers."""
    try:
        return described_headers(pairs)
    except HeaderError as error:
        raise CallError(str(error)) from None


def check_headers(policy: Policy, call: Call) -> None:
    """Refuse a call that no client can make, where the policy would decide otherwise of a real one.

    Raises `CallError`.
    """
    if call.principal.is_anonymous and "authorization" in call.headers:
        raise CallError(
            "A call with the header authorization is not anonymous: say whose it is, by the claims "
            "of its token, or leave the header out."
        )
    for name, who in (("user-agent", "every call"), ("authorization", "a caller with a token")):
        is_sent = name == "user-agent" or not call.principal.is_anonymous
        if is_sent and name not in call.headers and policy.reads_header(name):
            raise CallError(
                f"A rule of the policy reads the header {name}, which {who} has: give it, too."
            )


def _text(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name, "")
    if not isinstance(value, str):
        raise CallError(f"The claim {name} is not a text.")
    return value


def _words(claims: Mapping[str, Any], name: str) -> list[str]:
    """The claim's texts: a list, or one text where spaces part them (RFC 6749, section 3.3)."""
    value = claims.get(name, [])
    words = value.split() if isinstance(value, str) else value
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise CallError(f"The claim {name} is neither a text nor a list of texts.")
    return words
