"""The command line: sessions listed and ended, and revocation by each of its options."""

import io
import json

import pytest
from services.people import administrator, newcomer

from secure_api.tokens.v1 import token_service_pb2 as pb
from secure_client.cli import main
from support.house import PASSWORD


@pytest.fixture
def admin(house, admin_token):
    return administrator(house, admin_token)


@pytest.fixture
def alice(house, admin_token):
    return newcomer(house, admin_token, called="alice")


@pytest.fixture
def cli(house, tmp_path, capsys, monkeypatch, log):
    """Run a command as a user, who is logged in before the first command."""
    ca = tmp_path / "ca.pem"
    ca.write_bytes(house.authority.certificate_pem)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("SECURE_CLIENT_TARGET", house.address)
    monkeypatch.setenv("SECURE_CLIENT_CA", str(ca))
    monkeypatch.chdir(tmp_path)
    known = set()

    def run(person, *arguments, stdin=""):
        key, certificate = tmp_path / f"{person.name}.key", tmp_path / f"{person.name}.pem"
        if not key.exists():
            key.touch(mode=0o600)
            key.write_bytes(person.client.issued.private_key_pem)
            certificate.write_bytes(person.client.issued.certificate_pem)
        monkeypatch.setenv("SECURE_CLIENT_PRIVATE_KEY", str(key))
        monkeypatch.setenv("SECURE_CLIENT_CERTIFICATE", str(certificate))
        monkeypatch.setenv("SECURE_CLIENT_PROFILE", person.name)
        if person.name not in known:
            known.add(person.name)
            run(person, "login", person.name, "--password-file", "-", stdin=f"{PASSWORD}\n")
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        out, err = capsys.readouterr()
        return caught.value.code, out, err

    return run


def listed(cli, person, *arguments):
    code, out, _ = cli(person, "sessions", "list", "--json", *arguments)
    assert code == 0
    return [session["name"].rpartition("/")[2] for session in json.loads(out)]


def test_sessions_are_listed_as_a_table_and_as_json(cli, alice, admin):
    code, out, _ = cli(alice, "sessions", "list")
    head, first, second = out.splitlines()
    assert code == 0
    assert head.split() == ["SESSION", "CLIENT", "CREATED", "LAST", "USED", "ENDS"]
    assert "*" not in first
    assert second.split()[1:3] == ["*", f"spiffe://example.org/client/{alice.name}"]
    ids = [line.split()[0] for line in (first, second)]
    assert listed(cli, alice) == ids
    assert listed(cli, admin, "--user", alice.name) == ids
    code, _, err = cli(alice, "sessions", "list", "--user", "admin")
    assert code == 1
    assert "does not allow this" in err


def test_one_session_is_revoked_and_all_others(cli, alice):
    tokens = [alice.log_in().access_token for _ in range(3)]
    first, *_, mine = listed(cli, alice)
    code, out, err = cli(alice, "sessions", "revoke", first)
    assert (code, out) == (0, "")
    assert err.endswith("The session is ended.\n")  # after what the server has logged here
    assert not alice.is_known(alice.tokens.access_token)
    assert all(map(alice.is_known, tokens))
    code, out, _ = cli(alice, "sessions", "revoke", "--others", "--json")
    assert (code, json.loads(out)) == (0, {"ended_sessions": 3})
    assert not any(map(alice.is_known, tokens))
    assert listed(cli, alice) == [mine]
    code, _, err = cli(alice, "sessions", "revoke", first)
    assert code == 1
    assert "no such session" in err


@pytest.mark.parametrize("option", ["--jti", "--session", "--user", "--client"])
def test_an_administrator_revokes_by_each_option(cli, alice, admin, option):
    token = alice.tokens.access_token
    me = alice.me().token
    (session,) = alice.do("ListSessions", pb.ListSessionsRequest(parent=alice.resource)).sessions
    value = {
        "--jti": me.token_id,
        "--session": session.name.rpartition("/")[2],
        "--user": alice.name,
        "--client": me.client_id,
    }[option]
    code, out, err = cli(admin, "tokens", "revoke", option, value)
    assert (code, out) == (0, "")
    assert "ended" in err or "no longer" in err
    assert not alice.is_known(token)


def test_an_id_is_revoked_of_the_issuer_that_is_named(cli, house, alice, admin):
    me = alice.me().token
    revoke = ("tokens", "revoke", "--jti", me.token_id, "--issuer")
    code, _, err = cli(admin, *revoke, "https://elsewhere.example.org")
    assert code == 1
    assert "revoke it at its issuer. [NOT_REVOCABLE]" in err
    assert alice.is_known(alice.tokens.access_token)
    assert cli(admin, *revoke, house.config.tokens.issuer)[0] == 0
    assert not alice.is_known(alice.tokens.access_token)


def test_a_token_is_revoked_from_standard_input_as_before(cli, alice):
    token = alice.log_in().access_token
    assert cli(alice, "tokens", "revoke", stdin=f"{token}\n")[0] == 0
    assert not alice.is_known(token)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("tokens", "revoke", "--user", "a", "--jti", "b"), "one thing at a time"),
        (("tokens", "revoke", "-", "--jti", "b"), "one thing at a time"),
        (("tokens", "revoke", "--issuer", "https://a"), "give both"),
        (("tokens", "revoke", "--user", "a", "--issuer", "https://a"), "give both"),
        (("sessions", "revoke"), "one of both"),
        (("sessions", "revoke", "x", "--others"), "one of both"),
    ],
)
def test_two_things_or_none_are_refused_before_anything_is_sent(cli, admin, arguments, says):
    code, _, err = cli(admin, *arguments)
    assert code == 2
    assert says in err
