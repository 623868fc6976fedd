"""``login``, ``logout``, ``whoami``, ``token``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from secure_base.terminal import print_fields
from secure_client.cli.output import as_json, complain, fields_of, line, moment, note
from secure_client.cli.secrets import read_new_password, read_password
from secure_client.cli.state import RunState, state_of

if TYPE_CHECKING:
    from secure_api.tokens.v1 import token_service_pb2
    from secure_client.errors import CallError

PasswordFile = Annotated[
    str | None,
    typer.Option(help="Read the password from FILE, - for standard input.", metavar="FILE"),
]
NewPasswordFile = Annotated[
    str | None,
    typer.Option(help="Read the new password from FILE, - for standard input.", metavar="FILE"),
]


def add_to(app: typer.Typer) -> None:
    app.command()(login)
    app.command()(logout)
    app.command()(whoami)
    app.command()(token)


def login(
    ctx: typer.Context,
    user: Annotated[str, typer.Argument(metavar="USER")],
    password_file: PasswordFile = None,
    new_password_file: NewPasswordFile = None,
) -> None:
    """Open a session, and save the connection settings in the profile."""
    from secure_client.errors import CallError
    from secure_client.session import session_of

    state = state_of(ctx)
    user = user.removeprefix("users/")
    # Report wrong settings before the user types a password.
    connection = state.connection
    connection.open().close()
    password = read_password(password_file, f"Password of {user}: ", "--password-file")
    try:
        tokens = _login(state, user, password, "")
    except CallError as error:
        if not _wants_new_password(error):
            raise
        note("This is an initial password: it works for this one log-in and must be replaced now.")
        new = read_new_password(new_password_file, "--new-password-file")
        tokens = _login(state, user, password, new)
    session = session_of(tokens, user, connection.target)
    file = state.profile.session
    with file.lock():
        file.save(session)
    state.profile.save(connection.settings())
    if state.as_json:
        as_json(
            {
                "user": user,
                "target": connection.target,
                "profile": state.profile.name,
                "access_token_expire_time": moment(tokens.access_token_expire_time),
                "refresh_token_expire_time": moment(tokens.refresh_token_expire_time),
            }
        )
        return
    note(
        f"Logged in as {user} at {connection.target}. The session lasts until "
        f"{moment(tokens.refresh_token_expire_time)} and longer if it is used."
    )


def logout(ctx: typer.Context) -> None:
    """End the session, here and on the server."""
    import grpc

    from secure_api.tokens.v1 import token_service_pb2
    from secure_api.tokens.v1.token_service_pb2_grpc import TokenServiceStub
    from secure_client.errors import CallError, SessionEndedError

    state = state_of(ctx)
    session = state.session()
    if session is None:
        note(f"There is no session at {state.connection.target}.")
        return
    try:
        with state.channel() as channel:
            TokenServiceStub(channel).Logout(token_service_pb2.LogoutRequest())
    except SessionEndedError:
        # The session has ended already.
        pass
    except CallError as error:
        if error.code is not grpc.StatusCode.UNAUTHENTICATED:
            raise
    file = state.profile.session
    with file.lock():
        file.remove()
    note(f"{session.user} is logged out of {session.target}.")


def whoami(ctx: typer.Context) -> None:
    """Show who the server thinks is calling."""
    from secure_api.tokens.v1 import token_service_pb2
    from secure_api.tokens.v1.token_service_pb2_grpc import TokenServiceStub

    state = state_of(ctx)
    with state.channel() as channel:
        answer = TokenServiceStub(channel).WhoAmI(token_service_pb2.WhoAmIRequest())
    if state.as_json:
        as_json(fields_of(answer))
        return
    certificate, token = answer.certificate, answer.token
    fields = [
        ("server", state.connection.target),
        ("certificate", certificate.spiffe_id or certificate.subject),
        ("certificate subject", certificate.subject),
        ("certificate thumbprint", certificate.thumbprint),
        ("certificate ends", _ends(certificate.expire_time)),
    ]
    if answer.HasField("token"):
        fields += [
            ("subject", token.subject),
            ("roles", " ".join(token.roles) or "-"),
            ("scopes", " ".join(token.scopes) or "-"),
            ("issuer", token.issuer),
            ("recognised by", token.authenticator),
            ("client", token.client_id),
            ("token", token.token_id),
            ("token ends", _ends(token.expire_time)),
        ]
    print_fields([(name, value) for name, value in fields if value])


def token(ctx: typer.Context) -> None:
    """Print a valid access token of the session.

    It is renewed if needed, and nothing else is printed: $(secure-client token).
    """
    state = state_of(ctx)
    found = state.source.token()
    if state.as_json:
        as_json({"access_token": found.value, "expires_at": found.expires_at})
        return
    line(found.value)


def _login(
    state: RunState, user: str, password: str, new_password: str
) -> token_service_pb2.Tokens:
    import grpc

    from secure_api.tokens.v1 import token_service_pb2
    from secure_api.tokens.v1.token_service_pb2_grpc import TokenServiceStub
    from secure_client.cli.failures import explain
    from secure_client.errors import CallError

    failure = None
    try:
        with state.channel(authenticated=False) as channel:
            answer: token_service_pb2.Tokens = TokenServiceStub(channel).Login(
                token_service_pb2.LoginRequest(
                    user_name=user, password=password, new_password=new_password
                )
            )
            return answer
    except CallError as error:
        failure = error
    if failure.code is grpc.StatusCode.UNAUTHENTICATED:
        complain(
            "The user name or the password is wrong, the user is disabled, or this client "
            "certificate may not log in: the server does not say which."
        )
        raise typer.Exit(1)
    if failure.code is grpc.StatusCode.INVALID_ARGUMENT and new_password:
        complain(f"The new password was not taken. {explain(failure, state)}")
        raise typer.Exit(1)
    raise failure


def _wants_new_password(error: CallError) -> bool:
    import grpc

    return (
        error.code is grpc.StatusCode.FAILED_PRECONDITION
        and error.reason == "PASSWORD_CHANGE_REQUIRED"
    )


def _ends(timestamp: object) -> str:
    shown = moment(timestamp)  # type: ignore[arg-type]
    if shown == "-":
        return shown
    left = timestamp.seconds - time.time()  # type: ignore[attr-defined]
    return f"{shown} ({_span(left)})"


def _span(seconds: float) -> str:
    if seconds <= 0:
        return "over"
    for size, name in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"in {seconds // size:.0f} {name}"
    return f"in {seconds:.0f} seconds"
