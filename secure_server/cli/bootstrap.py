"""``secure-server bootstrap``: make the first administrator."""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import Annotated

import typer

from secure_server.cli.configured import ConfigOption, read_settings
from secure_server.cli.output import write_whole


def bootstrap(
    config: ConfigOption = None,
    user: Annotated[str, typer.Option(help="The administrator's user name.")] = "admin",
    secret_file: Annotated[
        Path | None,
        typer.Option(help="Write the secret to this file, mode 0600, instead of printing it."),
    ] = None,
) -> None:
    """Make the first administrator, with a secret that works for one log-in within a week.

    Run again while the secret is unused, it makes another one and the first is dead.
    """
    from secure_server.store.database import Database
    from secure_server.users import Accounts, Passwords

    settings = read_settings(config)
    secret = secrets.token_urlsafe(18)
    database = Database.open(settings.store.url)
    passwords = Passwords(workers=1)
    try:
        accounts = Accounts(database, passwords, clock=time.time, end_sessions=lambda *_: 0)
        accounts.bootstrap(user, secret)
    finally:
        passwords.close()
        database.close()
    if secret_file is None:
        typer.echo(secret)
        where = "above"
    else:
        write_whole(secret_file, secret + "\n")
        where = f"in {secret_file}"
    typer.echo(
        f"The administrator {user} was made. The secret {where} works for one log-in, within 7 "
        f"days: secure-client login {user}",
        err=True,
    )
