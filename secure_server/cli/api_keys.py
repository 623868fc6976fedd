"""``secure-server api-keys``: make the keys of ``type = "api_key"``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from secure_server.cli.output import as_json, fail, table

api_keys_app = typer.Typer(
    help='Make and list the keys of `[[authenticators]] type = "api_key"`.', no_args_is_help=True
)

KeysFile = Annotated[
    Path, typer.Option("--file", metavar="FILE", help="The file that the configuration names.")
]
_DEFAULT = Path("api-keys.toml")


@api_keys_app.command()
def create(
    owner: Annotated[str, typer.Option(help="Whose key it is: the subject of its calls.")],
    scope: Annotated[list[str] | None, typer.Option(help="What it is for; repeatable.")] = None,
    role: Annotated[list[str] | None, typer.Option(help="A role; repeatable.")] = None,
    days: Annotated[int, typer.Option(min=1, max=366, help="For how long it is good.")] = 90,
    file: KeysFile = _DEFAULT,
) -> None:
    """Print a new key, once, and add its digest to the file. Running servers take it up."""
    from pydantic import ValidationError

    from secure_base.atomic_files import locked, replace
    from secure_server.auth.api_keys import make_api_key, read_api_keys
    from secure_server.auth.errors import AuthenticatorError

    expires = datetime.now(UTC).replace(microsecond=0) + timedelta(days=days)
    try:
        key, entry = make_api_key(owner, scopes=scope or (), roles=role or (), expires=expires)
        # Of two runs that read the file before either wrote it, one would lose its key.
        with locked(file.parent):
            before = ""
            if file.exists():
                read_api_keys(file)  # nothing is added to what could not be read
                before = file.read_text(encoding="utf-8").rstrip() + "\n\n"
            replace(file, (before.lstrip() + entry).encode(), keep=True)
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        message = problem["msg"].removeprefix("Value error, ")
        raise fail(f"--{str(problem['loc'][0]).rstrip('s')} {message}.") from None
    except AuthenticatorError as error:
        raise fail(str(error)) from None
    except OSError as error:
        raise fail(f"{file}: cannot be written: {error.strerror}.") from None
    typer.echo(key)
    typer.echo(
        f"The key of {owner} is good until {expires:%Y-%m-%d}. It is shown this once; {file} holds "
        "its digest. Take its table out of there to end it sooner.",
        err=True,
    )


@api_keys_app.command("list")
def list_keys(
    file: KeysFile = _DEFAULT,
    *,
    as_json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the keys of the file: whose they are, what for, until when."""
    from secure_server.auth.api_keys import read_api_keys

    keys = read_api_keys(file)
    rows = [
        {
            "id": key.key_id,
            "owner": key.owner,
            "scopes": sorted(key.scopes),
            "roles": sorted(key.roles),
            "expires": datetime.fromtimestamp(key.expires_at, UTC).isoformat(),
        }
        for key in keys.values()
    ]
    if as_json_:
        as_json(rows)
        return
    table(
        ("id", "owner", "scopes", "roles", "expires"),
        [
            (
                str(row["id"]),
                str(row["owner"]),
                " ".join(row["scopes"]),
                " ".join(row["roles"]),
                str(row["expires"])[:16],
            )
            for row in rows
        ],
    )
