"""``users create|get|list|update|delete|password``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from secure_base.terminal import print_fields, print_table
from secure_client.cli.output import as_json, fields_of, moment, note
from secure_client.cli.secrets import random_password, read_new_password, read_password
from secure_client.cli.session import NewPasswordFile, PasswordFile
from secure_client.cli.state import RunState, UsageProblem, state_of

if TYPE_CHECKING:
    from secure_api.users.v1 import user_service_pb2
    from secure_api.users.v1.user_service_pb2_grpc import UserServiceStub

_PAGE = 500

users = typer.Typer(
    help="Look after the accounts of people.", no_args_is_help=True, rich_markup_mode=None
)


class UserState(StrEnum):
    active = "active"
    disabled = "disabled"


Name = Annotated[str, typer.Argument(metavar="NAME", help="The user name.")]
Email = Annotated[str | None, typer.Option(help="An e-mail address.")]
DisplayName = Annotated[str | None, typer.Option(help="The name to show to people.")]
Roles = Annotated[list[str] | None, typer.Option(help="A role; repeat it for more.")]


def add_to(app: typer.Typer) -> None:
    app.add_typer(users, name="users")


@users.command()
def create(
    ctx: typer.Context,
    *,
    name: Name,
    email: Email = None,
    display_name: DisplayName = None,
    role: Roles = None,
    password_file: PasswordFile = None,
) -> None:
    """Create a user.

    Unless an initial password is given, a random one is made and shown. It works for one log-in.
    """
    from secure_api.users.v1 import user_service_pb2
    from secure_api.users.v1.user_service_pb2_grpc import UserServiceStub

    state = state_of(ctx)
    name = name.removeprefix("users/")
    given = password_file is not None
    password = (
        read_password(password_file, "", "--password-file") if given else random_password(name)
    )
    with state.channel() as channel:
        user = UserServiceStub(channel).CreateUser(
            user_service_pb2.CreateUserRequest(
                user_id=name,
                user=user_service_pb2.User(
                    email=email or "", display_name=display_name or "", roles=role or ()
                ),
                password=password,
            )
        )
    if state.as_json:
        secret = {} if given else {"initial_password": password}
        as_json({"user": fields_of(user), **secret})
        return
    _show(user, () if given else [("initial password", password)])
    if not given:
        note(
            f"Hand this password to {name}; it is not shown again. It works for one log-in, which "
            "asks for a new one."
        )


@users.command()
def get(ctx: typer.Context, name: Name) -> None:
    """Show one user."""
    from secure_api.users.v1 import user_service_pb2
    from secure_api.users.v1.user_service_pb2_grpc import UserServiceStub

    state = state_of(ctx)
    with state.channel() as channel:
        user = UserServiceStub(channel).GetUser(
            user_service_pb2.GetUserRequest(name=resource(name))
        )
    _print(state, user)


@users.command(name="list")
def list_users(ctx: typer.Context) -> None:
    """List all users by name."""
    from secure_api.users.v1.user_service_pb2_grpc import UserServiceStub

    state = state_of(ctx)
    with state.channel() as channel:
        found = list(_all(UserServiceStub(channel)))
    if state.as_json:
        as_json([fields_of(user) for user in found])
        return
    print_table(
        ("NAME", "DISPLAY NAME", "EMAIL", "ROLES", "STATE", "CREATED"),
        (
            (
                user.name.removeprefix("users/"),
                user.display_name or "-",
                user.email or "-",
                " ".join(user.roles) or "-",
                state_name(user),
                moment(user.create_time),
            )
            for user in found
        ),
    )


@users.command()
def update(
    ctx: typer.Context,
    *,
    name: Name,
    email: Email = None,
    display_name: DisplayName = None,
    role: Annotated[
        list[str] | None,
        typer.Option(help='A role; repeat it for more. They replace all others; "" for none.'),
    ] = None,
    state: Annotated[UserState | None, typer.Option(help="Whether the user may log in.")] = None,
) -> None:
    """Change what the options name."""
    from google.protobuf.field_mask_pb2 import FieldMask

    from secure_api.users.v1 import user_service_pb2
    from secure_api.users.v1.user_service_pb2_grpc import UserServiceStub

    run = state_of(ctx)
    given = {"email": email, "display_name": display_name, "roles": role, "state": state}
    mask = [field for field, value in given.items() if value is not None]
    if not mask:
        raise UsageProblem(
            "There is nothing to change: give --email, --display-name, --role or --state."
        )
    user = user_service_pb2.User(
        name=resource(name),
        email=email or "",
        display_name=display_name or "",
        roles=[each for each in role or () if each],
    )
    if state is not None:
        user.state = user_service_pb2.User.State.Value(f"STATE_{state.upper()}")  # type: ignore[assignment]
    with run.channel() as channel:
        user = UserServiceStub(channel).UpdateUser(
            user_service_pb2.UpdateUserRequest(user=user, update_mask=FieldMask(paths=mask))
        )
    _print(run, user)


@users.command()
def delete(ctx: typer.Context, name: Name) -> None:
    """Delete a user for good."""
    from secure_api.users.v1 import user_service_pb2
    from secure_api.users.v1.user_service_pb2_grpc import UserServiceStub

    state = state_of(ctx)
    with state.channel() as channel:
        UserServiceStub(channel).DeleteUser(user_service_pb2.DeleteUserRequest(name=resource(name)))
    if state.as_json:
        as_json({})
        return
    note(f"{resource(name)} is deleted.")


@users.command()
def password(
    ctx: typer.Context,
    password_file: PasswordFile = None,
    new_password_file: NewPasswordFile = None,
) -> None:
    """Change your own password.

    Your other sessions end.
    """
    from secure_api.users.v1 import user_service_pb2
    from secure_api.users.v1.user_service_pb2_grpc import UserServiceStub
    from secure_client.errors import NotLoggedInError

    state = state_of(ctx)
    session = state.session()
    if session is None:
        raise NotLoggedInError(
            f"There is no session at {state.connection.target}, so it is not known whose password "
            "to change. Run: secure-client login USER"
        )
    current = read_password(
        password_file, f"Current password of {session.user}: ", "--password-file"
    )
    new = read_new_password(new_password_file, "--new-password-file")
    with state.channel() as channel:
        answer = UserServiceStub(channel).ChangePassword(
            user_service_pb2.ChangePasswordRequest(
                name=resource(session.user), current_password=current, new_password=new
            )
        )
    if state.as_json:
        as_json(fields_of(answer))
        return
    note(f"The password is changed; other sessions ended: {answer.ended_sessions}.")


def resource(name: str) -> str:
    """``users/alice`` for ``alice`` (AIP-122)."""
    return name if name.startswith("users/") else f"users/{name}"


def state_name(user: user_service_pb2.User) -> str:
    from secure_api.users.v1 import user_service_pb2

    try:
        return user_service_pb2.User.State.Name(user.state).removeprefix("STATE_").lower()
    except ValueError:
        # A newer server may know more.
        return str(user.state)


def _all(stub: UserServiceStub) -> Iterator[user_service_pb2.User]:
    from secure_api.users.v1 import user_service_pb2

    token = ""
    while True:
        page = stub.ListUsers(user_service_pb2.ListUsersRequest(page_size=_PAGE, page_token=token))
        yield from page.users
        token = page.next_page_token
        if not token:
            return


def _print(state: RunState, user: user_service_pb2.User) -> None:
    if state.as_json:
        as_json(fields_of(user))
    else:
        _show(user)


def _show(user: user_service_pb2.User, more: Sequence[tuple[str, str]] = ()) -> None:
    print_fields(
        [
            ("name", user.name),
            ("display name", user.display_name or "-"),
            ("email", user.email or "-"),
            ("roles", " ".join(user.roles) or "-"),
            ("state", state_name(user)),
            ("created", moment(user.create_time)),
            ("updated", moment(user.update_time)),
            ("uid", user.uid),
            ("etag", user.etag),
            *more,
        ]
    )
