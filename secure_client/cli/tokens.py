"""``tokens issue``, ``tokens revoke``, ``tokens introspect``, ``keys``."""

from typing import Annotated

import typer

from secure_api.tokens.v1 import token_service_pb2
from secure_api.tokens.v1.token_service_pb2_grpc import TokenServiceStub
from secure_client.cli.output import as_json, fields_of, line, moment, note, table
from secure_client.cli.secrets import read_lines
from secure_client.cli.state import UsageProblem, state_of
from secure_client.tokens.workload import WorkloadTokenSource

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
    """Print a workload's access token, got by the client certificate alone."""
    state = state_of(ctx)
    # Said by its own name first: a wrong file is a local problem.
    state.connection.open().close()
    token = WorkloadTokenSource(state.connection, scope or ()).token()
    if state.as_json:
        as_json({"access_token": token.value, "expires_at": token.expires_at})
        return
    line(token.value)


@tokens.command()
def revoke(
    ctx: typer.Context,
    token: Annotated[
        str,
        typer.Argument(
            help="The access token; - for standard input, where other users cannot see it.",
            metavar="[TOKEN|-]",
            show_default=False,
        ),
    ] = "-",  # noqa: S107 - it stands for standard input
) -> None:
    """Revoke an access token: one's own, or with the role admin anybody's."""
    state = state_of(ctx)
    found = read_lines([token], "token")
    if len(found) != 1:
        raise UsageProblem("Give one token at a time to revoke.")
    with state.channel() as channel:
        TokenServiceStub(channel).RevokeToken(token_service_pb2.RevokeTokenRequest(token=found[0]))
    if state.as_json:
        as_json({})
        return
    note("The token is good no longer.")


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
        table(("#", "active", "subject", "roles", "scopes", "client", "token", "ends"), rows)


def keys(ctx: typer.Context) -> None:
    """Print the server's public keys as a JWKS.

    They verify its tokens (RFC 7517).
    """
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
