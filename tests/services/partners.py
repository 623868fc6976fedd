"""A house whose policy allows everything, and a second issuer whose users have the same names.

The policy is the first line of defence. Here it allows every call, so that tests see the second:
the rules of the services themselves.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from services.people import Person, fresh

from secure_api.tokens.v1 import token_service_pb2 as tokens_pb
from secure_server.plugins import (
    AuthenticationError,
    AuthenticatorContext,
    AuthenticatorType,
    CredentialMatcher,
    Credentials,
    Peer,
    Prefix,
    Principal,
    Settings,
)
from support.house import House, running_house

PARTNER = "https://partner.example"
EVERYTHING = {"name": "everything", "allow_rules": [{"name": "everybody"}]}

_PREFIX = "vouched_"


class PartnerAuthenticator:
    """Accepts every claim of its token: the partner may choose each of them."""

    matchers: Collection[CredentialMatcher] = (Prefix(_PREFIX),)

    def __init__(self, _settings: Settings, context: AuthenticatorContext) -> None:
        self.name = context.name

    def authenticate(self, credentials: Credentials | None, _peer: Peer | None) -> Principal | None:
        if credentials is None:
            return None
        try:
            said = json.loads(base64.urlsafe_b64decode(credentials.value.removeprefix(_PREFIX)))
        except ValueError:
            raise AuthenticationError("malformed", "It is not what the partner signs.") from None
        return Principal(
            issuer=PARTNER, authenticator=self.name, **said | {"roles": frozenset(said["roles"])}
        )

    def check(self) -> str:
        return f"whatever {PARTNER} says"


PARTNER_TYPE = AuthenticatorType(Settings, PartnerAuthenticator)


def partners_token(subject: str, *roles: str, **more: Any) -> str:
    """A token of the partner. ``more`` may be ``token_id``, ``session_id``, ``client_id``."""
    said = {"subject": subject, "roles": roles, "expires_at": time.time() + 300} | more
    return _PREFIX + base64.urlsafe_b64encode(json.dumps(said).encode()).decode()


def namesake(house: House, person: Person, *roles: str, **more: Any) -> Person:
    """The partner's user with the same ``sub``, and a client certificate of its own."""
    name = fresh("namesake")
    token = partners_token(person.resource, *roles, **more)
    return Person(house, name, house.client(name), tokens_pb.Tokens(access_token=token))


def _announce(site: Path) -> None:
    """Write the metadata of an installed package that announces the partner's authenticator."""
    info = site / "partner-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: partner\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        f"[secure_server.authenticators]\npartner = {__name__}:PARTNER_TYPE\n"
    )


@contextmanager
def open_house(root: Path) -> Iterator[House]:
    """Run the house, with the partner as a second issuer."""
    _announce(root / "site")
    (root / "policy.json").write_text(json.dumps(EVERYTHING))
    settings = (
        '[policy]\nfile = "policy.json"\n'
        '[[authenticators]]\ntype = "jwt"\n'
        '[[authenticators]]\ntype = "partner"\n'
        '[[workloads]]\nspiffe_id = "spiffe://example.org/client/workload"\nscopes = ["read"]\n'
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(root / "site")
        with running_house(root, settings) as house:
            yield house
