"""The root of the command line: global options, and the exit status of every failure."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from secure_base.terminal import whole_output
from secure_base.version import installed_version
from secure_client.cli import bulk, session, sessions, tokens, users
from secure_client.cli.output import complain
from secure_client.cli.state import RunState, UsageProblem, state_of

_WITH_VALUE = ("--target", "--ca", "--certificate", "--private-key", "--server-name", "--profile")


class _Root(TyperGroup):
    """Accepts the global options after the command too."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, _hoisted(args))


app = typer.Typer(
    name="secure-client",
    cls=_Root,
    help="Log in to a secure-grpc server, and manage its users and tokens.",
    # Plain help and errors: they also go to pipes and logs.
    rich_markup_mode=None,
    # A traceback may hold what was typed.
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
)
session.add_to(app)
sessions.add_to(app)
tokens.add_to(app)
users.add_to(app)
bulk.add_to(users.users)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"secure-client {installed_version()}")
        raise typer.Exit


@app.callback()
def _root(
    ctx: typer.Context,
    *,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
    target: Annotated[
        str | None, typer.Option(help="The server, as host:port.", metavar="HOST:PORT")
    ] = None,
    ca: Annotated[
        str | None, typer.Option(help="CA that the server is verified by (PEM).", metavar="FILE")
    ] = None,
    certificate: Annotated[
        str | None, typer.Option(help="This client's certificate (PEM).", metavar="FILE")
    ] = None,
    private_key: Annotated[
        str | None, typer.Option(help="The certificate's private key (PEM).", metavar="FILE")
    ] = None,
    server_name: Annotated[
        str | None,
        typer.Option(
            help="The name in the server's certificate, where it is not the target's host. "
            "Decides which server is trusted.",
            metavar="NAME",
        ),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(help="Which saved settings and session to use.", metavar="NAME"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    state = state_of(ctx)
    state.flags = {
        "target": target,
        "ca": ca,
        "certificate": certificate,
        "private_key": private_key,
        "server_name": server_name,
    }
    state.profile_name = profile
    state.as_json = as_json


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit.

    0: done. 1: the server refused, or it failed. 2: wrong usage, or something local is wrong.
    130: interrupted.
    """
    state = RunState()
    code = 2
    try:
        with whole_output():
            app(list(sys.argv[1:] if arguments is None else arguments), obj=state)
    except UsageProblem as error:
        complain(str(error))
    except UnicodeError:
        complain("This is not UTF-8: what is typed, piped in or given as an argument must be.")
    except KeyboardInterrupt:
        code = 130
    except OSError as error:
        # The disk of a redirected output is full, say.
        complain(f"{error.filename or 'The system'}: {error.strerror}.")
    except Exception as error:  # noqa: BLE001 - `report` raises what is not the client's
        from secure_client.cli.failures import report

        code = report(error, state)
    sys.exit(code)


def _hoisted(args: list[str]) -> list[str]:
    """The same arguments, the global options first."""
    first: list[str] = []
    others: list[str] = []
    left = iter(args)
    for each in left:
        if each == "--":
            others += [each, *left]
        elif each == "--json" or each.startswith(tuple(f"{name}=" for name in _WITH_VALUE)):
            first.append(each)
        elif each in _WITH_VALUE:
            first += [each, *(value for value in [next(left, None)] if value is not None)]
        else:
            others.append(each)
    return first + others
