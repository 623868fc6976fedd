"""``secure-certs``: make and check certificates for development and small installations."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from secure_tls.check import Finding, check_folder, describe
from secure_tls.errors import AuthorityError, SpiffeIDError, TLSError, TLSFileError
from secure_tls.folder import CertificateFolder, Order, Outcome
from secure_tls.keys import KeyType

if TYPE_CHECKING:
    from collections.abc import Sequence

_OUT = Path("certs")
_SERVER_NAMES = ("localhost", "127.0.0.1", "::1")
_CLIENTS = ("admin", "demo")
_DAYS = 90

_FAILURE = 1
_USAGE = 2

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    # Errors stay one or two plain sentences, whether or not there is a terminal.
    rich_markup_mode=None,
)

_Out = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Folder. [certs]")]
_KeyType = Annotated[KeyType | None, typer.Option(help="Kind of the new keys. [ecdsa-p256]")]
_Days = Annotated[
    int | None, typer.Option(min=1, max=_DAYS, help="Lifetime of the new leaves. [90]")
]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_ServerName = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="DNS name or IP address of the server; repeatable."),
]


@dataclass(frozen=True, slots=True)
class _Shared:
    """The options that may stand before or after a sub-command."""

    out: Path | None
    key_type: KeyType | None
    days: int | None
    as_json: bool

    def over(self, context: typer.Context) -> _Shared:
        """These options, and where one is not given what stood before the sub-command."""
        before = context.obj
        assert isinstance(before, _Shared)
        return _Shared(
            self.out or before.out,
            self.key_type or before.key_type,
            self.days or before.days,
            self.as_json or before.as_json,
        )

    @property
    def lifetime(self) -> timedelta:
        return timedelta(days=self.days or _DAYS)


@app.callback(invoke_without_command=True)
def generate(
    context: typer.Context,
    *,
    out: _Out = None,
    trust_domain: Annotated[
        str | None, typer.Option(metavar="NAME", help="SPIFFE trust domain. [example.org]")
    ] = None,
    server_name: _ServerName = None,
    client: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Client to make; repeatable. [admin, demo]"),
    ] = None,
    key_type: _KeyType = None,
    days: _Days = None,
    as_json: _Json = False,
) -> None:
    """Make a CA, a server, its clients and a revocation list; complete what is missing.

    Nothing that exists is ever overwritten.
    """
    shared = _Shared(out, key_type, days, as_json)
    if context.invoked_subcommand is not None:
        if trust_domain is not None or server_name or client:
            raise typer.BadParameter(
                "--trust-domain, --server-name and --client do not go before a sub-command."
            )
        context.obj = shared
        return
    orders = [Order.server("server", server_name or list(_SERVER_NAMES), stem="server")]
    orders += [Order.client(name) for name in dict.fromkeys(client or _CLIENTS)]
    folder = out or _OUT
    outcomes = CertificateFolder(folder).generate(
        orders,
        trust_domain=trust_domain,
        key_type=key_type or KeyType.ECDSA_P256,
        lifetime=shared.lifetime,
    )
    _print_outcomes(folder, outcomes, as_json=as_json)


@app.command("add-client")
def add_client(
    context: typer.Context,
    name: str,
    *,
    out: _Out = None,
    key_type: _KeyType = None,
    days: _Days = None,
    as_json: _Json = False,
) -> None:
    """Add a client: clients/NAME.pem and .key."""
    shared = _Shared(out, key_type, days, as_json).over(context)
    _add(Order.client(name), shared)


@app.command("add-server")
def add_server(
    context: typer.Context,
    name: str,
    *,
    server_name: _ServerName = None,
    out: _Out = None,
    key_type: _KeyType = None,
    days: _Days = None,
    as_json: _Json = False,
) -> None:
    """Add a server: servers/NAME.pem and .key, for the host NAME unless told otherwise."""
    shared = _Shared(out, key_type, days, as_json).over(context)
    _add(Order.server(name, server_name or [name]), shared)


@app.command()
def verify(
    context: typer.Context,
    folder: Annotated[Path | None, typer.Argument(metavar="DIR")] = None,
    *,
    as_json: _Json = False,
) -> None:
    """Check all certificates and keys of a folder; exit with 1 if something is wrong."""
    shared = _Shared(folder, None, None, as_json).over(context)
    root = shared.out or _OUT
    findings = check_folder(root, now=time.time())
    if shared.as_json:
        _print_json([_finding_object(root, finding) for finding in findings])
    else:
        header = ("file", "who", "kind", "issued by", "until", "wrong")
        _print_table(header, [_finding_row(root, finding) for finding in findings])
    wrong = sum(bool(finding.problems) for finding in findings)
    if wrong:
        _complain(f"{wrong} of {len(findings)} files in {root} are not as they should be.")
        raise typer.Exit(_FAILURE)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; exits with 0, 1 for a failure or 2 for wrong usage."""
    try:
        app(arguments)
    except (AuthorityError, SpiffeIDError) as error:
        # Names, lifetimes and trust domains are what somebody typed; an authority that has
        # expired is not.
        _complain(str(error))
        sys.exit(_FAILURE if error.code == "expired" else _USAGE)
    except TLSError as error:
        _complain(str(error))
        sys.exit(_FAILURE)
    except OSError as error:
        _complain(f"{error.filename or 'The system'}: {error.strerror}.")
        sys.exit(_FAILURE)


def _add(order: Order, shared: _Shared) -> None:
    folder = shared.out or _OUT
    outcomes = CertificateFolder(folder).add(
        order, key_type=shared.key_type or KeyType.ECDSA_P256, lifetime=shared.lifetime
    )
    _print_outcomes(folder, outcomes, as_json=shared.as_json)


def _complain(message: str) -> None:
    print(f"Error: {_printable(message)}", file=sys.stderr)  # noqa: T201 - this is the output


def _print_outcomes(folder: Path, outcomes: list[Outcome], *, as_json: bool) -> None:
    rows = [(outcome, _describe(outcome.path)) for outcome in outcomes]
    if as_json:
        _print_json(
            [
                {
                    "file": str(outcome.path.relative_to(folder)),
                    "state": _state(outcome, finding),
                    "who": finding.who,
                    "until": _iso(finding.until),
                }
                for outcome, finding in rows
            ]
        )
        return
    _print_table(
        (str(folder), "", "who", "until"),
        [
            (
                str(outcome.path.relative_to(folder)),
                _state(outcome, finding),
                finding.who,
                _day(finding.until),
            )
            for outcome, finding in rows
        ],
    )


def _describe(path: Path) -> Finding:
    if path.suffix == ".key" or path.name == "crl.pem":
        return Finding(path)
    try:
        return describe(path)
    except TLSFileError:
        # It was there before; verify says what is wrong with it.
        return Finding(path, who="not readable as a certificate")


def _state(outcome: Outcome, finding: Finding) -> str:
    if outcome.created:
        return "created"
    return "expired" if finding.until is not None and finding.until < time.time() else "kept"


def _finding_object(root: Path, finding: Finding) -> dict[str, object]:
    return {
        "file": str(finding.path.relative_to(root)),
        "who": finding.who,
        "kind": finding.kind,
        "issued_by": finding.issued_by,
        "until": _iso(finding.until),
        "problems": list(finding.problems),
    }


def _finding_row(root: Path, finding: Finding) -> tuple[str, ...]:
    return (
        str(finding.path.relative_to(root)),
        finding.who,
        finding.kind,
        finding.issued_by,
        _day(finding.until),
        "; ".join(finding.problems) or "nothing",
    )


def _print_json(files: list[dict[str, object]]) -> None:
    print(json.dumps({"files": files}, indent=2))  # noqa: T201 - this is the output


def _print_table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    rows = [tuple(_printable(cell) for cell in row) for row in rows]
    if sys.stdout.isatty():
        table = Table(*header)
        for row in rows:
            # Text and not str: names are not markup.
            table.add_row(*(Text(cell) for cell in row))
        Console().print(table)
        return
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join(cells).rstrip())  # noqa: T201 - this is the output


def _printable(text: str) -> str:
    """Escape what could steer a terminal: names come from certificates of others."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _day(until: float | None) -> str:
    return "" if until is None else f"{datetime.fromtimestamp(until, UTC):%Y-%m-%d %H:%M} UTC"


def _iso(until: float | None) -> str | None:
    return None if until is None else datetime.fromtimestamp(until, UTC).isoformat()
