"""Certificate, key and bundle are checked before gRPC gets them."""

import os
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from secure_tls import (
    Authority,
    TLSFileError,
    find_ca_key,
    read_client_files,
    read_server_files,
)


@pytest.fixture
def server(authority, save):
    return save(authority.issue_server("s", ["localhost"]), "server")


@pytest.fixture
def client(authority, save):
    return save(authority.issue_client("c"), "client")


def assert_refused(code: str, path: Path, read, *files, **options) -> None:
    with pytest.raises(TLSFileError) as caught:
        read(*files, **options)
    assert caught.value.code == code
    assert caught.value.path == path
    assert str(path) in str(caught.value)


def test_what_a_server_reads_is_what_lies_on_the_disk(authority, server, bundle):
    files = read_server_files(*server, bundle)
    assert files.certificate_chain == server[0].read_bytes()
    assert files.private_key == server[1].read_bytes()
    assert files.ca_bundle == bundle.read_bytes()
    assert files.leaf.subject.rfc4514_string() == "CN=s"
    assert files.authorities == (authority.certificate,)


def test_U29_no_private_key_is_in_a_repr(server, client, bundle):
    for files in (read_server_files(*server, bundle), read_client_files(*client, bundle)):
        assert "PRIVATE" not in repr(files)
        assert "BEGIN CERTIFICATE" in repr(files)


def test_a_client_may_have_no_certificate_but_not_half_of_one(client, bundle):
    files = read_client_files(None, None, bundle)
    assert (files.certificate_chain, files.private_key, files.leaf) == (None, None, None)
    assert_refused("half_pair", client[0], read_client_files, client[0], None, bundle)
    assert_refused("half_pair", client[1], read_client_files, None, client[1], bundle)


def test_a_certificate_of_the_other_end_is_refused(server, client, bundle):
    assert_refused("eku", client[0], read_server_files, *client, bundle)
    assert_refused("eku", server[0], read_client_files, *server, bundle)


def test_missing_and_unreadable_files_are_named(server, bundle, tmp_path):
    nowhere = tmp_path / "nowhere"
    assert_refused("missing", nowhere, read_server_files, nowhere, server[1], bundle)
    assert_refused("missing", nowhere, read_server_files, server[0], nowhere, bundle)
    assert_refused("missing", nowhere, read_server_files, *server, nowhere)
    assert_refused("unreadable", tmp_path, read_server_files, tmp_path, server[1], bundle)


@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b[:-60], lambda b: b[60:]])
def test_damaged_files_are_named(server, bundle, damage):
    for number, code in enumerate(["certificate", "key"]):
        whole = server[number].read_bytes()
        server[number].write_bytes(damage(whole))
        assert_refused(code, server[number], read_server_files, *server, bundle)
        server[number].write_bytes(whole)
    bundle.write_bytes(damage(bundle.read_bytes()))
    assert_refused("certificate", bundle, read_server_files, *server, bundle)


def test_T18_a_key_of_another_certificate_is_refused(authority, server, bundle):
    other = authority.issue_server("s", ["localhost"])
    server[1].write_bytes(other.private_key_pem)
    assert_refused("key_mismatch", server[1], read_server_files, *server, bundle)


def test_the_leaf_must_come_first_in_the_chain(authority, server, bundle):
    leaf = server[0].read_bytes()
    server[0].write_bytes(leaf + authority.certificate_pem)
    read_server_files(*server, bundle)
    server[0].write_bytes(authority.certificate_pem + leaf)
    assert_refused("key_mismatch", server[1], read_server_files, *server, bundle)


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
def test_the_NIST_curves_are_served(authority, save, bundle, curve):
    key = ec.generate_private_key(curve)
    server = save(authority.issue_server("s", ["localhost"], private_key=key), "server")
    assert read_server_files(*server, bundle).leaf.subject


@pytest.mark.parametrize(
    "key",
    [
        ed25519.Ed25519PrivateKey.generate(),
        ec.generate_private_key(ec.SECP256K1()),
        rsa.generate_private_key(65537, 1024),
    ],
    ids=["ed25519", "secp256k1", "rsa-1024"],
)
def test_a_key_that_grpc_cannot_serve_is_refused(authority, save, bundle, key):
    issued = authority.issue(authority.server_template("s", ["localhost"]), key)
    server = save(issued, "server")
    assert_refused("key_type", server[1], read_server_files, *server, bundle)


def test_an_encrypted_key_is_refused(server, bundle):
    key = serialization.load_pem_private_key(server[1].read_bytes(), None)
    server[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    assert_refused("key_encrypted", server[1], read_server_files, *server, bundle)


def test_T4_T5_a_certificate_serves_within_its_dates_only(server, bundle):
    leaf = read_server_files(*server, bundle).leaf
    begin, end = leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()
    read_server_files(*server, bundle, now=begin)
    read_server_files(*server, bundle, now=end)
    assert_refused("not_yet_valid", server[0], read_server_files, *server, bundle, now=begin - 1)
    assert_refused("expired", server[0], read_server_files, *server, bundle, now=end + 1)
    with pytest.raises(TLSFileError, match=f"expired on {leaf.not_valid_after_utc:%Y-%m-%d}"):
        read_server_files(*server, bundle, now=end + 1)


def test_a_server_certificate_must_name_a_host(authority, save, bundle):
    template = authority.server_template("s", ["localhost"])
    uri = x509.UniformResourceIdentifier("spiffe://example.org/server/s")
    nameless = authority.issue(template.having(x509.SubjectAlternativeName([uri])))
    files = save(nameless, "a")
    assert_refused("no_san", files[0], read_server_files, *files, bundle)
    files = save(authority.issue(template.lacking(x509.SubjectAlternativeName)), "b")
    assert_refused("no_san", files[0], read_server_files, *files, bundle)


def test_an_authority_is_no_leaf(authority, save, bundle):
    template = authority.client_template("c").having(
        x509.BasicConstraints(ca=True, path_length=None), critical=True
    )
    files = save(authority.issue(template), "ca")
    assert_refused("is_ca", files[0], read_client_files, *files, bundle)


def test_a_certificate_without_extended_key_usage_is_refused(authority, save, bundle):
    template = authority.client_template("c").lacking(x509.ExtendedKeyUsage)
    files = save(authority.issue(template), "c")
    assert_refused("eku", files[0], read_client_files, *files, bundle)


def test_a_bundle_without_an_authority_is_refused(server, client):
    assert_refused("no_ca", client[0], read_server_files, *server, client[0])


def test_a_bundle_of_expired_authorities_is_refused(server, bundle, authority):
    old = Authority.create("example.org", lifetime=timedelta(hours=1), clock=lambda: 1e9)
    bundle.write_bytes(old.certificate_pem + authority.certificate_pem)
    assert len(read_server_files(*server, bundle).authorities) == 2
    bundle.write_bytes(old.certificate_pem)
    assert_refused("expired", bundle, read_server_files, *server, bundle)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_T22_a_key_open_to_group_or_others_is_refused_unless_allowed(server, bundle, mode):
    server[1].chmod(mode)
    assert_refused("key_permissions", server[1], read_server_files, *server, bundle)
    read_server_files(*server, bundle, allow_readable_key=True)


def test_T22_a_link_does_not_hide_an_open_key(client, bundle, tmp_path):
    client[1].chmod(0o644)
    link = tmp_path / "link"
    link.symlink_to(client[1])
    assert_refused("key_permissions", link, read_client_files, client[0], link, bundle)


def test_T22_the_authoritys_key_beside_the_bundle_is_found_by_what_it_is(
    authority, bundle, tmp_path, server
):
    assert find_ca_key(bundle) is None
    (tmp_path / "broken.key").symlink_to("nowhere")
    os.mkfifo(tmp_path / "fifo")
    hidden = tmp_path / "z-notes.txt"
    hidden.write_bytes(authority.private_key_pem)
    assert find_ca_key(bundle) == hidden


def test_names_may_be_texts(server, bundle):
    assert read_server_files(*map(str, (*server, bundle))).leaf
