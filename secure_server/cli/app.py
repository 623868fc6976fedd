"""The root of the command line, and what becomes of every error."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from secure_base.terminal import whole_output
from secure_base.version import installed_version
from secure_server.cli.api_keys import api_keys_app
from secure_server.cli.bootstrap import bootstrap
from secure_server.cli.check import check
from secure_server.cli.keys import keys_app
from secure_server.cli.output import complain
from secure_server.cli.policy import policy_app
from secure_server.cli.serve import serve
from secure_server.mistakes import mistakes

app = typer.Typer(
    help="A gRPC identity service behind mutual TLS, tokens and policy.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Plain help and errors: they go into pipes and logs too, and rich takes its time to load.
    rich_markup_mode=None,
)

app.command()(serve)
app.command()(check)
app.command()(bootstrap)
app.add_typer(policy_app, name="policy")
app.add_typer(api_keys_app, name="api-keys")
app.add_typer(keys_app, name="keys")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"secure-server {installed_version()}")
        raise typer.Exit


@app.callback()
def _root(
    *,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; what users can mend is said in a sentence, never as a traceback."""
    try:
        with whole_output():
            app(prog_name="secure-server")
    except ModuleNotFoundError as error:
        # The base install holds the guard and the client alone.
        name = (error.name or "").partition(".")[0]
        if not name or name.startswith("secure_"):
            raise
        complain(
            f"This command needs the package {name}. Install the server's own dependencies: "
            "pip install 'secure-grpc[server]'"
        )
        sys.exit(1)
    except mistakes() as error:
        complain(str(error))
        sys.exit(1)
    except OSError as error:
        # The disk of a redirected output is full, say.
        complain(f"{error.filename or 'The system'}: {error.strerror}.")
        sys.exit(1)
