"""The command line: what it prints, and how it fails."""

import dataclasses
import json
import os
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

import secure_tls
from secure_base.atomic_files import write_new
from secure_tls import Authority

ROOT = Path(secure_tls.__file__).parent.parent
SCRIPT = ROOT / "tools" / "gen_certs.py"


@pytest.fixture
def certs(run, tmp_path):
    assert run()[0] == 0
    return tmp_path / "certs"


def names(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def san(path):
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value


def test_plain_use_makes_the_documented_files(run, certs):
    leaves = {"server", "clients/admin", "clients/demo", "ca"}
    expected = {f"{leaf}{suffix}" for leaf in leaves for suffix in (".pem", ".key")}
    assert names(certs) == expected | {"crl.pem"}
    code, out, err = run("verify")
    assert (code, err) == (0, "")
    assert out.count("nothing") == 5


def test_a_second_run_says_what_it_kept(run, certs):
    code, out, _ = run()
    assert code == 0
    assert out.count("kept") == 9
    assert "created" not in out


def test_the_options_arrive(run, tmp_path):
    code, out, _ = run(
        *("--out", "d", "--trust-domain", "corp.example", "--client", "ci", "--days", "7"),
        *("--server-name", "grpc.corp.example", "--server-name", "192.0.2.1", "--json"),
    )
    assert code == 0
    files = {file["file"]: file for file in json.loads(out)["files"]}
    assert set(files) == names(tmp_path / "d")
    assert files["clients/ci.pem"]["who"] == "spiffe://corp.example/client/ci"
    assert files["clients/ci.pem"]["state"] == "created"
    assert [str(name.value) for name in san(tmp_path / "d/server.pem")] == [
        "grpc.corp.example",
        "192.0.2.1",
        "spiffe://corp.example/server/server",
    ]
    leaf = x509.load_pem_x509_certificate((tmp_path / "d/server.pem").read_bytes())
    left = leaf.not_valid_after_utc.timestamp() - time.time()
    assert timedelta(days=7) - timedelta(minutes=2) < timedelta(seconds=left) <= timedelta(days=7)


def test_clients_and_servers_are_added(run, certs):
    assert run("add-client", "ci")[0] == 0
    assert run("add-server", "api.example.org")[0] == 0
    assert run("--out", "certs", "add-server", "two", "--server-name", "10.0.0.2")[0] == 0
    new = {"clients/ci", "servers/api.example.org", "servers/two"}
    assert {f"{name}.pem" for name in new} <= names(certs)
    assert san(certs / "servers/api.example.org.pem")[0].value == "api.example.org"
    assert str(san(certs / "servers/two.pem")[0].value) == "10.0.0.2"
    assert run("verify", "certs")[0] == 0


def test_adding_a_client_again_keeps_it(run, certs):
    before = (certs / "clients/demo.key").read_bytes()
    code, out, _ = run("add-client", "demo")
    assert (code, out.count("kept")) == (0, 2)
    assert (certs / "clients/demo.key").read_bytes() == before


@pytest.mark.parametrize(
    "arguments",
    [
        ("--days", "400"),
        ("--days", "0"),
        ("--days", "x"),
        ("--client", "../evil"),
        ("--client", "Admin"),
        ("--server-name", "*.example.org"),
        ("--server-name", "fe80::1%eth0"),
        ("--trust-domain", "Example.org"),
        ("--trust-domain", ""),
        ("--key-type", "ed25519"),
        ("--unknown",),
        ("unknown",),
        ("add-client",),
        ("add-client", "a/b"),
        ("add-client", "a", "--days", "91"),
        ("add-server", "under_score"),
        ("--client", "x", "add-client", "y"),
    ],
)
def test_wrong_usage_exits_with_2_and_writes_nothing(run, tmp_path, arguments):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert "Error: " in err
    assert not (tmp_path / "certs").exists()


def test_another_trust_domain_is_wrong_usage(run, certs):
    code, _, err = run("--trust-domain", "other.example")
    assert code == 2
    assert "example.org" in err


@pytest.mark.parametrize(
    "arguments", [("--out", "/proc/none"), ("add-client", "a"), ("verify",), ("verify", ".")]
)
def test_failures_exit_with_1_and_one_line(run, arguments):
    code, out, err = run(*arguments)
    assert (code, out) == (1, "")
    assert err.startswith("Error: ")
    assert err.count("\n") == 1


def test_verify_names_everything_that_is_wrong(run, certs, authority):
    stranger = Authority.create("example.net").issue_client("stranger")
    old = Authority.create("example.org", clock=lambda: 1e9).issue_client("old")
    server = authority.issue_server("s", ["localhost"])
    no_usage = authority.issue(authority.client_template("n").lacking(x509.ExtendedKeyUsage))
    for name, issued in {
        "stranger": stranger,
        "old": old,
        "among": server,
        "usage": no_usage,
    }.items():
        write_new(certs / f"clients/{name}.pem", issued.certificate_pem, secret=False)
        write_new(certs / f"clients/{name}.key", issued.private_key_pem, secret=True)
    (certs / "clients/admin.key").chmod(0o644)
    (certs / "server.key").write_bytes((certs / "clients/demo.key").read_bytes())
    (certs / "clients/demo.key").unlink()
    write_new(certs / "clients/orphan.key", stranger.private_key_pem, secret=True)
    write_new(certs / "clients/empty.pem", b"", secret=False)
    code, out, err = run("verify", "--json")
    problems = {
        file["file"]: " ".join(file["problems"])
        for file in json.loads(out)["files"]
        if file["problems"]
    }
    for name, words in {
        "clients/stranger.pem": "not signed by ca.pem",
        "clients/old.pem": "expired on 2001",
        "clients/among.pem": "server's certificate among the clients",
        "clients/usage.pem": "neither serverAuth nor clientAuth",
        "clients/admin.pem": "chmod 600",
        "server.pem": "is not the key of",
        "clients/demo.pem": "does not exist",
        "clients/orphan.key": "has no certificate",
        "clients/empty.pem": "no readable PEM certificate",
    }.items():
        assert words in problems.pop(name)
    assert problems == {}
    assert code == 1
    assert "9 of 11 files" in err


def test_verify_knows_revoked_certificates_and_forged_lists(run, certs):
    authority = Authority.load(certs / "ca.pem", certs / "ca.key")
    demo = x509.load_pem_x509_certificate((certs / "clients/demo.pem").read_bytes())
    crl = authority.crl([demo.serial_number], number=2)
    (certs / "crl.pem").write_bytes(crl.public_bytes(Encoding.PEM))
    code, out, _ = run("verify")
    assert code == 1
    assert "is revoked" in next(line for line in out.splitlines() if "demo.pem" in line)
    crl = Authority.create("example.org").crl(number=3)
    (certs / "crl.pem").write_bytes(crl.public_bytes(Encoding.PEM))
    code, out, _ = run("verify")
    assert code == 1
    assert "no authority of the trust bundle" in out


def unlimited(authority: Authority) -> Authority:
    """The authority with a certificate that lets it have authorities below it."""
    ca = authority.certificate
    builder = x509.CertificateBuilder(
        ca.issuer,
        ca.subject,
        ca.public_key(),
        ca.serial_number,
        ca.not_valid_before_utc,
        ca.not_valid_after_utc,
        [each for each in ca.extensions if not isinstance(each.value, x509.BasicConstraints)],
    ).add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    signed = builder.sign(authority.private_key, hashes.SHA256())
    return dataclasses.replace(authority, certificate=signed)


def test_verify_follows_a_chain_of_another_PKI(run, tmp_path, authority):
    authority = unlimited(authority)
    template = authority.client_template("intermediate").having(
        x509.BasicConstraints(ca=True, path_length=0), critical=True
    )
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    issued = authority.issue(template.having(usage, critical=True))
    intermediate = Authority(issued.certificate, issued.private_key, "example.org")
    leaf = intermediate.issue_client("leaf")
    chain = leaf.certificate_pem + intermediate.certificate_pem
    write_new(tmp_path / "ca.pem", authority.certificate_pem, secret=False)
    write_new(tmp_path / "whole.pem", chain, secret=False)
    write_new(tmp_path / "whole.key", leaf.private_key_pem, secret=True)
    assert run("verify", ".")[0] == 0
    write_new(tmp_path / "leaf.pem", leaf.certificate_pem, secret=False)
    write_new(tmp_path / "leaf.key", leaf.private_key_pem, secret=True)
    code, out, _ = run("verify", ".")
    assert (code, out.count("not signed by ca.pem")) == (1, 1)


def test_verify_misses_a_lost_authority(run, certs):
    (certs / "ca.pem").unlink()
    code, out, _ = run("verify")
    assert code == 1
    assert "is missing" in out


def test_O3_names_cannot_steer_a_terminal(run, certs):
    authority = Authority.load(certs / "ca.pem", certs / "ca.key")
    evil = x509.SubjectAlternativeName([x509.UniformResourceIdentifier("x:\x1b[31m\n[red]ok")])
    issued = authority.issue(authority.client_template("evil").having(evil))
    write_new(certs / "clients/evil.pem", issued.certificate_pem, secret=False)
    write_new(certs / "clients/evil.key", issued.private_key_pem, secret=True)
    code, out, _ = run("verify")
    assert code == 1
    assert "\x1b" not in out
    assert r"x:\x1b[31m\n[red]ok" in out


def test_an_expired_leaf_is_called_expired_and_kept(run, certs):
    old = Authority.create("example.org", clock=lambda: 1e9).issue_client("old")
    write_new(certs / "clients/old.pem", old.certificate_pem, secret=False)
    write_new(certs / "clients/old.key", old.private_key_pem, secret=True)
    code, out, _ = run("add-client", "old")
    assert (code, out.count("expired")) == (0, 1)


def test_on_a_terminal_there_is_a_table(run, certs, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    code, out, _ = run("verify")
    assert code == 0
    assert "\u2500" in out
    assert "spiffe://example.org/client/demo" in out


def test_the_script_runs_from_a_bare_clone_and_anywhere(tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, SCRIPT, "--client", "one"]
    result = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert "clients/one.key" in names(tmp_path / "certs")


def test_the_script_says_what_to_install(tmp_path):
    command = [sys.executable, "-I", "-S", SCRIPT]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (2, "")
    assert "pip install cryptography rich typer" in result.stderr
    assert result.stderr.count("\n") == 1


def test_help_goes_to_standard_output(run):
    code, out, err = run("--help")
    assert (code, err) == (0, "")
    for word in (
        "--trust-domain",
        "add-client",
        "add-server",
        "renew",
        "revoke",
        "inspect",
        "verify",
    ):
        assert word in out


def test_verify_takes_leaves_for_both_purposes_and_other_suffixes(run, tmp_path, authority):
    """As step-ca (both usages, ``.crt``) and mkcert (``-key.pem``) write them."""
    write_new(tmp_path / "ca.pem", authority.certificate_pem, secret=False)
    both = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    names = x509.SubjectAlternativeName([x509.DNSName("node.example.org")])
    template = authority.client_template("node").having(both).having(names)
    issued = authority.issue(template)
    write_new(tmp_path / "node.crt", issued.certificate_pem, secret=False)
    write_new(tmp_path / "node.key", issued.private_key_pem, secret=True)
    other = authority.issue_client("other")
    write_new(tmp_path / "other-key.pem", other.private_key_pem, secret=True)
    code, out, _ = run("verify", "--json", ".")
    assert code == 0
    assert {file["file"]: file["kind"] for file in json.loads(out)["files"]} == {
        "ca.pem": "CA",
        "node.crt": "server, client",
    }
