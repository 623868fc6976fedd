"""The session that ``login`` opens, and the file that keeps it between commands."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from secure_client._private_files import locked, read_private, remove_private, write_private
from secure_client.errors import ProfileError, TokenError
from secure_client.tokens.source import AccessToken

if TYPE_CHECKING:
    from secure_api.tokens.v1.token_service_pb2 import Tokens


@dataclass(frozen=True, slots=True)
class Session:
    """Who is logged in where. ``refresh_expires_at`` is in seconds since the epoch.

    The tokens go to ``target`` and nowhere else.
    """

    user: str
    target: str
    token: AccessToken
    refresh_token: str = field(repr=False)
    refresh_expires_at: float

    def __reduce__(self) -> NoReturn:
        raise TypeError("A session holds secrets and is not pickled.")


class SessionFile:
    """``NAME.session.json`` of a profile: 0600, replaced whole, refused if others can read it."""

    def __init__(self, folder: Path, profile: str) -> None:
        self.profile = profile
        self.path = folder / f"{profile}.session.json"
        self._lock = folder / f"{profile}.session.lock"

    def load(self) -> Session | None:
        """The session, None where there is none.

        Raises ``ProfileError`` for a file that others can read, or that is damaged.
        """
        data = read_private(self.path)
        if data is None:
            return None
        session = _parse(data)
        if session is None:
            raise ProfileError(f"{self.path} is damaged: delete it and log in again.", self.path)
        return session

    def save(self, session: Session) -> None:
        """Write the session; it is on disk when this returns. Raises ``ProfileError``."""
        write_private(self.path, _render(session))

    def remove(self) -> None:
        """Delete the session. Raises ``ProfileError``."""
        remove_private(self.path)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the session against other processes and threads that change it."""
        with locked(self._lock, self.path):
            yield


def session_of(tokens: Tokens, user: str, target: str) -> Session:
    """The session that an answer to ``Login`` or ``Refresh`` opens."""
    return Session(
        user,
        target,
        AccessToken(tokens.access_token, tokens.access_token_expire_time.ToNanoseconds() / 1e9),
        tokens.refresh_token,
        tokens.refresh_token_expire_time.ToNanoseconds() / 1e9,
    )


def _render(session: Session) -> bytes:
    return json.dumps(
        {
            "user": session.user,
            "target": session.target,
            "access_token": session.token.value,
            "expires_at": session.token.expires_at,
            "refresh_token": session.refresh_token,
            "refresh_expires_at": session.refresh_expires_at,
        },
        indent=2,
    ).encode()


def _parse(data: bytes) -> Session | None:
    try:
        found = json.loads(data)
        return Session(
            str(found["user"]),
            str(found["target"]),
            AccessToken(str(found["access_token"]), float(found["expires_at"])),
            str(found["refresh_token"]),
            float(found["refresh_expires_at"]),
        )
    except (ValueError, KeyError, TypeError, RecursionError, TokenError):
        return None
