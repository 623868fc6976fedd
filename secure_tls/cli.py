"""``secure-certs``: make, renew, revoke and check certificates for small installations."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from secure_base.terminal import whole_output
from secure_base.version import installed_version
from secure_tls.check import check_folder
from secure_tls.errors import AuthorityError, SpiffeIDError, TLSError
from secure_tls.folder import CertificateFolder, Order
from secure_tls.keys import KeyType
from secure_tls.outcome import FileState
from secure_tls.printing import complain, print_all, print_check, print_outcomes
from secure_tls.revocation import Reason

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
    # Errors stay one or two sentences, on a terminal too.
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
        """These options; those not given are taken from before the sub-command."""
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


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"secure-certs {installed_version()}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def generate(
    context: typer.Context,
    *,
    out: _Out = None,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
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

    No certificate and no key is ever overwritten, except by renew. Every run that has ca.key
    re-signs the revocation list after half of its lifetime.
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
    print_outcomes(folder, outcomes, as_json=as_json)


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
def renew(
    context: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="What to renew now. [all that is due]"),
    ] = None,
    *,
    within: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=_DAYS,
            metavar="DAYS",
            help="Renew what ends within so many days. [a third of its lifetime]",
        ),
    ] = None,
    out: _Out = None,
    as_json: _Json = False,
) -> None:
    """Put new keys and certificates in place of those that end soon, or of those named.

    Each keeps its names, its kind of key and its lifetime. A revoked one is left alone unless it
    is named. Exits with 1 if one that is due cannot be renewed.
    """
    shared = _Shared(out, None, None, as_json).over(context)
    if shared.key_type is not None or shared.days is not None:
        raise typer.BadParameter(
            "renew keeps kinds of keys and lifetimes: no --key-type, no --days."
        )
    if names and within is not None:
        raise typer.BadParameter("what is named is renewed at once: leave out --within.")
    folder = shared.out or _OUT
    outcomes = CertificateFolder(folder).renew(
        names or (), within=None if within is None else timedelta(days=within)
    )
    print_outcomes(folder, outcomes, as_json=shared.as_json)
    failed = [outcome for outcome in outcomes if outcome.state is FileState.FAILED]
    if failed:
        complain(
            f"{len(failed)} of the certificates in {folder} could not be renewed: see the notes."
        )
        raise typer.Exit(_FAILURE)


@app.command()
def revoke(
    context: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="A client, a server, or a certificate's file."),
    ] = None,
    *,
    serial: Annotated[
        str | None, typer.Option(metavar="HEX", help="Serial number, in place of NAME.")
    ] = None,
    reason: Annotated[Reason | None, typer.Option(help="Why (RFC 5280). [not said]")] = None,
    out: _Out = None,
    as_json: _Json = False,
) -> None:
    """Put a certificate on the revocation list, crl.pem, and raise the list's number.

    A name also revokes all certificates that renew has replaced and that are still valid.
    """
    shared = _Shared(out, None, None, as_json).over(context)
    if (name is None) == (serial is None):
        raise typer.BadParameter("say what to revoke: a NAME or a --serial.")
    folder = shared.out or _OUT
    wanted = name if name is not None else _number(serial or "")
    outcomes = CertificateFolder(folder).revoke(wanted, reason=reason)
    print_outcomes(folder, outcomes, as_json=shared.as_json)


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
    print_check(root, findings, as_json=shared.as_json)
    wrong = sum(bool(finding.problems) for finding in findings)
    if wrong:
        complain(f"{wrong} of {len(findings)} files in {root} are not as they should be.")
        raise typer.Exit(_FAILURE)


@app.command()
def inspect(
    context: typer.Context,
    folder: Annotated[Path | None, typer.Argument(metavar="DIR")] = None,
    *,
    as_json: _Json = False,
) -> None:
    """Show everything in a folder, what is revoked included, whether or not something is wrong."""
    shared = _Shared(folder, None, None, as_json).over(context)
    root = shared.out or _OUT
    print_all(root, check_folder(root, now=time.time()), as_json=shared.as_json)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; exits with 0, 1 for a failure or 2 for wrong usage."""
    try:
        with whole_output():
            app(arguments)
    except (AuthorityError, SpiffeIDError) as error:
        # Names, lifetimes and trust domains were typed: wrong usage. An expired authority was not.
        complain(str(error))
        sys.exit(_FAILURE if error.code == "expired" else _USAGE)
    except TLSError as error:
        complain(str(error))
        sys.exit(_FAILURE)
    except OSError as error:
        complain(f"{error.filename or 'The system'}: {error.strerror}.")
        sys.exit(_FAILURE)


def _add(order: Order, shared: _Shared) -> None:
    folder = shared.out or _OUT
    outcomes = CertificateFolder(folder).add(
        order, key_type=shared.key_type or KeyType.ECDSA_P256, lifetime=shared.lifetime
    )
    print_outcomes(folder, outcomes, as_json=shared.as_json)


def _number(text: str) -> int:
    try:
        return int(text.replace(":", ""), 16)
    except ValueError:
        raise typer.BadParameter(
            f"{text[:80]!a} is no serial number: give it in hexadecimal, as inspect shows it."
        ) from None
