"""A list that does not cover all certificates is never used as one that does.

Certificates that a partial list does not cover would count as good (RFC 5280, sections 5.2.4, 5.2.5
and 5.3).
"""

from __future__ import annotations

import subprocess
import time
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from tls.der import signed, split

from secure_tls import Authority, RevocationListError, RevocationLists

# Later than this process may make its lists, however long it has been at other tests.
NOW = time.time() + 3600

PLACE = [x509.UniformResourceIdentifier("http://example.org/crl")]
SOME_REASONS = frozenset({x509.ReasonFlags.key_compromise})


def point(**limits: object) -> x509.IssuingDistributionPoint:
    """The extension of RFC 5280, section 5.2.5, with these limits and no other."""
    none = {
        "full_name": PLACE,
        "relative_name": None,
        "only_contains_user_certs": False,
        "only_contains_ca_certs": False,
        "only_some_reasons": None,
        "indirect_crl": False,
        "only_contains_attribute_certs": False,
    }
    return x509.IssuingDistributionPoint(**none | limits)


UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00")

LISTS: dict[str, list[tuple[x509.ExtensionType, bool]]] = {
    "attribute certificates": [(point(only_contains_attribute_certs=True), True)],
    "attribute certificates, not critical": [(point(only_contains_attribute_certs=True), False)],
    "authorities": [(point(only_contains_ca_certs=True), True)],
    "some reasons": [(point(only_some_reasons=SOME_REASONS), True)],
    "indirect": [(point(indirect_crl=True), True)],
    "indirect, for leaves": [(point(indirect_crl=True, only_contains_user_certs=True), True)],
    "some reasons, for leaves": [
        (point(only_some_reasons=SOME_REASONS, only_contains_user_certs=True), True)
    ],
    "delta": [(x509.DeltaCRLIndicator(1), True)],
    "delta, not critical": [(x509.DeltaCRLIndicator(1), False)],
    "delta beside a place": [(point(), True), (x509.DeltaCRLIndicator(1), True)],
    "unknown and critical": [(UNKNOWN, True)],
}


def sign(
    authority: Authority, *extensions: tuple[x509.ExtensionType, bool], entry=None
) -> x509.CertificateRevocationList:
    start = datetime.fromtimestamp(NOW - 60, UTC)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.certificate.subject)
        .last_update(start)
        .next_update(start + timedelta(days=1))
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    if entry is not None:
        revoked = x509.RevokedCertificateBuilder().serial_number(7).revocation_date(start)
        builder = builder.add_revoked_certificate(revoked.add_extension(entry, True).build())
    return builder.sign(authority.private_key, hashes.SHA256())


def load(authority: Authority, path, data: bytes) -> RevocationLists:
    path.write_bytes(data)
    return RevocationLists.load(path, [authority.certificate], now=NOW)


@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
@pytest.mark.parametrize("what", LISTS)
def test_T16_a_list_of_some_certificates_is_refused(
    authority: Authority, tmp_path, what: str, encoding: Encoding
):
    data = sign(authority, *LISTS[what]).public_bytes(encoding)
    with pytest.raises(RevocationListError) as caught:
        load(authority, tmp_path / "crl", data)
    assert caught.value.code == "unsupported"


def test_T16_it_is_refused_beside_a_complete_one_too(authority: Authority, tmp_path):
    """In one file, and as one file of a folder."""
    complete = sign(authority).public_bytes(Encoding.PEM)
    partial = sign(authority, *LISTS["attribute certificates"]).public_bytes(Encoding.PEM)
    for data in (complete + partial, partial + complete):
        with pytest.raises(RevocationListError) as caught:
            load(authority, tmp_path / "crl", data)
        assert caught.value.code == "unsupported"
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.pem").write_bytes(complete)
    (folder / "b.pem").write_bytes(partial)
    lists = RevocationLists.load(folder, [authority.certificate], now=NOW)
    assert [each.path for each in lists] == [folder / "a.pem"]
    (problem,) = lists.problems
    assert f"{folder / 'b.pem'} is a delta, indirect or partial" in problem


def test_what_limits_nothing_is_used(authority: Authority, tmp_path):
    """A distribution point, and extensions that do not matter here."""
    for extensions in ([(point(), True)], [(point(), False)], [(UNKNOWN, False)]):
        data = sign(authority, *extensions).public_bytes(Encoding.PEM)
        lists = load(authority, tmp_path / "crl", data)
        assert lists.of(authority.certificate).next_update > NOW


@pytest.mark.parametrize(
    "entry",
    [x509.CertificateIssuer([x509.DNSName("other")]), UNKNOWN],
    ids=["another issuer's", "unknown"],
)
def test_an_entry_that_means_something_else_is_not_misread(authority, tmp_path, entry):
    """RFC 5280, section 5.3: an entry with a critical extension that is not understood."""
    data = sign(authority, entry=entry).public_bytes(Encoding.PEM)
    with pytest.raises(RevocationListError) as caught:
        load(authority, tmp_path / "crl", data)
    assert caught.value.code == "unsupported"


def test_a_list_that_is_never_due_again_is_refused(authority: Authority, tmp_path):
    """Without nextUpdate an old list would not be noticed (RFC 5280, 5.1.2.5)."""
    data = _without_next_update(authority)
    assert x509.load_der_x509_crl(data).next_update_utc is None
    with pytest.raises(RevocationListError) as caught:
        load(authority, tmp_path / "crl", data)
    assert caught.value.code == "no_next_update"


def _without_next_update(authority: Authority) -> bytes:
    """A list as others build it: nextUpdate cut out, and signed again."""
    crl = sign(authority)
    _, body, _ = split(crl.tbs_certlist_bytes)
    due = b"\x17\x0d%sZ" % crl.next_update_utc.strftime("%y%m%d%H%M%S").encode()
    assert body.count(due) == 1
    return signed(body.replace(due, b""), authority.private_key)


def test_openssl_calls_the_signatures_good(authority: Authority, tmp_path):
    """The lists above are refused for their content, not for how they were made."""
    ca = tmp_path / "ca.pem"
    ca.write_bytes(authority.certificate_pem)
    path = tmp_path / "crl.der"
    for data in (
        sign(authority, *LISTS["attribute certificates"]).public_bytes(Encoding.DER),
        _without_next_update(authority),
    ):
        path.write_bytes(data)
        command = ["openssl", "crl", "-inform", "DER", "-in", path, "-CAfile", ca, "-noout"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "verify OK" in done.stderr, done.stderr


def test_a_folder_without_a_list_is_no_list(authority: Authority, tmp_path):
    """Nor is one of hidden files: Kubernetes keeps its own there."""
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in (None, ".hidden"):
        if name is not None:
            (folder / name).write_bytes(sign(authority).public_bytes(Encoding.PEM))
        with pytest.raises(RevocationListError) as caught:
            RevocationLists.load(folder, [authority.certificate], now=NOW)
        assert caught.value.code == "missing"
        assert str(folder) in str(caught.value)


def test_another_pem_file_is_no_list(authority: Authority, tmp_path):
    """A certificate in the list's place must not count as an empty list."""
    for data in (authority.certificate_pem, b"-----BEGIN NOTHING-----\n-----END NOTHING-----\n"):
        with pytest.raises(RevocationListError) as caught:
            load(authority, tmp_path / "crl", data)
        assert caught.value.code == "malformed"


def test_a_list_counts_from_the_second_of_its_issue(authority: Authority, tmp_path):
    path = tmp_path / "crl"
    path.write_bytes(sign(authority).public_bytes(Encoding.PEM))
    start = float(int(NOW - 60))
    lists = RevocationLists.load(path, [authority.certificate], now=start)
    assert lists.of(authority.certificate).next_update > start
    with pytest.raises(RevocationListError) as caught:
        RevocationLists.load(path, [authority.certificate], now=start - 1)
    assert caught.value.code == "not_yet_valid"
