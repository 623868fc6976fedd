"""``tokens issue``, ``tokens revoke``, ``tokens introspect``, ``keys``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from secure_base.terminal import print_table
from secure_client.cli.output import as_json, fields_of, line, moment, note
from secure_client.cli.secrets import read_lines
from secure_client.cli.sessions import revoke_session
from secure_client.cli.state import RunState, UsageProblem, state_of
from secure_client.cli.users import resource

if TYPE_CHECKING:
    from secure_api.tokens.v1 import token_service_pb2

# Seconds for a whole stream of tokens, and for each token on it.
_INTROSPECT = 30.0
_INTROSPECT_EACH = 0.01

tokens = typer.Typer(
    help="Issue, revoke and explain access tokens.", no_args_is_help=True, rich_markup_mode=None
)


def add_to(app: typer.Typer) -> None:
    app.add_typer(tokens, name="tokens")
    app.command()(keys)


@tokens.command()
def issue(
    ctx: typer.Context,
    scope: Annotated[
        list[str] | None,
        typer.Option(help="A scope wanted; repeat it for more. All that are granted if absent."),
    ] = None,
) -> None:
    """Print an access token for the workload that this client certificate names."""
    from secure_client.tokens.workload import WorkloadTokenSource

    state = state_of(ctx)
    # Read first: a wrong file is a local problem, with exit status 2.
    state.connection.open().close()
    token = WorkloadTokenSource(state.connection, scope or ()).token()
    if state.as_json:
        as_json({"access_token": token.value, "expires_at": token.expires_at})
        return
    line(token.value)


@tokens.command()
def revoke(
    ctx: typer.Context,
    *,
    token: Annotated[
        str | None,
        typer.Argument(
            help="The access token; - for standard input, where other users cannot see it.",
            metavar="[TOKEN|-]",
            show_default=False,
        ),
    ] = None,
    jti: Annotated[
        str | None, typer.Option(help="The ID of a token that is not at hand.", metavar="ID")
    ] = None,
    issuer: Annotated[
        str | None,
        typer.Option(
            help="With --jti: whose token it is, if another issuer's than the server's own.",
            metavar="ISS",
        ),
    ] = None,
    session: Annotated[
        str | None, typer.Option(help="A session, with all its tokens.", metavar="SESSION")
    ] = None,
    user: Annotated[
        str | None, typer.Option(help="All tokens and sessions that a user has now.")
    ] = None,
    client: Annotated[
        str | None,
        typer.Option(
            help="All tokens and sessions that a client has now. Keep it from coming again with "
            "secure-certs revoke.",
            metavar="SPIFFE_ID",
        ),
    ] = None,
) -> None:
    """Revoke a token, or all of a session, a user or a client: your own, or with the role admin
    any user's.
    """
    state = state_of(ctx)
    given = [each for each in (token, jti, session, user, client) if each is not None]
    if len(given) > 1:
        raise UsageProblem("Give one thing at a time to revoke.")
    if issuer is not None and jti is None:
        raise UsageProblem("--issuer says whose token --jti means: give both.")
    if session is not None:
        revoke_session(state, session)
    elif user is not None:
        _revoke_user(state, user)
    elif client is not None:
        _revoke_client(state, client)
    else:
        _revoke_token(state, token or "-", jti, issuer)


def _revoke_token(state: RunState, token: str, jti: str | None, issuer: str | None) -> None:
    from secure_api.tokens.v1 import token_service_pb2
    from secure_api.tokens.v1.token_service_pb2_grpc import TokenServiceStub

    if jti is None:
        found = read_lines([token], "token")
        if len(found) != 1:
            raise UsageProblem("Give one token at a time to revoke.")
        request = token_service_pb2.RevokeTokenRequest(token=found[0])
    else:
        request = token_service_pb2.RevokeTokenRequest(token_id=jti, issuer=issuer or "")
    with state.channel() as channel:
        TokenServiceStub(channel).RevokeToken(request)
    if state.as_json:
        as_json({})
        return
    note("The token is good no longer.")


def _revoke_user(state: RunState, user: str) -> None:
    from secure_api.tokens.v1 import token_service_pb2
    from secure_api.tokens.v1.token_service_pb2_grpc import TokenServiceStub

    name = resource(user)
    with state.channel() as channel:
        answer = TokenServiceStub(channel).RevokeUser(
            token_service_pb2.RevokeUserRequest(name=name)
        )
    if state.as_json:
        as_json(fields_of(answer))
        return
    note(f"The tokens of {name} are good no longer; sessions ended: {answer.ended_sessions}.")


def _revoke_client(state: RunState, client: str) -> None:
    from secure_api.tokens.v1 import token_service_pb2
    from secure_api.tokens.v1.token_service_pb2_grpc import TokenServiceStub

    with state.channel() as channel:
        answer = TokenServiceStub(channel).RevokeClient(
            token_service_pb2.RevokeClientRequest(client_id=client)
        )
    if state.as_json:
        as_json(fields_of(answer))
        return
    note(f"The tokens of {client} are good no longer; sessions ended: {answer.ended_sessions}.")


@tokens.command()
def introspect(
    ctx: typer.Context,
    token: Annotated[
        list[str] | None,
        typer.Argument(
            help="Access tokens; - for standard input, one a line.",
            metavar="[TOKEN|-]...",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Ask the server whether tokens are good, and whose they are."""
    from secure_api.tokens.v1 import token_service_pb2
    from secure_api.tokens.v1.token_service_pb2_grpc import TokenServiceStub

    state = state_of(ctx)
    asked = read_lines(token or [], "token")
    requests = (
        token_service_pb2.IntrospectRequest(correlation_id=str(number), token=each)
        for number, each in enumerate(asked, start=1)
    )
    rows = []
    with state.channel() as channel:
        answers = TokenServiceStub(channel).Introspect(
            requests, timeout=_INTROSPECT + _INTROSPECT_EACH * len(asked)
        )
        for answer in answers:
            if state.as_json:
                as_json(fields_of(answer))
            else:
                rows.append(_row(answer))
    if not state.as_json:
        heads = ("#", "ACTIVE", "SUBJECT", "ROLES", "SCOPES", "CLIENT", "TOKEN", "ENDS")
        print_table(heads, rows)


def keys(ctx: typer.Context) -> None:
    """Print the server's public keys as a JWKS.

    They verify its tokens (RFC 7517).
    """
    from secure_api.tokens.v1 import token_service_pb2
    from secure_api.tokens.v1.token_service_pb2_grpc import TokenServiceStub

    state = state_of(ctx)
    with state.channel(authenticated=False) as channel:
        answer = TokenServiceStub(channel).GetKeySet(token_service_pb2.GetKeySetRequest())
    as_json({"keys": [fields_of(key) for key in answer.keys]})


def _row(answer: token_service_pb2.IntrospectResponse) -> list[str]:
    return [
        answer.correlation_id,
        "yes" if answer.active else "no",
        answer.subject or "-",
        " ".join(answer.roles) or "-",
        " ".join(answer.scopes) or "-",
        answer.client_id or "-",
        answer.token_id or "-",
        moment(answer.expire_time),
    ]
