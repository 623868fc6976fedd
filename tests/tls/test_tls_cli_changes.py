"""The commands that change existing files, as a user types them."""

import json
import time
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from secure_base.atomic_files import write_new
from secure_tls import Authority
from secure_tls.folder import CertificateFolder, Order


@pytest.fixture
def certs(run, tmp_path):
    """Made 80 days ago by the clock, except ``fresh``, which is new."""
    path = tmp_path / "certs"
    old = CertificateFolder(path, clock=lambda: time.time() - 80 * 86400)
    old.generate([Order.server("server", ["localhost"], stem="server"), Order.client("billing")])
    assert run("add-client", "fresh")[0] == 0
    return path


def rows(out):
    """The lines of a table below its header, as first and second word."""
    return [tuple(line.split()[:2]) for line in out.splitlines()[1:] if line]


def load(path):
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_renew_renews_what_is_near_its_end(run, certs):
    code, out, err = run("renew")
    assert (code, err) == (0, "")
    assert rows(out) == [
        ("server.pem", "renewed"),
        ("clients/billing.pem", "renewed"),
        ("clients/fresh.pem", "kept"),
        ("crl.pem", "kept"),
    ]
    assert run("verify")[0] == 0
    code, out, _ = run("renew")
    assert (code, out.count("renewed")) == (0, 0)


def test_adding_a_client_re_signs_the_ageing_list(run, certs):
    crl = x509.load_pem_x509_crl((certs / "crl.pem").read_bytes())
    assert crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == 2


def test_renew_takes_names_and_prints_json(run, certs):
    code, out, _ = run("renew", "fresh", "server", "--json")
    assert code == 0
    files = json.loads(out)["files"]
    assert [(file["file"], file["state"]) for file in files] == [
        ("clients/fresh.pem", "renewed"),
        ("server.pem", "renewed"),
        ("crl.pem", "kept"),
    ]
    assert files[0]["who"] == "spiffe://example.org/client/fresh"
    until = datetime.fromisoformat(files[1]["until"])
    assert until - datetime.now(UTC) > timedelta(days=89)


def test_renew_within_days(run, certs):
    assert "renewed" not in run("renew", "--within", "5")[1]
    assert run("renew", "--within", "11")[1].count("renewed") == 2


def test_renew_fails_for_what_it_cannot_read_and_renews_the_rest(run, certs):
    (certs / "clients/billing.pem").write_bytes(b"")
    code, out, err = run("renew")
    assert code == 1
    assert ("server.pem", "renewed") in rows(out)
    assert ("clients/billing.pem", "failed") in rows(out)
    assert err == "Error: 1 of the certificates in certs could not be renewed: see the notes.\n"


def test_an_expired_leaf_is_kept_with_a_hint(run, certs):
    old = Authority.create("example.org", clock=lambda: 1e9).issue_client("old")
    write_new(certs / "clients/old.pem", old.certificate_pem, secret=False)
    write_new(certs / "clients/old.key", old.private_key_pem, secret=True)
    code, out, _ = run("add-client", "old")
    assert code == 0
    assert "run secure-certs renew" in out


def test_revoke_puts_a_client_on_the_list(run, certs):
    code, out, err = run("revoke", "billing", "--reason", "keyCompromise")
    assert (code, err) == (0, "")
    assert rows(out) == [("clients/billing.pem", "revoked"), ("crl.pem", "renewed")]
    assert "number 3, 1 revoked" in out
    code, out, _ = run("verify")
    assert code == 1
    assert "is revoked" in out
    code, out, _ = run("renew")
    assert code == 0
    assert ("clients/billing.pem", "skipped") in rows(out)


def test_revoke_twice_says_so(run, certs):
    run("revoke", "billing")
    before = (certs / "crl.pem").read_bytes()
    code, out, _ = run("revoke", "billing", "--json")
    files = json.loads(out)["files"]
    assert code == 0
    assert [file["state"] for file in files] == ["already revoked", "kept"]
    assert (certs / "crl.pem").read_bytes() == before


def test_revoke_takes_a_serial_number_as_openssl_prints_it(run, certs):
    serial = load(certs / "clients/billing.pem").serial_number
    digits = f"{serial:040x}"
    colons = ":".join(digits[index : index + 2] for index in range(0, 40, 2))
    assert run("revoke", "--serial", colons)[0] == 0
    code, out, _ = run("revoke", "--serial", digits.upper())
    assert code == 0
    assert "already revoked" in out


@pytest.mark.parametrize(
    "arguments",
    [
        ("revoke",),
        ("revoke", "biling"),
        ("revoke", "billing", "--serial", "1"),
        ("revoke", "--serial", "xyz"),
        ("revoke", "--serial", "0"),
        ("revoke", "billing", "--reason", "boredom"),
        ("revoke", "certs/ca.pem"),
        ("renew", "biling"),
        ("renew", "billing", "--within", "3"),
        ("renew", "--within", "-1"),
        ("--days", "30", "renew"),
        ("--key-type", "rsa-3072", "renew"),
    ],
)
def test_wrong_usage_exits_with_2_and_changes_nothing(run, certs, arguments):
    before = {path: path.read_bytes() for path in certs.rglob("*.*")}
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert "Error: " in err
    assert {path: path.read_bytes() for path in certs.rglob("*.*")} == before


@pytest.mark.parametrize("command", ["renew", "revoke"])
def test_without_the_authoritys_key_they_say_what_to_do(run, certs, command):
    (certs / "ca.key").unlink()
    code, out, err = run(command, "billing")
    assert (code, out) == (1, "")
    assert "ca.key is not there" in err
    assert "bring it back" in err


@pytest.mark.parametrize("arguments", [("renew",), ("revoke", "a"), ("inspect",)])
def test_a_folder_that_is_not_there_is_a_failure_of_one_line(run, arguments):
    code, out, err = run(*arguments)
    assert (code, out, err.count("\n")) == (1, "", 1)


def test_inspect_shows_everything_and_judges_nothing(run, certs):
    run("renew", "billing")
    run("revoke", "billing", "--reason", "superseded")
    (certs / "clients/fresh.pem").write_bytes(b"")
    code, out, err = run("inspect")
    assert (code, err) == (0, "")
    new = load(certs / "clients/billing.pem")
    assert out.count(f"{new.serial_number:X}") == 2
    assert out.count("superseded") == 2
    for words in ("ca.pem", "number 3, 2 revoked", "ecdsa-p256", "is revoked", "no readable PEM"):
        assert words in out
    assert run("verify")[0] == 1


def test_inspect_prints_json_for_programs(run, certs):
    run("revoke", "billing", "--reason", "superseded")
    shown = json.loads(run("inspect", "certs", "--json")[1])
    files = {file["file"]: file for file in shown["files"]}
    checked = {f["file"]: f for f in json.loads(run("verify", "--json")[1])["files"]}
    assert {
        name: {key: file[key] for key in checked[name]} for name, file in files.items()
    } == checked
    billing = files["clients/billing.pem"]
    assert (billing["key"], billing["problems"]) == ("ecdsa-p256", ["is revoked"])
    assert files["ca.pem"]["kind"] == "CA"
    assert files["crl.pem"]["who"] == "number 3, 1 revoked"
    (entry,) = shown["revoked"]
    assert (entry["serial"], entry["reason"]) == (billing["serial"], "superseded")
    assert entry["who"] == "spiffe://example.org/client/billing"


def test_verify_says_what_to_do_with_a_stale_list(run, certs):
    authority = Authority.load(certs / "ca.pem", certs / "ca.key")
    crl = authority.crl(number=7, lifetime=timedelta(seconds=-1))
    (certs / "crl.pem").write_bytes(crl.public_bytes(Encoding.PEM))
    code, out, _ = run("verify")
    assert code == 1
    assert "run secure-certs to renew it" in out
    assert run()[0] == 0
    assert run("verify")[0] == 0


def test_verify_tells_what_was_put_among_the_replaced(run, certs, authority):
    foreign = authority.issue_client("foreign").certificate_pem
    write_new(certs / "replaced.pem", foreign, secret=False)
    code, out, _ = run("verify")
    assert code == 1
    assert "not signed by ca.pem" in out
