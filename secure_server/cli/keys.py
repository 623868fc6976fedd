"""``secure-server keys``: the keys that sign our tokens, and their rotation."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from secure_server.cli.configured import ConfigOption, read_settings
from secure_server.cli.output import as_json, line, table

if TYPE_CHECKING:
    from secure_server.config import Config
    from secure_server.tokens.key_file import KeyFile
    from secure_server.tokens.key_ring import KeyRing

keys_app = typer.Typer(help="List and rotate the keys that sign tokens.", no_args_is_help=True)


@keys_app.command("list")
def list_keys(
    config: ConfigOption = None,
    *,
    as_json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the keys: the next one, the one that signs, and those that verify still."""
    file = _file(read_settings(config))
    if not file.path.exists():
        if as_json_:
            as_json([])
        else:
            line(f"{file.path}: there is no key yet; the first start makes one.")
        return
    entries = file.read(time.time()).entries
    if as_json_:
        as_json(
            [
                {
                    "kid": entry.key.key_id,
                    "state": entry.state,
                    "since": _moment(entry.since).isoformat(),
                    "until": None if entry.until is None else _moment(entry.until).isoformat(),
                }
                for entry in entries
            ]
        )
        return
    table(
        ("kid", "state", "since", "until"),
        [
            (
                entry.key.key_id,
                entry.state,
                _text(entry.since),
                "" if entry.until is None else _text(entry.until),
            )
            for entry in entries
        ],
    )


@keys_app.command()
def rotate(
    config: ConfigOption = None,
    *,
    now: Annotated[
        bool,
        typer.Option(
            "--now",
            help="Sign with it at once, as when a key was stolen: verifiers that have not fetched "
            "the new key refuse its tokens until they do.",
        ),
    ] = False,
) -> None:
    """Make a new key: published first, used later. Running servers take it up by themselves.

    The old one verifies until its last token is dead. While a key is published that does not
    sign yet, this makes no other.
    """
    settings = read_settings(config)
    file = _file(settings)
    moment = time.time()
    if not file.path.exists():
        line(f"The key {file.open(moment).key_id} was made. It is the first, and signs now.")
        return
    before: list[KeyRing] = []

    def step(ring: KeyRing) -> KeyRing:
        before.append(ring)
        if ring.next is not None and not now:
            return ring  # which is written all the same: that encrypts what was not
        return ring.rotated(moment, 0 if now else settings.tokens.signing_key_publishing)

    ring = file.change(step, moment)
    if now:
        _say_what_now_means(ring, before[0])
    elif ring.next is not None:
        known = "published already" if before[0].next is not None else "published now"
        line(f"The key {ring.next.key_id} is {known} and signs from {_text(ring.next.signs_from)}.")
        line(f"Until then {ring.key_id} does.")
    else:
        line(f"The key {ring.key_id} is published and signs now.")


def _say_what_now_means(ring: KeyRing, before: KeyRing) -> None:
    from secure_server.auth.key_source import FETCHED

    line(f"The key {ring.key_id} signs now.")
    end = next(entry.until for entry in ring.entries if entry.key.key_id == before.key_id)
    line(f"Tokens of {before.key_id} are good until they end, at {_text(end or 0)} at the latest.")
    typer.echo(
        "Verifiers that have not fetched the new key refuse its tokens until they do: guards of "
        f"secure-grpc for up to {FETCHED.cooldown:.0f} seconds, others for as long as they keep a "
        "key set. Files for [tokens] key_set have to be written again.",
        err=True,
    )


def _file(settings: Config) -> KeyFile:
    from secure_server.tokens.key_file import KeyFile

    return KeyFile(settings.tokens.signing_key, settings.tokens.signing_key_passphrase_file)


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _text(seconds: int) -> str:
    return f"{_moment(seconds):%Y-%m-%d %H:%M:%S} UTC"
