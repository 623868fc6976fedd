"""Where a standard or a rule of ours sets a limit: the limit itself works, one more does not."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from tls.der import INTEGER, element, signed, split

from secure_tls import (
    Authority,
    AuthorityError,
    KeyType,
    PeerError,
    TLSFileError,
    find_ca_key,
    parse_peer,
    read_server_files,
)
from secure_tls.keys import private_pem


def with_serial(authority: Authority, serial: int) -> bytes:
    """A client's certificate with this serial number, properly signed, in PEM."""
    issued = authority.issue_client("admin").certificate
    _, body, _ = split(issued.tbs_certificate_bytes)
    version, _, rest = split(body)
    _, _, rest = split(rest)
    number = serial.to_bytes(max(1, (serial.bit_length() + 8) // 8), signed=True)
    der = signed(version + element(INTEGER, number) + rest, authority.private_key)
    certificate = x509.load_der_x509_certificate(der)
    certificate.verify_directly_issued_by(authority.certificate)
    return certificate.public_bytes(Encoding.PEM)


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
@pytest.mark.parametrize("serial", [0, -1, -(2**100)])
def test_a_serial_number_that_is_not_positive_is_malformed(authority: Authority, serial: int):
    """RFC 5280, section 4.1.2.2. No revocation list of its authority could name it."""
    with pytest.raises(PeerError) as caught:
        parse_peer(with_serial(authority, serial))
    assert caught.value.code == "malformed"
    assert "serial" in str(caught.value)


@pytest.mark.parametrize("serial", [1, 2**159 - 1])
def test_the_smallest_and_the_largest_serial_number_are_read(authority: Authority, serial: int):
    assert parse_peer(with_serial(authority, serial)).serial == serial


def test_an_authority_lives_25_years_at_the_most():
    longest = timedelta(days=25 * 365)
    assert Authority.create("example.org", lifetime=longest).trust_domain == "example.org"
    with pytest.raises(AuthorityError) as caught:
        Authority.create("example.org", lifetime=longest + timedelta(seconds=1))
    assert caught.value.code == "lifetime"


def test_a_leaf_lives_90_days_at_the_most(authority: Authority):
    assert authority.issue_client("c", timedelta(days=90))
    with pytest.raises(AuthorityError) as caught:
        authority.issue_client("c", timedelta(days=90, seconds=1))
    assert caught.value.code == "lifetime"


def test_a_list_is_due_again_after_90_days_unless_it_is_said(authority: Authority):
    """After this long without a new list, the installation is warned of a stale one."""
    crl = authority.crl(number=1)
    due = crl.next_update_utc - crl.last_update_utc
    assert timedelta(days=90) <= due < timedelta(days=90, minutes=10)
    assert authority.crl(number=1, lifetime=timedelta(days=1)).next_update_utc < crl.next_update_utc


def test_a_leaf_is_issued_in_the_last_second_of_its_authority_and_not_in_that_after():
    """Both ends of a validity period are in it, but a leaf needs a second to live."""
    moment = 1_800_000_000.0
    authority = Authority.create("example.org", lifetime=timedelta(days=1), clock=lambda: moment)
    end = authority.certificate.not_valid_after_utc.timestamp()
    last = dataclasses.replace(authority, clock=lambda: end - 1)
    assert last.issue_client("c").certificate.not_valid_after_utc.timestamp() == end
    with pytest.raises(AuthorityError) as caught:
        dataclasses.replace(authority, clock=lambda: end).issue_client("c")
    assert caught.value.code == "expired"


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("a" * 63, "a" * 64),
        ("a" + "." * 61 + "a", "a" + "." * 62 + "a"),
    ],
)
def test_a_name_has_63_characters_at_the_most(authority: Authority, good: str, bad: str):
    assert authority.issue_client(good)
    with pytest.raises(AuthorityError) as caught:
        authority.issue_client(bad)
    assert caught.value.code == "name"


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("a" * 63, "a" * 64),
        (".".join(["a" * 63] * 3) + "." + "b" * 61, ".".join(["a" * 63] * 3) + "." + "b" * 62),
    ],
    ids=["label", "name"],
)
def test_a_dns_name_has_253_characters_and_a_label_63(authority: Authority, good: str, bad: str):
    """RFC 1035, section 2.3.4, without the final dot."""
    assert authority.issue_server("s", [good])
    with pytest.raises(AuthorityError) as caught:
        authority.issue_server("s", [bad])
    assert caught.value.code == "dns_name"


def test_only_small_files_are_looked_at_for_an_authoritys_key(authority: Authority, tmp_path):
    """A server looks at its start, and a folder may hold anything."""
    bundle, key = tmp_path / "ca.pem", tmp_path / "key"
    bundle.write_bytes(authority.certificate_pem)
    for size, found in [(65536, key), (65537, None)]:
        key.write_bytes(private_pem(authority.private_key).ljust(size, b"\n"))
        assert find_ca_key(bundle) == found


def test_the_keys_that_are_made_are_no_smaller_than_they_say(authority: Authority):
    """NIST SP 800-57, part 1: 128 bits of security."""
    rsa = authority.issue_client("c", key_type=KeyType.RSA_3072).private_key
    assert (rsa.key_size, rsa.public_key().public_numbers().e) == (3072, 65537)
    assert authority.issue_client("c").private_key.key_size == 256


@pytest.mark.parametrize(("bits", "code"), [(2048, None), (2040, "key_type")])
def test_a_server_has_an_RSA_key_of_2048_bits_at_least(authority, save, bundle, bits, code):
    """NIST SP 800-131A, revision 2."""
    key = rsa.generate_private_key(65537, bits)
    issued = authority.issue(authority.server_template("s", ["localhost"]), key)
    server = save(issued, "server")
    if code is None:
        assert read_server_files(*server, bundle).leaf.subject
        return
    with pytest.raises(TLSFileError) as caught:
        read_server_files(*server, bundle)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("name", "code"),
    [
        (x509.DNSName("a " * 5000), "dns_san"),
        (x509.UniformResourceIdentifier("a " * 5000), "uri_san"),
        (x509.UniformResourceIdentifier("spiffe://a.b/" + "x!" * 500), "spiffe_id"),
        (x509.UniformResourceIdentifier("spiffe://A" + "b" * 200 + "/x"), "spiffe_id"),
    ],
)
def test_a_name_that_is_refused_is_not_told_at_length(authority: Authority, name, code: str):
    """Any client with a certificate can put it into a line of the log."""
    template = authority.client_template("c").having(x509.SubjectAlternativeName([name]))
    with pytest.raises(PeerError) as caught:
        parse_peer(authority.issue(template).certificate_pem)
    assert caught.value.code == code
    assert len(str(caught.value)) < 450
