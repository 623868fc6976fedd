"""What all commands share: the settings in force, the session, and channels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    import grpc

    from secure_client.connection_settings import ConnectionSettings
    from secure_client.profile import Profile
    from secure_client.session import Session
    from secure_client.tokens.session import SessionTokenSource


class UsageProblem(Exception):  # noqa: N818 - a mistake of the user, not of the program
    """Something local is wrong: a file, a missing terminal, an argument."""


@dataclass
class RunState:
    """One run of the command line."""

    flags: dict[str, str | None] = field(default_factory=dict)
    profile_name: str | None = None
    as_json: bool = False

    @cached_property
    def profile(self) -> Profile:
        from secure_client.profile import Profile

        return Profile.named(self.profile_name)

    @cached_property
    def connection(self) -> ConnectionSettings:
        from secure_client.connection_settings import find_connection

        return find_connection(self.flags, profile=self.profile)

    @cached_property
    def source(self) -> SessionTokenSource:
        from secure_client.tokens.session import SessionTokenSource

        return SessionTokenSource(self.profile.name, connection=self.connection)

    def session(self) -> Session | None:
        """The session at this target: another target's tokens stay where they are."""
        session = self.profile.session.load()
        if session is None or session.target != self.connection.target:
            return None
        return session

    @contextmanager
    def channel(self, *, authenticated: bool = True) -> Iterator[grpc.Channel]:
        """A channel that carries the session's token, where there is a session.

        A failed call comes out as ``CallError``.
        """
        source = self.source if authenticated and self.session() is not None else None
        with self.connection.open(source) as channel:
            if source is not None:
                # Fetched here, since an error inside a call may not say what is wrong.
                source.token()
            with calling():
                yield channel


@contextmanager
def calling() -> Iterator[None]:
    """Turn a failed call into ``CallError``, which holds nothing of the request."""
    import grpc

    from secure_client.errors import CallError

    try:
        yield
    except grpc.RpcError as error:
        raise CallError.of(error) from None


def state_of(ctx: typer.Context) -> RunState:
    state = ctx.find_object(RunState)
    assert state is not None
    return state
