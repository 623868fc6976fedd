"""``secure-server``: run the server, and make its first administrator."""

from __future__ import annotations

import dataclasses
import secrets
import signal
import sys
import time
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from secure_server.standard_files import open_missing

if None in (sys.stdin, sys.stdout, sys.stderr):
    open_missing()

try:
    from secure_base.atomic_files import make_folder, replace
    from secure_base.terminal import escape
    from secure_server import descriptors
    from secure_server.audit.errors import AuditLoggerError
    from secure_server.auth.errors import AuthenticatorError
    from secure_server.authz import PolicyError
    from secure_server.commands.api_keys import api_keys_app
    from secure_server.commands.check import look_through
    from secure_server.commands.configured import ConfigOption, read_settings
    from secure_server.commands.keys import keys_app
    from secure_server.commands.output import as_json
    from secure_server.commands.policy import policy_app
    from secure_server.config import Config, ConfigError
    from secure_server.last_resort import end_within
    from secure_server.logs import set_up_logging
    from secure_server.server import Server, ServerError
    from secure_server.standard_error import captured
    from secure_server.store.database import Database
    from secure_server.store.errors import StoreError
    from secure_server.tokens.signing_key import SigningKeyError
    from secure_server.users import Accounts, Passwords, UserError
except ModuleNotFoundError as error:  # the base install holds the guard and the client alone
    sys.exit(
        f"secure-server needs the package {error.name}. Install the server's own dependencies: "
        "pip install 'secure-grpc[server]'"
    )
from secure_tls.errors import TLSError

app = typer.Typer(
    help="A gRPC identity service behind mutual TLS, tokens and policy.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.add_typer(policy_app, name="policy")
app.add_typer(api_keys_app, name="api-keys")
app.add_typer(keys_app, name="keys")

_END = (signal.SIGTERM, signal.SIGINT)

_LONGER = 10.0
"""Seconds beyond the grace that a stop may take: audit loggers get five of them."""

_MOMENT = 1.0
"""Seconds in which the threads of a server that has stopped must have ended."""


@app.callback()
def _commands() -> None:
    """Keep the commands' names, however many there are."""


@app.command()
def serve(
    config: ConfigOption = None,
    ready_file: Annotated[
        Path | None,
        typer.Option(help="Write the bound address, HOST:PORT, to this file once serving."),
    ] = None,
) -> None:
    """Serve until SIGTERM or Ctrl-C; calls in flight get `[server] grace` seconds to finish."""
    # Blocked in every thread and waited for here: one that a handler had to take between two
    # instructions could come just before the wait and be lost, or in its middle and lock it up.
    signal.pthread_sigmask(signal.SIG_BLOCK, _END)
    settings = read_settings(config)
    set_up_logging(settings.log.format, settings.log.level)
    with captured():
        descriptors.raise_limit()
        _run(settings, ready_file)
    end_within(_MOMENT, status=0)  # all that had to be done is done


def _run(settings: Config, ready_file: Path | None) -> None:
    server = Server(settings)
    try:
        server.start()
        descriptors.log_limit()
        if ready_file is not None:
            _write_whole(ready_file, server.address + "\n")
        signal.sigwait(_END)
        # Whoever asks a second time does not want to wait.
        for number in _END:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _END)
    finally:
        end_within(settings.server.grace + _LONGER, status=1)
        server.stop()
        if ready_file is not None:
            ready_file.unlink(missing_ok=True)


@app.command()
def check(
    config: ConfigOption = None,
    as_json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Look at everything that a start would, and ask the issuers: exit status 1 if anything is
    wrong.
    """
    settings = read_settings(config)
    set_up_logging(settings.log.format, "error")  # what else there is to say is in the findings
    findings = list(look_through(settings))
    if as_json_:
        as_json([dataclasses.asdict(finding) for finding in findings])
    else:
        for finding in findings:
            typer.echo(
                f"{'ok  ' if finding.good else 'FAIL'}  {finding.about}: {escape(finding.text)}"
            )
    if not all(finding.good for finding in findings):
        raise SystemExit(1)


@app.command()
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
        _write_whole(secret_file, secret + "\n")
        where = f"in {secret_file}"
    typer.echo(
        f"The administrator {user} was made. The secret {where} works for one log-in, within 7 "
        f"days: secure-client login {user}",
        err=True,
    )


def _write_whole(path: Path, text: str) -> None:
    try:
        make_folder(path.parent)
        replace(path, text.encode())
    except OSError as error:
        _fail(f"{path}: cannot write: {error.strerror}.")


def _fail(message: str) -> NoReturn:
    for line in message.splitlines():
        typer.echo(f"secure-server: {line}", err=True)
    raise SystemExit(1)


def main() -> None:
    """Run the command line; what users can mend is said in a sentence, never as a traceback."""
    try:
        app(prog_name="secure-server")
    except (
        AuditLoggerError,
        AuthenticatorError,
        ConfigError,
        PolicyError,
        ServerError,
        StoreError,
        SigningKeyError,
        TLSError,
        UserError,
    ) as error:
        _fail(str(error))
