"""``sessions list``, ``sessions revoke``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from secure_base.terminal import print_table
from secure_client.cli.output import as_json, fields_of, moment, note
from secure_client.cli.state import RunState, UsageProblem, state_of
from secure_client.cli.users import resource

if TYPE_CHECKING:
    from secure_api.tokens.v1 import token_service_pb2
    from secure_api.tokens.v1.token_service_pb2_grpc import TokenServiceStub

_PAGE = 500

sessions = typer.Typer(
    help="List and end sessions: where a user is logged in.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def add_to(app: typer.Typer) -> None:
    app.add_typer(sessions, name="sessions")


@sessions.command(name="list")
def list_sessions(
    ctx: typer.Context,
    user: Annotated[
        str | None, typer.Option(help="The user; you if absent. Other users need the role admin.")
    ] = None,
) -> None:
    """List live sessions, the oldest first. An asterisk marks the one in use here."""
    from secure_api.tokens.v1.token_service_pb2_grpc import TokenServiceStub

    state = state_of(ctx)
    parent = resource(_myself(state) if user is None else user)
    with state.channel() as channel:
        found = list(_all(TokenServiceStub(channel), parent))
    if state.as_json:
        as_json([fields_of(session) for session in found])
        return
    print_table(
        ("SESSION", "", "CLIENT", "CREATED", "LAST USED", "ENDS"),
        (
            (
                session.name.rpartition("/")[2],
                "*" if session.current else "",
                session.client_id or "-",
                moment(session.create_time),
                moment(session.last_use_time),
                moment(session.expire_time),
            )
            for session in found
        ),
    )


@sessions.command()
def revoke(
    ctx: typer.Context,
    *,
    session: Annotated[
        str | None,
        typer.Argument(help="The session, as the list shows it.", metavar="[SESSION]"),
    ] = None,
    others: Annotated[
        bool, typer.Option("--others", help="All your own sessions except the one in use here.")
    ] = False,
) -> None:
    """End a session: your own, or with the role admin any user's."""
    from secure_api.tokens.v1 import token_service_pb2
    from secure_api.tokens.v1.token_service_pb2_grpc import TokenServiceStub

    state = state_of(ctx)
    if (session is None) is not others:
        raise UsageProblem("Give a session to revoke, or --others: one of both.")
    if session is not None:
        revoke_session(state, session)
        return
    with state.channel() as channel:
        answer = TokenServiceStub(channel).RevokeOtherSessions(
            token_service_pb2.RevokeOtherSessionsRequest()
        )
    if state.as_json:
        as_json(fields_of(answer))
        return
    note(f"Other sessions ended: {answer.ended_sessions}.")


def revoke_session(state: RunState, session: str) -> None:
    """End the session of this ID, or of this name."""
    from secure_api.tokens.v1 import token_service_pb2
    from secure_api.tokens.v1.token_service_pb2_grpc import TokenServiceStub

    name = session if session.startswith("users/") else f"users/-/sessions/{session}"
    with state.channel() as channel:
        TokenServiceStub(channel).RevokeSession(token_service_pb2.RevokeSessionRequest(name=name))
    if state.as_json:
        as_json({})
        return
    note("The session is ended.")


def _myself(state: RunState) -> str:
    from secure_client.errors import NotLoggedInError

    session = state.session()
    if session is None:
        raise NotLoggedInError(
            f"There is no session at {state.connection.target}, so it is not known whose to list. "
            "Run: secure-client login USER"
        )
    return session.user


def _all(stub: TokenServiceStub, parent: str) -> Iterator[token_service_pb2.Session]:
    from secure_api.tokens.v1 import token_service_pb2

    token = ""
    while True:
        page = stub.ListSessions(
            token_service_pb2.ListSessionsRequest(parent=parent, page_size=_PAGE, page_token=token)
        )
        yield from page.sessions
        token = page.next_page_token
        if not token:
            return
