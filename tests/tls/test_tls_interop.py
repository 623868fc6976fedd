"""Others accept what is issued: OpenSSL, GnuTLS, a linter, and a real handshake."""

import os
import shutil
import ssl
import subprocess

import pytest

from secure_tls import KeyType
from secure_tls.folder import CertificateFolder, Order

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
