"""A peer's certificate states one identity, or is refused."""

import base64
import dataclasses
import hashlib
import pickle
import random
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from secure_tls import PeerError, parse_peer
from secure_tls.template import key_usage

CLIENT_AUTH = ExtendedKeyUsageOID.CLIENT_AUTH
SERVER_AUTH = ExtendedKeyUsageOID.SERVER_AUTH

ID = "spiffe://example.org/client/admin"


def san(*names: str, dns: tuple[str, ...] = ()) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName(
        [*map(x509.UniformResourceIdentifier, names), *map(x509.DNSName, dns)]
    )


@pytest.fixture
def refusal(authority):
    """The code with which a leaf, made wrong by the given change, is refused."""

    def refuse(change) -> str:
        issued = authority.issue(change(authority.client_template("admin")))
        with pytest.raises(PeerError) as caught:
            parse_peer(issued.certificate_pem)
        assert str(caught.value).isprintable()
        assert str(caught.value).isascii()
        return caught.value.code

    return refuse


def test_every_fact_of_a_good_certificate_arrives(authority):
    certificate = authority.issue_client("admin").certificate
    pem = certificate.public_bytes(Encoding.PEM)
    peer = parse_peer(pem)
    der = ssl.PEM_cert_to_DER_cert(pem.decode())
    digest = base64.urlsafe_b64encode(hashlib.sha256(der).digest()).decode().rstrip("=")
    assert peer.spiffe_id == ID
    assert peer.trust_domain == "example.org"
    assert (peer.uri_sans, peer.dns_sans) == ((ID,), ())
    assert peer.subject == "CN=admin"
    assert peer.thumbprint == digest
    assert peer.issuer == authority.certificate.subject.public_bytes()
    assert peer.serial == certificate.serial_number
    assert peer.not_before == certificate.not_valid_before_utc.timestamp()
    assert peer.not_after == certificate.not_valid_after_utc.timestamp()


def test_T4_T5_both_ends_of_the_validity_period_are_in_it(authority):
    peer = parse_peer(authority.issue_client("admin").certificate_pem)
    assert peer.is_valid_at(peer.not_before)
    assert peer.is_valid_at(peer.not_after)
    assert not peer.is_valid_at(peer.not_before - 1)
    assert not peer.is_valid_at(peer.not_after + 1)


def test_a_certificate_with_a_DNS_name_only_has_no_spiffe_id(authority):
    template = authority.client_template("admin").having(san(dns=("a.example.org",)))
    peer = parse_peer(authority.issue(template).certificate_pem)
    assert (peer.spiffe_id, peer.trust_domain) == (None, None)
    assert peer.dns_sans == ("a.example.org",)


def test_several_URIs_are_fine_where_none_is_a_spiffe_id(authority):
    names = ("https://example.org/a", "urn:uuid:0")
    template = authority.client_template("admin").having(san(*names))
    peer = parse_peer(authority.issue(template).certificate_pem)
    assert (peer.spiffe_id, peer.uri_sans) == (None, names)


def test_a_DNS_name_may_stand_beside_a_spiffe_id(authority):
    template = authority.client_template("admin").having(san(ID, dns=("a.example.org",)))
    peer = parse_peer(authority.issue(template).certificate_pem)
    assert (peer.spiffe_id, peer.dns_sans) == (ID, ("a.example.org",))


def test_T6_a_certificate_for_servers_only_is_refused(refusal):
    assert refusal(lambda t: t.having(x509.ExtendedKeyUsage([SERVER_AUTH]))) == "eku"


def test_T7_a_certificate_without_extended_key_usage_is_refused(refusal):
    assert refusal(lambda t: t.lacking(x509.ExtendedKeyUsage)) == "eku"


def test_any_extended_key_usage_is_not_taken_for_client_authentication(refusal):
    anything = ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE
    assert refusal(lambda t: t.having(x509.ExtendedKeyUsage([anything]))) == "eku"


def test_a_certificate_for_both_ends_is_accepted(authority):
    both = x509.ExtendedKeyUsage([SERVER_AUTH, CLIENT_AUTH])
    template = authority.client_template("admin").having(both)
    assert parse_peer(authority.issue(template).certificate_pem).spiffe_id == ID


def test_T8_the_certificate_of_an_authority_is_refused(refusal):
    ca = x509.BasicConstraints(ca=True, path_length=None)
    assert refusal(lambda t: t.having(ca, critical=True)) == "is_ca"


@pytest.mark.parametrize(
    "usage",
    [
        key_usage(),
        key_usage(digital_signature=True, key_cert_sign=True),
        key_usage(digital_signature=True, crl_sign=True),
    ],
)
def test_a_key_usage_that_is_not_a_leafs_is_refused(refusal, usage):
    assert refusal(lambda t: t.having(usage, critical=True)) == "key_usage"


def test_a_certificate_without_key_usage_may_be_used_for_anything(authority):
    template = authority.client_template("admin").lacking(x509.KeyUsage)
    assert parse_peer(authority.issue(template).certificate_pem).spiffe_id == ID


def test_T9_a_common_name_alone_is_no_identity(refusal):
    assert refusal(lambda t: t.lacking(x509.SubjectAlternativeName)) == "no_san"


def test_T9_a_mail_address_is_no_identity(refusal):
    mail = x509.SubjectAlternativeName([x509.RFC822Name("admin@example.org")])
    assert refusal(lambda t: t.having(mail)) == "no_san"


@pytest.mark.parametrize(
    "others",
    [
        ("spiffe://example.org/client/root",),
        (ID,),
        ("https://example.org/",),
        ("SPIFFE://example.org/client/root",),
    ],
)
def test_T10_a_second_URI_beside_a_spiffe_id_is_refused(refusal, others):
    assert refusal(lambda t: t.having(san(ID, *others))) == "many_uri_sans"
    assert refusal(lambda t: t.having(san(*others, ID))) == "many_uri_sans"


@pytest.mark.parametrize(
    "uri",
    [
        "spiffe://example.org",
        "spiffe://example.org/",
        "spiffe://example.org/client/",
        "spiffe://example.org//admin",
        "spiffe://example.org/client/../admin",
        "spiffe://Example.org/client/admin",
        "spiffe://example.org:443/client/admin",
        "spiffe://root@example.org/client/admin",
        "spiffe://example.org/client/admin?x=1",
        "spiffe://example.org/client/admin#x",
        "spiffe://example.org/client/%61dmin",
        "SPIFFE://example.org/client/admin",
        "Spiffe:example.org",
        "spiffe://example.org/" + "x" * 2048,
    ],
)
def test_T11_a_malformed_spiffe_id_is_refused(refusal, uri):
    assert refusal(lambda t: t.having(san(uri))) == "spiffe_id"


@pytest.mark.parametrize("uri", ["", "no-scheme", " spiffe://a/b", "https://a/\n", "x:\x00"])
def test_a_malformed_URI_is_refused(refusal, uri):
    assert refusal(lambda t: t.having(san(uri))) == "uri_san"


@pytest.mark.parametrize("name", ["", "a b", "good.example.org\x00.evil", "a\n", ".a", "a..b"])
def test_a_malformed_DNS_name_is_refused(refusal, name):
    assert refusal(lambda t: t.having(san(dns=(name,)))) == "dns_san"


def test_what_is_not_exactly_one_certificate_is_refused(authority):
    pem = authority.issue_client("admin").certificate_pem
    for text in (b"", b"nonsense", pem[:200], pem + pem, pem.replace(b"MII", b"MIJ", 1)):
        with pytest.raises(PeerError) as caught:
            parse_peer(text)
        assert caught.value.code == "malformed"


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
def test_no_damage_to_a_certificate_raises_anything_else(authority):
    """Damage to one or a few bytes, anywhere, is refused as what it is, or changes a fact."""
    der = authority.issue_client("admin").certificate.public_bytes(Encoding.DER)
    dice = random.Random(7)
    for _ in range(3000):
        damaged = bytearray(der)
        for _ in range(dice.choice((1, 1, 2, 4))):
            damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        try:
            parse_peer(ssl.DER_cert_to_PEM_cert(bytes(damaged)).encode())
        except PeerError as error:
            message = str(error)
        else:
            continue
        assert message.isprintable()


def test_a_name_of_the_wrong_type_is_refused(authority):
    """A subject whose text is a bit string makes the parser raise a TypeError."""
    der = authority.issue_client("admin").certificate.public_bytes(Encoding.DER)
    assert der.count(b"\x0c\x05admin") == 1
    bits = der.replace(b"\x0c\x05admin", b"\x03\x05\x00dmin")
    with pytest.raises(PeerError) as caught:
        parse_peer(ssl.DER_cert_to_PEM_cert(bits).encode())
    assert caught.value.code == "malformed"


def test_a_peer_is_immutable_and_errors_survive_pickling(authority):
    peer = parse_peer(authority.issue_client("admin").certificate_pem)
    with pytest.raises(dataclasses.FrozenInstanceError):
        peer.serial = 1
    error = pickle.loads(pickle.dumps(PeerError("eku", "No.")))
    assert (error.code, str(error)) == ("eku", "No.")
