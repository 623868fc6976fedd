"""The ways in which a row of a table differs from what is good."""

from __future__ import annotations

import shutil
import sqlite3
import time
from contextlib import closing
from datetime import timedelta

import pytest
from check_site import Prepare, Site, authority, start

from secure_server.store import Database
from secure_server.tokens.key_file import KeyFile
from secure_tls.authority import Authority
from support.old_store import old_database

PARTNER = '[tls.trust_bundles]\n"partner.example" = "partner.pem"\n'
PASSPHRASE = "a passphrase of more than thirty-two characters"
POLICY = '[policy]\nfile = "policy.json"\n'


def nothing(site: Site) -> None:
    """As it is."""


def tls(text: str, **files: bytes) -> Prepare:
    def prepare(site: Site) -> None:
        site.tls += text
        for name, data in files.items():
            site.write(name.replace("_pem", ".pem"), data)

    return prepare


def replaced(name: str, data: bytes | str) -> Prepare:
    return lambda site: site.write(name, data)


def removed(name: str) -> Prepare:
    return lambda site: (site.folder / name).unlink()


def readable(name: str) -> Prepare:
    return lambda site: (site.folder / name).chmod(0o644)


def table(text: str) -> Prepare:
    def prepare(site: Site) -> None:
        site.more += text

    return prepare


def policy(text: str) -> Prepare:
    def prepare(site: Site) -> None:
        site.write("policy.json", text)
        site.more += POLICY

    return prepare


def logger(name: str, *, is_optional: bool = False, **config: object) -> Prepare:
    return lambda site: site.audited(
        {"name": name, "is_optional": is_optional, **({"config": config} if config else {})}
    )


def in_turn(*steps: Prepare) -> Prepare:
    def prepare(site: Site) -> None:
        for step in steps:
            step(site)

    return prepare


def authenticator(**settings: object) -> Prepare:
    return lambda site: site.authenticator(**settings)


def tokens(text: str) -> Prepare:
    def prepare(site: Site) -> None:
        site.tokens += text

    return prepare


def passphrase(text: str) -> Prepare:
    return in_turn(
        tokens('signing_key_passphrase_file = "passphrase"\n'), replaced("passphrase", text)
    )


def started(site: Site) -> None:
    """With what an earlier start has left."""
    assert start(site.config, own=False).refusal == ""


def key(site: Site, passphrase: str | None = None) -> None:
    path = None if passphrase is None else site.write("old-passphrase", passphrase)
    KeyFile(site.folder / "state/key.pem", path).open(0)


def store(*statements: str) -> Prepare:
    def prepare(site: Site) -> None:
        Database.open(site.store).close()
        with closing(sqlite3.connect(site.folder / "state/store.db")) as connection:
            for statement in statements:
                connection.execute(statement)
            connection.commit()

    return prepare


def foreign(site: Site) -> None:
    site.write("state/store.db", "")
    with closing(sqlite3.connect(site.folder / "state/store.db")) as connection:
        connection.execute("CREATE TABLE another (program)")
        connection.commit()


def old_store(site: Site) -> None:
    site.write("state/.keep", "")
    with pytest.MonkeyPatch.context() as monkeypatch:
        old_database(site.store, monkeypatch, "0002").close()


def open_store(site: Site) -> None:
    """As a process that was killed leaves it: with a log that is not in the file yet."""
    database = Database.open(f"sqlite:///{site.folder}/live.db")
    with database.write() as connection:
        connection.exec_driver_sql("CREATE TABLE more (a)")
    site.write("state/.keep", "")
    for name in ("live.db", "live.db-wal", "live.db-shm"):
        shutil.copy(site.folder / name, site.folder / "state" / name.replace("live", "store"))
    database.close()


def torn_store(site: Site) -> None:
    store()(site)
    path = site.folder / "state/store.db"
    path.write_bytes(path.read_bytes()[:100] + b"\xff" * 4096)


def ended(site: Site) -> None:
    then = Authority.create("example.org", clock=lambda: time.time() - 80 * 86400)
    leaf = then.issue_server("server", ["localhost"], [], timedelta(days=10))
    site.write("server.pem", leaf.certificate_pem)
    site.write("server.key", leaf.private_key_pem)


def partner(**lists: bytes) -> Prepare:
    return in_turn(
        tls('crl = "lists"\n' + PARTNER, partner_pem=authority("partner.example").certificate_pem),
        *(replaced(f"lists/{name}.pem", data) for name, data in lists.items()),
    )
