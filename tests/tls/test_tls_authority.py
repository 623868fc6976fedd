"""What the small authority issues, and what it refuses to."""

import dataclasses
import ipaddress
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from secure_tls import Authority, AuthorityError, Issued, KeyType, SpiffeIDError, TLSFileError
from secure_tls.template import key_usage

CLIENT_AUTH = ExtendedKeyUsageOID.CLIENT_AUTH
SERVER_AUTH = ExtendedKeyUsageOID.SERVER_AUTH

LOOPBACK = ipaddress.ip_address("::1")


def value(certificate, kind):
    return certificate.extensions.get_extension_for_class(kind).value


def assert_is_leaf(certificate, authority) -> None:
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    assert constraints.critical
    assert not constraints.value.ca
    assert usage.critical
    assert usage.value.digital_signature
    assert not usage.value.key_encipherment
    assert not usage.value.key_cert_sign
    certificate.verify_directly_issued_by(authority.certificate)
    authority_key = value(certificate, x509.AuthorityKeyIdentifier).key_identifier
    assert authority_key == value(authority.certificate, x509.SubjectKeyIdentifier).digest
    lifetime = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    # Both ends count.
    assert lifetime + timedelta(seconds=1) <= timedelta(days=90)
    assert certificate.not_valid_after_utc <= authority.certificate.not_valid_after_utc


def test_the_authoritys_own_certificate(authority):
    ca = authority.certificate
    constraints = ca.extensions.get_extension_for_class(x509.BasicConstraints)
    usage = ca.extensions.get_extension_for_class(x509.KeyUsage)
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=0)
    assert usage.critical
    assert usage.value.key_cert_sign
    assert usage.value.crl_sign
    assert not usage.value.digital_signature
    uris = value(ca, x509.SubjectAlternativeName)
    assert list(uris) == [x509.UniformResourceIdentifier("spiffe://example.org")]


def test_a_server_leaf_carries_its_names_and_its_spiffe_id(authority):
    leaf = authority.issue_server("api", ["LocalHost", "api.example.org"], [LOOPBACK]).certificate
    assert_is_leaf(leaf, authority)
    assert list(value(leaf, x509.ExtendedKeyUsage)) == [SERVER_AUTH]
    assert list(value(leaf, x509.SubjectAlternativeName)) == [
        x509.DNSName("localhost"),
        x509.DNSName("api.example.org"),
        x509.IPAddress(LOOPBACK),
        x509.UniformResourceIdentifier("spiffe://example.org/server/api"),
    ]


def test_a_client_leaf_carries_its_spiffe_id_and_nothing_else(authority):
    leaf = authority.issue_client("admin").certificate
    assert_is_leaf(leaf, authority)
    assert list(value(leaf, x509.ExtendedKeyUsage)) == [CLIENT_AUTH]
    assert list(value(leaf, x509.SubjectAlternativeName)) == [
        x509.UniformResourceIdentifier("spiffe://example.org/client/admin")
    ]


def test_a_leaf_is_valid_for_slow_clocks_and_for_as_long_as_asked():
    authority = Authority.create("example.org", clock=lambda: 1_800_000_000.9)
    leaf = authority.issue_client("c", timedelta(seconds=30)).certificate
    assert leaf.not_valid_before_utc.timestamp() == 1_800_000_000 - 300
    assert leaf.not_valid_after_utc.timestamp() == 1_800_000_030


@pytest.mark.parametrize(
    "lifetime", [timedelta(days=90, seconds=1), timedelta(0), timedelta(days=-1)]
)
def test_O7_no_leaf_lives_longer_than_90_days(authority, lifetime):
    for issue in (
        lambda: authority.issue_client("c", lifetime),
        lambda: authority.issue_server("s", ["localhost"], lifetime=lifetime),
    ):
        with pytest.raises(AuthorityError) as caught:
            issue()
        assert caught.value.code == "lifetime"


def test_a_leaf_never_outlives_its_authority():
    authority = Authority.create("example.org", lifetime=timedelta(days=10))
    assert_is_leaf(authority.issue_client("c").certificate, authority)


def test_an_expired_authority_issues_nothing(authority):
    late = authority.certificate.not_valid_after_utc.timestamp() + 1
    with pytest.raises(AuthorityError, match="expired"):
        dataclasses.replace(authority, clock=lambda: late).issue_client("c")


def test_O7_serial_numbers_are_random_and_long(authority):
    serials = {authority.issue_client("c").certificate.serial_number for _ in range(50)}
    assert len(serials) == 50
    # Of 50 numbers of 159 bits all are below 2^95 with probability 2^-3200.
    assert max(serials) > 2**95
    # RFC 5280, section 4.1.2.2: positive and at most 20 octets.
    assert all(0 < serial < 2**159 for serial in serials)


@pytest.mark.parametrize(
    "name",
    ["", "Admin", "a/b", "../a", ".a", "a.", "-a", "a-", "a b", "a\n", "\u00e4", "a" * 64, "a%b"],
)
def test_a_bad_name_is_refused(authority, name):
    for issue in (authority.issue_client, lambda n: authority.issue_server(n, ["localhost"])):
        with pytest.raises(AuthorityError) as caught:
            issue(name)
        assert caught.value.code == "name"


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "a.",
        "*.example.org",
        "a_b",
        "a..b",
        "-a",
        "a" * 64,
        "a:1",
        "1.2.3.400",
        "fe80::1%1",
    ],
)
def test_what_is_no_host_name_is_refused(authority, name):
    with pytest.raises(AuthorityError) as caught:
        authority.issue_server("s", [name])
    assert caught.value.code == "dns_name"


def test_a_server_without_a_name_is_refused(authority):
    with pytest.raises(AuthorityError) as caught:
        authority.issue_server("s")
    assert caught.value.code == "no_server_name"


def test_a_bad_trust_domain_or_lifetime_makes_no_authority():
    with pytest.raises(SpiffeIDError):
        Authority.create("Example.org")
    for lifetime in (timedelta(0), timedelta(days=36500)):
        with pytest.raises(AuthorityError):
            Authority.create("example.org", lifetime=lifetime)


def test_a_trust_domain_of_any_length_fits():
    ca = Authority.create("a" * 255).certificate
    assert len(ca.subject.rfc4514_string()) <= len("CN=") + 64


def test_two_authorities_of_one_trust_domain_have_two_names():
    names = {Authority.create("example.org").certificate.subject for _ in range(2)}
    assert len(names) == 2


def test_RSA_keys_of_3072_bits_can_be_asked_for(authority):
    key = authority.issue_client("c", key_type=KeyType.RSA_3072).private_key
    assert key.key_size == 3072


def test_what_was_created_can_be_loaded(authority, tmp_path):
    certificate, key = tmp_path / "ca.pem", tmp_path / "ca.key"
    certificate.write_bytes(authority.certificate_pem)
    key.touch(mode=0o600)
    key.write_bytes(authority.private_key_pem)
    loaded = Authority.load(certificate, key)
    assert loaded.certificate == authority.certificate
    assert loaded.trust_domain == "example.org"
    assert_is_leaf(loaded.issue_client("c").certificate, authority)


def test_T22_an_authoritys_open_key_is_not_loaded(authority, tmp_path):
    certificate, key = tmp_path / "ca.pem", tmp_path / "ca.key"
    certificate.write_bytes(authority.certificate_pem)
    key.write_bytes(authority.private_key_pem)
    key.chmod(0o644)
    with pytest.raises(TLSFileError) as caught:
        Authority.load(certificate, key)
    assert caught.value.code == "key_permissions"


def test_a_leaf_and_another_authoritys_key_are_not_loaded_as_an_authority(authority, save):
    with pytest.raises(TLSFileError) as caught:
        Authority.load(*save(authority.issue_client("c"), "c"))
    assert caught.value.code == "no_ca"
    certificate, key = save(authority.issue_client("d"), "d")
    certificate.write_bytes(authority.certificate_pem)
    with pytest.raises(TLSFileError) as caught:
        Authority.load(certificate, key)
    assert caught.value.code == "key_mismatch"


def test_a_draft_can_be_made_wrong_without_touching_the_right_one(authority):
    right = authority.client_template("c")
    wrong = right.lacking(x509.ExtendedKeyUsage)
    assert len(wrong.extensions) == len(right.extensions) - 1
    issued = authority.issue(wrong).certificate
    issued.verify_directly_issued_by(authority.certificate)
    with pytest.raises(x509.ExtensionNotFound):
        value(issued, x509.ExtendedKeyUsage)


def test_U29_no_private_key_is_in_a_repr(authority):
    issued = authority.issue_client("c")
    assert "PrivateKey" not in repr(issued) + repr(authority)


def test_revocation_lists_are_numbered(authority):
    for number in (1, 2**70):
        assert value(authority.crl(number=number), x509.CRLNumber).crl_number == number


@pytest.mark.parametrize(
    ("moment", "code"),
    [
        (lambda ca: ca.not_valid_after_utc.timestamp() + 1, "expired"),
        (lambda ca: ca.not_valid_before_utc.timestamp() - 1, "not_yet_valid"),
        (lambda ca: ca.not_valid_after_utc.timestamp(), None),
        (lambda ca: ca.not_valid_before_utc.timestamp(), None),
    ],
    ids=["expired", "not yet valid", "last second", "first second"],
)
def test_an_authority_is_loaded_within_its_dates_only(authority, save, moment, code):
    """Both ends count; verifiers would refuse what it signs outside of them."""
    certificate, key = save(authority, "ca")
    now = moment(authority.certificate)
    if code is None:
        assert Authority.load(certificate, key, clock=lambda: now).trust_domain == "example.org"
        return
    with pytest.raises(TLSFileError) as caught:
        Authority.load(certificate, key, clock=lambda: now)
    assert (caught.value.code, caught.value.path) == (code, certificate)


def _authority(key, **changes):
    """The certificate of an authority that ``Authority.create`` never makes, for this key."""
    start = datetime.now(UTC) - timedelta(hours=1)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "CA")])
    names = [x509.UniformResourceIdentifier(uri) for uri in changes.get("uris", ["spiffe://a.b"])]
    extensions = {
        "constraints": x509.BasicConstraints(ca=True, path_length=0),
        "usage": key_usage(key_cert_sign=True, crl_sign=True),
        "identifier": x509.SubjectKeyIdentifier.from_public_key(key.public_key()),
        "names": x509.SubjectAlternativeName(names) if names else None,
    } | {name: changes[name] for name in ("constraints", "usage", "identifier") if name in changes}
    builder = (
        x509.CertificateBuilder(subject, subject, key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=1))
    )
    for extension in extensions.values():
        if extension is not None:
            builder = builder.add_extension(extension, critical=False)
    return builder.sign(key, hashes.SHA256())


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, None),
        ({"constraints": x509.BasicConstraints(ca=False, path_length=None)}, "no_ca"),
        ({"constraints": None}, "no_ca"),
        ({"usage": key_usage(crl_sign=True)}, "no_ca"),
        ({"usage": key_usage(key_cert_sign=True)}, "no_ca"),
        ({"usage": None}, "no_ca"),
        ({"identifier": None}, "no_ca"),
        ({"uris": []}, "trust_domain"),
        ({"uris": ["spiffe://a.b/path"]}, "trust_domain"),
        ({"uris": ["spiffe://a.b", "spiffe://c.d"]}, "trust_domain"),
        ({"uris": ["https://a.b"]}, "trust_domain"),
    ],
    ids=str,
)
def test_what_may_not_sign_all_that_an_authority_signs_is_not_loaded(save, changes, code):
    """A missing right would otherwise show only later, at a verifier."""
    key = KeyType.ECDSA_P256.generate()
    files = save(Issued(_authority(key, **changes), key), "ca")
    if code is None:
        assert Authority.load(*files).trust_domain == "a.b"
        return
    with pytest.raises(TLSFileError) as caught:
        Authority.load(*files)
    assert caught.value.code == code
