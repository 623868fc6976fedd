"""OpenSSL, GnuTLS, a linter and a real handshake accept what is issued."""

import os
import shutil
import ssl
import subprocess

import pytest
from cryptography import x509

from secure_tls import KeyType
from secure_tls.folder import CertificateFolder, Order
from secure_tls.pem import serial_text
from secure_tls.revocation import Reason

HOSTS = ["localhost", "127.0.0.1", "::1", "grpc.example.org"]
KNOWN_TO_BE_WRONG = ("spiffe://", '"localhost"')
"""The linter knows neither the scheme nor names of one label, both of which are in order."""


@pytest.fixture(scope="module", params=list(KeyType))
def folder(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("certs")
    orders = [Order.server("server", HOSTS, stem="server"), Order.client("demo")]
    CertificateFolder(path).generate(orders, key_type=request.param)
    return path


def run(*command) -> str:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.parametrize("host", HOSTS)
def test_openssl_verifies_the_server_strictly_under_each_of_its_names(folder, host):
    check = "-verify_ip" if ":" in host or host[0].isdecimal() else "-verify_hostname"
    ca = folder / "ca.pem"
    strict = ["-x509_strict", "-purpose", "sslserver", check, host, "-CAfile", ca]
    assert "OK" in run("openssl", "verify", *strict, folder / "server.pem")


def test_openssl_verifies_the_client_strictly_against_the_revocation_list(folder):
    lists = ["-crl_check", "-CRLfile", folder / "crl.pem", "-CAfile", folder / "ca.pem"]
    strict = ["-x509_strict", "-purpose", "sslclient", *lists]
    assert "OK" in run("openssl", "verify", *strict, folder / "clients" / "demo.pem")


def test_openssl_verifies_the_authority_strictly(folder):
    ca = folder / "ca.pem"
    assert "OK" in run("openssl", "verify", "-x509_strict", "-CAfile", ca, ca)


@pytest.mark.parametrize(
    ("leaf", "purpose"),
    [("server.pem", "1.3.6.1.5.5.7.3.1"), ("clients/demo.pem", "1.3.6.1.5.5.7.3.2")],
)
def test_gnutls_verifies_the_leaves(folder, leaf, purpose):
    output = run(
        "certtool",
        *("--verify", "--verify-profile", "high", "--verify-purpose", purpose),
        *("--load-ca-certificate", folder / "ca.pem", "--infile", folder / leaf),
    )
    assert "The certificate is trusted" in output


@pytest.mark.parametrize("name", ["ca.pem", "server.pem", "clients/demo.pem"])
def test_the_linter_finds_nothing_but_what_it_does_not_know(folder, name):
    linter = os.environ.get("PKILINT", "lint_pkix_cert")
    if shutil.which(linter) is None:
        pytest.skip("pkilint is not installed (set PKILINT to its lint_pkix_cert)")
    result = subprocess.run(
        [linter, "lint", "-s", "WARNING", folder / name],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert not result.stderr
    complaints = [line for line in result.stdout.splitlines() if line.startswith("    ")]
    assert [c for c in complaints if not any(known in c for known in KNOWN_TO_BE_WRONG)] == []


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, host: str):
    """A whole handshake in memory; returns what each end knows of the other's certificate."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=host),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    waiting = list(ends)
    for _ in range(20):
        for end in list(waiting):
            try:
                end.do_handshake()
                waiting.remove(end)
            except ssl.SSLWantReadError:
                continue
    assert not waiting
    return [end.getpeercert() for end in ends]


def contexts(folder):
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=folder / "ca.pem")
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_cert_chain(folder / "server.pem", folder / "server.key")
    client = ssl.create_default_context(cafile=folder / "ca.pem")
    client.load_cert_chain(folder / "clients/demo.pem", folder / "clients/demo.key")
    for context in (server, client):
        context.verify_flags |= ssl.VERIFY_X509_STRICT
    return server, client


@pytest.mark.parametrize("host", HOSTS)
def test_server_and_client_shake_hands_over_mutual_tls(folder, host):
    server, client = shake_hands(*contexts(folder), host)
    assert ("URI", "spiffe://example.org/server/server") in server["subjectAltName"]
    assert client["subjectAltName"] == (("URI", "spiffe://example.org/client/demo"),)


def test_T21_a_client_refuses_the_server_under_another_name(folder):
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake_hands(*contexts(folder), "other.example.org")


def test_T3_a_server_refuses_a_client_of_another_authority(folder, tmp_path):
    CertificateFolder(tmp_path).generate([Order.client("demo")])
    server, client = contexts(folder)
    client.load_cert_chain(tmp_path / "clients/demo.pem", tmp_path / "clients/demo.key")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(server, client, "localhost")


def test_T6_neither_end_takes_the_others_certificate(folder):
    server, client = contexts(folder)
    client.load_cert_chain(folder / "server.pem", folder / "server.key")
    with pytest.raises(ssl.SSLCertVerificationError, match="purpose"):
        shake_hands(server, client, "localhost")


@pytest.fixture
def changed(tmp_path):
    """Billing was renewed, and both of its certificates were revoked; demo was only renewed."""
    certs = CertificateFolder(tmp_path / "certs")
    orders = [Order.server("server", HOSTS, stem="server")]
    certs.generate([*orders, Order.client("demo"), Order.client("billing"), Order.client("other")])
    shutil.copy(tmp_path / "certs/clients/billing.pem", tmp_path / "before.pem")
    certs.renew(["demo", "billing", "server"])
    certs.revoke("billing", reason=Reason.KEY_COMPROMISE)
    return tmp_path


def test_O7_openssl_refuses_the_revoked_and_accepts_the_renewed(changed):
    certs = changed / "certs"
    lists = ["-crl_check", "-CRLfile", certs / "crl.pem", "-CAfile", certs / "ca.pem"]
    strict = ["openssl", "verify", "-x509_strict", *lists, "-purpose"]
    for leaf, purpose in [
        ("clients/demo", "sslclient"),
        ("clients/other", "sslclient"),
        ("server", "sslserver"),
    ]:
        assert "OK" in run(*strict, purpose, certs / f"{leaf}.pem")
    for leaf in (certs / "clients/billing.pem", changed / "before.pem"):
        refused = subprocess.run(
            [*strict, "sslclient", leaf], capture_output=True, text=True, check=False, timeout=60
        )
        assert refused.returncode != 0
        assert "certificate revoked" in refused.stderr


def test_O7_openssl_reads_the_list(changed):
    certs = changed / "certs"
    arguments = [
        "-in",
        certs / "crl.pem",
        "-CAfile",
        certs / "ca.pem",
        "-noout",
        "-text",
        "-verify",
    ]
    text = run("openssl", "crl", *arguments)
    for words in ("X509v3 CRL Number", "Key Compromise"):
        assert words in text
    for leaf in (certs / "clients/billing.pem", changed / "before.pem"):
        serial = run("openssl", "x509", "-in", leaf, "-noout", "-serial").strip()
        assert serial.removeprefix("serial=") in text


def test_a_serial_number_is_written_as_openssl_writes_it(changed):
    leaf = changed / "certs/clients/demo.pem"
    printed = run("openssl", "x509", "-in", leaf, "-noout", "-serial").strip()
    assert (
        printed
        == f"serial={serial_text(x509.load_pem_x509_certificate(leaf.read_bytes()).serial_number)}"
    )
    assert [serial_text(serial) for serial in (1, 0xABC, 0xABCD)] == ["01", "0ABC", "ABCD"]


def test_the_renewed_shake_hands_over_mutual_tls(changed):
    _, client = shake_hands(*contexts(changed / "certs"), "localhost")
    assert client["subjectAltName"] == (("URI", "spiffe://example.org/client/demo"),)
