"""``users import`` and ``users watch``."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Annotated

import typer

from secure_base.terminal import escape, print_table
from secure_client.cli.output import as_json, complain, fields_of, line, note
from secure_client.cli.state import RunState, state_of
from secure_client.cli.users import state_name

if TYPE_CHECKING:
    from secure_api.users.v1 import user_service_pb2
    from secure_client.cli.rows import Row

# Seconds for a whole import, and for each row of it.
_IMPORT = 30.0
_IMPORT_EACH = 0.05

# After these the watch cannot be resumed.
_NO_PLACE = frozenset({"OUT_OF_RANGE", "INVALID_ARGUMENT"})


def add_to(users: typer.Typer) -> None:
    users.command(name="import")(import_users)
    users.command()(watch)


def import_users(
    ctx: typer.Context,
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE.csv|FILE.jsonl|-",
            help="Columns user_id, email, display_name, roles. - for standard input.",
        ),
    ],
) -> None:
    """Create many users.

    They have no password yet. A bad row is reported and does not stop the others.
    """
    from secure_api.users.v1 import user_service_pb2
    from secure_api.users.v1.user_service_pb2_grpc import UserServiceStub
    from secure_client.cli.rows import read_rows

    state = state_of(ctx)
    rows = read_rows(file)
    with state.channel() as channel:
        answer = UserServiceStub(channel).ImportUsers(
            (user_service_pb2.ImportUsersRequest(row=row.request) for row in rows),
            timeout=_IMPORT + _IMPORT_EACH * len(rows),
        )
    if state.as_json:
        as_json(fields_of(answer))
    else:
        _report(rows, answer)
    if answer.failed_count:
        raise typer.Exit(1)


def watch(
    ctx: typer.Context,
    resume: Annotated[
        str,
        typer.Option(
            help="Go on after the change that came with this token.",
            metavar="TOKEN",
            show_default=False,
        ),
    ] = "",
) -> None:
    """Print changes of users as they happen.

    One a line, until Ctrl-C or the end of the session; then it prints how to resume.
    """
    from secure_client.errors import CallError, TokenError
    from secure_client.users import watch_users

    state = state_of(ctx)
    token = resume
    _tell_of_interruptions()
    try:
        with state.channel() as channel:
            for change in watch_users(channel, resume_token=resume):
                _tell(state, change)
                token = change.resume_token
    except KeyboardInterrupt:
        note("")
        _tell_place(token)
        raise typer.Exit(130) from None
    except (CallError, TokenError) as error:
        if not isinstance(error, CallError) or error.code.name not in _NO_PLACE:
            _tell_place(token)
        raise


class _Complaints(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        complain(escape(record.getMessage()))


def _tell_of_interruptions() -> None:
    logger = logging.getLogger("secure_client.users")
    logger.setLevel(logging.INFO)
    logger.handlers = [_Complaints()]


def _tell_place(token: str) -> None:
    if token:
        note(f"To go on from here: secure-client users watch --resume {escape(token)}")


def _tell(state: RunState, change: user_service_pb2.WatchUsersResponse) -> None:
    from secure_api.users.v1 import user_service_pb2

    if state.as_json:
        as_json(fields_of(change))
        return
    if change.change == user_service_pb2.WatchUsersResponse.CHANGE_WATCHING:
        note(f"Watching the users of {state.connection.target}; Ctrl-C ends it.")
        return
    user = change.user
    fields = [
        f"{user.update_time.ToDatetime():%Y-%m-%dT%H:%M:%SZ}",
        _change(change.change),
        user.name,
        state_name(user),
        ",".join(user.roles) or "-",
        user.email or "-",
    ]
    line("  ".join(fields))


def _change(number: int) -> str:
    from secure_api.users.v1 import user_service_pb2

    try:
        name: str = user_service_pb2.WatchUsersResponse.Change.Name(number)
    except ValueError:
        return str(number)  # a newer server may know more
    return name.removeprefix("CHANGE_").lower()


def _report(rows: list[Row], answer: user_service_pb2.ImportUsersResponse) -> None:
    print_table(
        ("IMPORTED", "FAILED", "ROWS"),
        [(str(answer.imported_count), str(answer.failed_count), str(len(rows)))],
    )
    if not answer.failures:
        return
    print_table(
        ("LINE", "USER", "ERROR", "MESSAGE"),
        [
            (
                str(rows[each.index].line) if 0 <= each.index < len(rows) else "-",
                each.user_id,
                _code(each.code),
                each.message,
            )
            for each in answer.failures
        ],
    )
    left = answer.failed_count - len(answer.failures)
    if left > 0:
        note(f"{left} more rows failed; the server reports the first ones only.")


def _code(number: int) -> str:
    from google.rpc import code_pb2

    try:
        return str(code_pb2.Code.Name(number))
    except ValueError:
        return str(number)
