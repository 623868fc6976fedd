"""A revocation list is used only if it is complete and signed by its authority."""

import dataclasses
import os
import subprocess
import time
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from secure_base.reloading import signature
from secure_tls import Authority, RevocationListError, RevocationLists, parse_peer
from secure_tls import lists as lists_module
from support.door import wait_until

# Later than this process may make its lists, however long it has been at other tests.
NOW = time.time() + 3600


@pytest.fixture
def write(tmp_path):
    def write(data: bytes):
        path = tmp_path / "crl.pem"
        path.write_bytes(data)
        return path

    return write


def pem(crl: x509.CertificateRevocationList) -> bytes:
    return crl.public_bytes(Encoding.PEM)


def assert_refused(code, path, authorities, now=NOW) -> None:
    with pytest.raises(RevocationListError) as caught:
        RevocationLists.load(path, authorities, now=now)
    assert caught.value.code == code
    assert str(path) in str(caught.value)
    assert caught.value.path == path


def sign(authority: Authority, *extensions, entry=None):
    """A list such as this package never makes, signed by the authority."""
    start = datetime.fromtimestamp(NOW - 60, UTC)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.certificate.subject)
        .last_update(start)
        .next_update(start + timedelta(days=1))
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    if entry is not None:
        revoked = x509.RevokedCertificateBuilder().serial_number(7).revocation_date(start)
        builder = builder.add_revoked_certificate(revoked.add_extension(entry, True).build())
    return builder.sign(authority.private_key, hashes.SHA256())


@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
def test_T14_a_revoked_certificate_is_found_and_no_other(authority, write, encoding):
    bad, good = (parse_peer(authority.issue_client(n).certificate_pem) for n in ("bad", "good"))
    path = write(authority.crl([bad.serial], number=2).public_bytes(encoding))
    crl = RevocationLists.load(path, [authority.certificate], now=NOW)
    assert crl.of(authority.certificate).serials == {bad.serial} != {good.serial}
    assert crl.of(Authority.create("example.org").certificate) is None


def test_entries_of_an_earlier_list_are_carried_over(authority, write):
    first = authority.crl([11], number=1)
    second = authority.crl([*first, 12], number=2)
    crl = RevocationLists.load(write(pem(second)), [authority.certificate], now=NOW)
    assert crl.of(authority.certificate).serials == {11, 12}
    assert [e.revocation_date_utc for e in first] == [second[0].revocation_date_utc]


def test_a_file_may_hold_the_lists_of_several_authorities(authority, write):
    other = Authority.create("example.net")
    text = b"# two lists\n" + pem(authority.crl([1], number=1)) + pem(other.crl([2], number=1))
    crl = RevocationLists.load(write(text), [authority.certificate, other.certificate], now=NOW)
    assert crl.of(authority.certificate).serials == {1}
    assert crl.of(other.certificate).serials == {2}


def test_T15_a_stale_list_loads_and_says_so(authority, write):
    path = write(pem(authority.crl([5], number=1, lifetime=timedelta(hours=1))))
    crl = RevocationLists.load(path, [authority.certificate], now=NOW)
    end = crl.of(authority.certificate).next_update
    assert crl.warnings(end) == []
    assert "is stale" in crl.warnings(end + 1)[0]
    later = RevocationLists.load(path, [authority.certificate], now=end + 1)
    assert later.of(authority.certificate).serials == {5}


def test_of_several_lists_of_one_authority_the_newest_counts(authority, write):
    older, newer = authority.crl([1], number=8), authority.crl([2], number=9)
    for text in (pem(older) + pem(newer), pem(newer) + pem(older)):
        crl = RevocationLists.load(write(text), [authority.certificate], now=NOW)
        assert crl.of(authority.certificate).serials == {2}


def test_M6_only_the_stale_list_of_several_is_called_so(authority, write):
    other = Authority.create("example.net")
    hour = timedelta(hours=1)
    text = pem(authority.crl(number=1)) + pem(other.crl(number=1, lifetime=hour))
    crl = RevocationLists.load(write(text), [authority.certificate, other.certificate], now=NOW)
    (warning,) = crl.warnings(NOW + 7200)
    assert other.certificate.subject.rfc4514_string() in warning


def test_M6_a_file_of_a_folder_that_cannot_be_used_leaves_the_others(authority, tmp_path):
    other = Authority.create("example.net")
    folder = tmp_path / "lists"
    folder.mkdir()
    known = [authority.certificate, other.certificate]
    (folder / "ours.pem").write_bytes(pem(authority.crl([1], number=1)))
    (folder / "theirs.pem").write_bytes(b"<html>")
    first = RevocationLists.load(folder, known, now=NOW)
    assert (first.of(known[0]).serials, first.of(known[1])) == ({1}, None)
    assert str(folder / "theirs.pem") in first.problems[0]
    (folder / "theirs.pem").write_bytes(pem(other.crl([2], number=1)))
    second = RevocationLists.load(folder, known, now=NOW, last=first)
    assert (second.of(known[1]).serials, second.problems) == ({2}, ())
    # The last good list stays, and new lists of other authorities count.
    (folder / "theirs.pem").write_bytes(pem(other.crl([2, 3], number=2))[:-40])
    (folder / "ours.pem").write_bytes(pem(authority.crl([1, 4], number=2)))
    third = RevocationLists.load(folder, known, now=NOW, last=second)
    assert (third.of(known[0]).serials, third.of(known[1]).serials) == ({1, 4}, {2})
    assert len(third.problems) == 1
    assert RevocationLists.load(folder, known, now=NOW, last=third) is third
    # A removed list is forgotten; an emptied folder is a mistake.
    (folder / "theirs.pem").unlink()
    assert RevocationLists.load(folder, known, now=NOW, last=third).of(known[1]) is None
    (folder / "ours.pem").unlink()
    assert RevocationLists.load(folder, known, now=NOW, last=third).of(known[1]).serials == {2}
    assert_refused("missing", folder, known)


def test_an_older_list_does_not_let_in_again_what_a_newer_one_revoked(authority, write):
    known = [authority.certificate]
    newer = Authority(
        authority.certificate, authority.private_key, "example.org", clock=lambda: NOW - 600
    ).crl([1, 2], number=7)
    first = RevocationLists.load(write(pem(newer)), known, now=NOW)
    path = write(pem(authority.crl([1], number=3)))
    second = RevocationLists.load(path, known, now=NOW, last=first)
    assert second.of(known[0]).serials == {1, 2}
    assert "has an older list" in second.problems[0]
    assert RevocationLists.load(path, known, now=NOW).of(known[0]).serials == {1}


def test_M6_a_list_that_cannot_be_used_has_no_other_file_parsed_again(
    authority, tmp_path, monkeypatch
):
    """Meanwhile all files are checked at every poll, and our list may be very long."""
    folder = tmp_path / "lists"
    folder.mkdir()
    (folder / "ours.pem").write_bytes(pem(authority.crl([1], number=1)))
    (folder / "theirs.pem").write_bytes(b"<html>")
    known = [authority.certificate]
    parsed, parse = [], lists_module.parse_file
    monkeypatch.setattr(
        lists_module,
        "parse_file",
        lambda path, now: parsed.append(path.name) or parse(path, now=now),
    )
    lists = None
    wait_until(lambda: signature([folder / "ours.pem"]) == signature([folder / "ours.pem"]))
    for _ in range(3):
        lists = RevocationLists.load(folder, known, now=NOW, last=lists)
    assert parsed == ["ours.pem", *["theirs.pem"] * 3]
    (folder / "ours.pem").write_bytes(pem(authority.crl([1, 2], number=2)))
    lists = RevocationLists.load(folder, known, now=NOW, last=lists)
    assert lists.of(authority.certificate).serials == {1, 2}
    # With other authorities the same file may be another list.
    both = [*known, Authority.create("example.net").certificate]
    del parsed[:]
    RevocationLists.load(folder, both, now=NOW, last=lists)
    assert "ours.pem" in parsed


def test_a_list_that_is_written_over_with_the_same_time_and_size_is_read(authority, write):
    """By a program that keeps the time of what it copies."""
    known = [authority.certificate]
    path = write(pem(authority.crl([1], number=1)).ljust(2000, b"\n"))
    before = path.stat()
    first = RevocationLists.load(path, known, now=NOW)
    write(pem(authority.crl([2], number=2)).ljust(2000, b"\n"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert RevocationLists.load(path, known, now=NOW, last=first).of(known[0]).serials == {2}


def test_a_pipe_in_the_place_of_a_list_is_not_opened(authority, tmp_path):
    path = tmp_path / "crl.pem"
    os.mkfifo(path)
    assert_refused("unreadable", path, [authority.certificate])


def test_an_older_list_of_leaves_is_refused_beside_a_complete_one(authority, write):
    point = x509.IssuingDistributionPoint(None, None, True, False, None, False, False)
    complete = pem(authority.crl([4], number=1))
    first = RevocationLists.load(
        write(complete + pem(sign(authority, point))), [authority.certificate], now=NOW
    )
    start = datetime.fromtimestamp(NOW - 7200, UTC)
    older = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.certificate.subject)
        .last_update(start)
        .next_update(start + timedelta(days=1))
        .add_extension(point, critical=True)
        .sign(authority.private_key, hashes.SHA256())
    )
    path = write(complete + pem(older))
    second = RevocationLists.load(path, [authority.certificate], now=NOW, last=first)
    assert "has an older list" in second.problems[0]


def test_a_list_that_is_gone_from_a_folder_is_told_of(authority, tmp_path):
    other = Authority.create("example.net")
    folder = tmp_path / "lists"
    folder.mkdir()
    known = [authority.certificate, other.certificate]
    for name, each in (("ours", authority), ("theirs", other)):
        (folder / f"{name}.pem").write_bytes(pem(each.crl([1], number=1)))
    first = RevocationLists.load(folder, known, now=NOW)
    (folder / "ours.pem").unlink()
    for _ in range(2):
        first = RevocationLists.load(folder, known, now=NOW, last=first)
        (warning,) = first.warnings(NOW)
        assert f"which was in {folder / 'ours.pem'}, is gone" in warning
    (folder / "elsewhere.pem").write_bytes(pem(authority.crl([1], number=2)))
    assert RevocationLists.load(folder, known, now=NOW, last=first).warnings(NOW) == []
    (folder / "elsewhere.pem").unlink()
    assert RevocationLists.load(folder, known[1:], now=NOW, last=first).warnings(NOW) == []


def test_M3_a_newer_list_of_leaves_does_not_hide_which_authorities_are_revoked(authority, write):
    point = x509.IssuingDistributionPoint(None, None, True, False, None, False, False)
    leaves = sign(authority, point)
    for text in (
        pem(authority.crl([4], number=1)) + pem(leaves),
        pem(leaves) + pem(authority.crl([4], number=1)),
    ):
        lists = RevocationLists.load(write(text), [authority.certificate], now=NOW)
        assert [each.leaves_only for each in lists.all_of(authority.certificate)] == [False, True]
        assert lists.of(authority.certificate).serials == {4}


def test_a_list_of_an_authority_that_is_only_sent_waits_for_it(authority, write):
    template = authority.client_template("between").having(
        x509.BasicConstraints(ca=True, path_length=0), critical=True
    )
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    issued = authority.issue(template.having(usage, critical=True))
    between = Authority(issued.certificate, issued.private_key, "example.org")
    crl = RevocationLists.load(
        write(pem(between.crl([9], number=1))), [authority.certificate], now=NOW
    )
    assert "no authority of the trust bundle" in crl.warnings(NOW)[0]
    # Its name is not enough.
    stranger = dataclasses.replace(between, private_key=Authority.create("x.org").private_key)
    forged = RevocationLists.load(
        write(pem(stranger.crl([9], number=1))), [authority.certificate], now=NOW
    )
    assert forged.of(between.certificate) is None
    assert crl.of(authority.certificate) is None
    assert crl.of(between.certificate).serials == {9}
    assert crl.warnings(NOW) == []


def test_T16_a_forged_list_is_refused(authority, write):
    twin = Authority.create("example.org")
    forger = dataclasses.replace(authority, private_key=twin.private_key)
    assert_refused("forged", write(pem(forger.crl([1], number=9))), [authority.certificate])


def test_T16_a_list_changed_after_signing_is_refused(authority, write):
    der = bytearray(authority.crl([0x1122334455667788], number=1).public_bytes(Encoding.DER))
    place = der.index(bytes.fromhex("1122334455667788"))
    der[place + 7] ^= 1
    assert_refused("forged", write(bytes(der)), [authority.certificate])


def test_T16_a_truncated_list_is_refused_wherever_it_ends(authority, write):
    text, der = pem(authority.crl([1], number=1)), authority.crl([1], number=1)
    der = der.public_bytes(Encoding.DER)
    for part in (text[:-2], text[:-26], text[: len(text) // 2], text[:26], b"", der[:-1], der[:9]):
        assert_refused("malformed", write(part), [authority.certificate])


def test_T16_a_second_list_cut_off_is_not_overlooked(authority, write):
    text = pem(authority.crl([1], number=1))
    assert_refused("malformed", write(text + text[:-30]), [authority.certificate])


def test_T16_a_list_of_a_foreign_authority_revokes_nothing_and_is_warned_of(authority, write):
    stranger = Authority.create("example.net")
    crl = RevocationLists.load(
        write(pem(stranger.crl([1], number=1))), [authority.certificate], now=NOW
    )
    assert crl.of(authority.certificate) is None
    assert "no authority of the trust bundle" in crl.warnings(NOW)[0]


def test_M6_a_partner_that_is_no_longer_trusted_does_not_hold_up_our_own_list(authority, write):
    other = Authority.create("example.net")
    both = (authority.certificate, other.certificate)
    theirs = pem(other.crl([], number=1))
    before = RevocationLists.load(write(pem(authority.crl([], number=1)) + theirs), both, now=NOW)
    path = write(pem(authority.crl([7], number=2)) + theirs)
    after = RevocationLists.load(path, both[:1], now=NOW, last=before)
    assert after.problems == ()
    assert after.of(authority.certificate).serials == {7}


def test_a_leaf_cannot_sign_lists(authority, write):
    leaf = authority.issue_client("c")
    impostor = Authority(leaf.certificate, leaf.private_key, "example.org")
    path = write(pem(impostor.crl([1], number=1)))
    assert RevocationLists.load(path, [leaf.certificate], now=NOW).of(leaf.certificate) is None


def test_a_list_from_the_future_is_refused(authority, write):
    path = write(pem(authority.crl(number=1)))
    assert_refused("not_yet_valid", path, [authority.certificate], now=NOW - 86400)


@pytest.mark.parametrize(
    "wrong",
    [
        {"extension": x509.DeltaCRLIndicator(1)},
        {
            "extension": x509.IssuingDistributionPoint(
                full_name=None,
                relative_name=None,
                only_contains_user_certs=False,
                only_contains_ca_certs=False,
                only_some_reasons=None,
                indirect_crl=True,
                only_contains_attribute_certs=False,
            )
        },
        {"entry": x509.CertificateIssuer([x509.DNSName("other")])},
    ],
    ids=["delta", "indirect", "entry of another issuer"],
)
def test_a_list_that_would_be_misread_is_refused(authority, write, wrong):
    extensions = [wrong["extension"]] if "extension" in wrong else []
    crl = sign(authority, *extensions, entry=wrong.get("entry"))
    assert_refused("unsupported", write(pem(crl)), [authority.certificate])


def test_a_list_limited_to_leaves_is_used(authority, write):
    point = x509.IssuingDistributionPoint(
        full_name=[x509.UniformResourceIdentifier("http://example.org/crl")],
        relative_name=None,
        only_contains_user_certs=True,
        only_contains_ca_certs=False,
        only_some_reasons=None,
        indirect_crl=False,
        only_contains_attribute_certs=False,
    )
    path = write(pem(sign(authority, point)))
    assert (
        RevocationLists.load(path, [authority.certificate], now=NOW)
        .of(authority.certificate)
        .leaves_only
    )


def test_a_missing_file_is_named(authority, tmp_path):
    assert_refused("missing", tmp_path / "none", [authority.certificate])


def test_openssl_sees_the_same_revocation(authority, write, save, bundle):
    leaf = authority.issue_client("c")
    path = write(pem(authority.crl([leaf.certificate.serial_number], number=2)))
    certificate, _ = save(leaf, "c")
    command = ["openssl", "verify", "-crl_check", "-CRLfile", path, "-CAfile", bundle, certificate]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "certificate revoked" in result.stderr
