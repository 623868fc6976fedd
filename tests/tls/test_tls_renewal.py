"""Renewing: the same name, a new key, and never half a file or pair."""

import dataclasses
import os
import stat
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from test_tls_folder import assert_refused, state

from secure_base.atomic_files import write_new
from secure_tls import (
    Authority,
    AuthorityError,
    KeyType,
    TLSFileError,
    read_server_files,
)
from secure_tls.check import check_folder
from secure_tls.folder import CertificateFolder, Order
from secure_tls.outcome import FileState

NOW = 1_800_000_000
DAY = 86400
ORDERS = [
    Order.server("server", ["localhost", "127.0.0.1"], stem="server"),
    Order.client("billing"),
    Order.client("reports"),
]
LEAVES = ["server", "clients/billing", "clients/reports"]


def folder(path, *, now=NOW):
    return CertificateFolder(path, clock=lambda: now)


@pytest.fixture
def certs(tmp_path):
    folder(tmp_path / "certs").generate(ORDERS, lifetime=timedelta(days=30))
    return tmp_path / "certs"


def leaf(path):
    return x509.load_pem_x509_certificate(path.read_bytes())


def states(outcomes, root):
    return {str(outcome.path.relative_to(root)): outcome.state.value for outcome in outcomes}


def extensions(certificate):
    """What a certificate says of its holder, and not of its keys."""
    of_keys = x509.SubjectKeyIdentifier, x509.AuthorityKeyIdentifier
    return [
        (e.value, e.critical) for e in certificate.extensions if not isinstance(e.value, of_keys)
    ]


def span(certificate):
    return certificate.not_valid_after_utc - certificate.not_valid_before_utc


def put(certs, name, issued):
    write_new(certs / f"{name}.pem", issued.certificate_pem, secret=False)
    write_new(certs / f"{name}.key", issued.private_key_pem, secret=True)


def authority_of(certs, *, now=NOW):
    return Authority.load(certs / "ca.pem", certs / "ca.key", clock=lambda: now)


def assert_is_whole(certs, *, now=NOW) -> None:
    """Every certificate has its own key, and nothing else is wrong with any file."""
    assert [f for f in check_folder(certs, now=now) if f.problems] == []
    assert not list(certs.rglob(".secure-*"))


@pytest.mark.parametrize(("days", "due"), [(19, False), (21, True), (29, True), (40, True)])
def test_a_leaf_is_renewed_in_the_last_third_of_its_life(certs, days, due):
    now = NOW + days * DAY
    before = state(certs)
    outcomes = folder(certs, now=now).renew()
    expected = dict.fromkeys((f"{name}.pem" for name in LEAVES), "renewed" if due else "kept")
    assert states(outcomes, certs) == expected | {"crl.pem": "kept"}
    assert (state(certs) != before) is due
    if due:
        assert_is_whole(certs, now=now)


@pytest.mark.parametrize(("within", "due"), [(9, False), (11, True)])
def test_how_soon_is_soon_can_be_said(certs, within, due):
    outcomes = folder(certs, now=NOW + 20 * DAY).renew(within=timedelta(days=within))
    assert (outcomes[0].state is FileState.RENEWED) is due


@pytest.mark.parametrize(
    ("orders", "key_type", "lifetime"),
    [
        (ORDERS, KeyType.ECDSA_P256, timedelta(hours=1)),
        (ORDERS, KeyType.ECDSA_P256, timedelta(days=90)),
        (ORDERS[:1], KeyType.RSA_3072, timedelta(days=7)),
    ],
)
def test_O7_a_renewed_leaf_says_the_same_for_a_new_key(tmp_path, orders, key_type, lifetime):
    folder(tmp_path).generate(orders, lifetime=lifetime, key_type=key_type)
    before = {order.stem: leaf(tmp_path / f"{order.stem}.pem") for order in orders}
    ca = (tmp_path / "ca.pem").read_bytes(), (tmp_path / "ca.key").read_bytes()
    now = NOW + lifetime.total_seconds()
    folder(tmp_path, now=now).renew()
    for name, old in before.items():
        new = leaf(tmp_path / f"{name}.pem")
        assert new.subject == old.subject
        assert extensions(new) == extensions(old)
        assert span(new) == span(old) <= timedelta(days=90)
        assert new.not_valid_before_utc.timestamp() == now - 300
        assert type(new.public_key()) is type(old.public_key())
        assert new.public_key() != old.public_key()
        assert new.serial_number != old.serial_number
        assert new.serial_number.bit_length() > 64
        assert stat.S_IMODE((tmp_path / f"{name}.key").stat().st_mode) == 0o600
    assert ca == ((tmp_path / "ca.pem").read_bytes(), (tmp_path / "ca.key").read_bytes())
    read_server_files(
        *(tmp_path / f"server.{s}" for s in ("pem", "key")), tmp_path / "ca.pem", now=now
    )
    assert_is_whole(tmp_path, now=now)


def test_only_what_is_named_is_renewed_and_at_once(certs):
    before = state(certs)
    outcomes = folder(certs).renew(["billing"])
    assert states(outcomes, certs) == {"clients/billing.pem": "renewed", "crl.pem": "kept"}
    changed = {
        str(file.relative_to(certs))
        for file, now in state(certs).items()
        if before.get(file) != now
    }
    assert changed == {"clients/billing.pem", "clients/billing.key", "replaced.pem"}


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("clients/billing", {"clients/billing.pem"}),
        ("clients/billing.pem", {"clients/billing.pem"}),
        ("server.pem", {"server.pem"}),
        ("servers/node-1.example.org", {"servers/node-1.example.org.pem"}),
        ("node-1.example.org", {"servers/node-1.example.org.pem"}),
    ],
)
def test_a_name_may_be_a_place(certs, name, files):
    folder(certs).add(
        Order.server("node-1.example.org", ["a.example.org"]), key_type=KeyType.ECDSA_P256
    )
    outcomes = folder(certs).renew([name, name])
    assert {
        str(o.path.relative_to(certs)) for o in outcomes if o.state is FileState.RENEWED
    } == files
    assert_is_whole(certs)


def test_the_path_of_a_leaf_names_it(certs, monkeypatch):
    monkeypatch.chdir(certs / "clients")
    assert folder(certs).renew(["billing.pem"])[0].path == certs / "clients/billing.pem"


def test_a_name_that_means_two_is_refused_and_either_can_be_said(certs):
    folder(certs).add(Order.client("server"), key_type=KeyType.ECDSA_P256)
    with pytest.raises(AuthorityError, match=r"server\.pem and clients/server\.pem"):
        folder(certs).renew(["server"])
    for name in ("server.pem", "clients/server"):
        assert folder(certs).renew([name])[0].state is FileState.RENEWED


@pytest.mark.parametrize(
    ("name", "words"), [("biling", "did you mean billing?"), ("x", "inspect"), ("../ca", "inspect")]
)
def test_an_unknown_name_is_refused_before_anything_is_renewed(certs, name, words):
    before = state(certs)
    with pytest.raises(AuthorityError) as caught:
        folder(certs).renew(["reports", name])
    assert caught.value.code == "unknown_name"
    assert words in str(caught.value)
    assert state(certs) == before


def test_O7_a_leaf_of_any_lifetime_is_renewed_for_90_days_at_most(certs):
    authority = authority_of(certs)
    template = authority.client_template("long")
    long = timedelta(days=365)
    issued = authority.issue(dataclasses.replace(template, not_after=template.not_before + long))
    put(certs, "clients/long", issued)
    folder(certs).renew(["long"])
    assert span(leaf(certs / "clients/long.pem")) < timedelta(days=90)


@pytest.mark.parametrize(
    "key", [ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)]
)
def test_the_kind_of_key_is_kept_also_where_it_is_none_of_ours(certs, key):
    put(certs, "clients/other", authority_of(certs).issue_client("other", private_key=key))
    folder(certs).renew(["other"])
    new = leaf(certs / "clients/other.pem").public_key()
    assert (type(new), new.key_size) == (type(key.public_key()), key.key_size)
    assert new != key.public_key()


def test_what_stood_behind_the_leaf_in_its_file_stays_there(certs):
    with (certs / "server.pem").open("ab") as file:
        file.write((certs / "ca.pem").read_bytes())
    folder(certs).renew(["server"])
    chain = x509.load_pem_x509_certificates((certs / "server.pem").read_bytes())
    assert chain[1:] == [leaf(certs / "ca.pem")]
    assert_is_whole(certs)


def test_a_revoked_leaf_comes_back_only_by_its_name(certs):
    late = folder(certs, now=NOW + 25 * DAY)
    late.revoke("billing")
    old = leaf(certs / "clients/billing.pem")
    outcomes = late.renew()
    (skipped,) = [outcome for outcome in outcomes if outcome.state is FileState.SKIPPED]
    assert (skipped.path.name, "is revoked" in skipped.note) == ("billing.pem", True)
    assert leaf(certs / "clients/billing.pem") == old
    assert late.renew(["billing"])[0].state is FileState.RENEWED
    assert_is_whole(certs, now=NOW + 25 * DAY)
    crl = x509.load_pem_x509_crl((certs / "crl.pem").read_bytes())
    assert [entry.serial_number for entry in crl] == [old.serial_number]


def test_a_removed_key_is_replaced_only_if_named(certs):
    (certs / "clients/billing.key").unlink()
    late = folder(certs, now=NOW + 25 * DAY)
    outcomes = {outcome.path.name: outcome for outcome in late.renew()}
    assert outcomes["billing.pem"].state is FileState.SKIPPED
    assert "its key is not here" in outcomes["billing.pem"].note
    assert not (certs / "clients/billing.key").exists()
    late.renew(["billing"])
    assert_is_whole(certs, now=NOW + 25 * DAY)


def test_a_pair_that_does_not_match_is_renewed_at_once(certs):
    (certs / "server.key").write_bytes((certs / "clients/billing.key").read_bytes())
    outcome = folder(certs).renew()[0]
    assert (outcome.path.name, outcome.state) == ("server.pem", FileState.RENEWED)
    assert "key was that of another certificate" in outcome.note
    assert_is_whole(certs)


def test_a_leaf_of_another_authority_is_left_alone(certs, authority):
    put(certs, "clients/foreign", authority.issue_client("foreign"))
    before = state(certs)
    outcomes = {o.path.name: o for o in folder(certs, now=NOW + 19 * DAY).renew()}
    assert outcomes["foreign.pem"].state is FileState.SKIPPED
    with pytest.raises(TLSFileError, match=r"foreign\.pem is not signed by ca\.pem"):
        folder(certs).renew(["billing", "foreign"])
    assert state(certs) == before


def test_what_cannot_be_read_does_not_keep_the_others_from_being_renewed(certs):
    (certs / "clients/billing.pem").write_bytes(b"")
    outcomes = folder(certs, now=NOW + 25 * DAY).renew()
    assert states(outcomes, certs) == {
        "server.pem": "renewed",
        "clients/billing.pem": "failed",
        "clients/reports.pem": "renewed",
        "crl.pem": "kept",
    }


def test_a_leaf_that_ends_with_its_authority_is_not_renewed_over_and_over(tmp_path):
    ca = Authority.create("example.org", lifetime=timedelta(days=40), clock=lambda: NOW)
    put(tmp_path, "ca", ca)
    folder(tmp_path).generate(ORDERS[1:2], lifetime=timedelta(days=90))
    outcome = folder(tmp_path, now=NOW + 39 * DAY).renew()[0]
    assert outcome.state is FileState.KEPT
    assert "ends with its authority" in outcome.note


def test_without_the_authoritys_key_only_that_is_missed_which_needs_it(certs):
    (certs / "ca.key").unlink()
    before = state(certs)
    assert folder(certs).renew()[0].state is FileState.KEPT
    assert_refused("no_ca_key", folder(certs, now=NOW + 25 * DAY).renew)
    assert_refused("no_ca_key", folder(certs).renew, ["billing"])
    assert state(certs) == before


@pytest.mark.parametrize("lost", ["ca.pem", "crl.pem"])
def test_without_an_authority_or_a_list_nothing_is_renewed(certs, lost):
    (certs / lost).unlink()
    before = state(certs)
    assert_refused({"ca.pem": "no_ca", "crl.pem": "no_crl"}[lost], folder(certs).renew, ["billing"])
    assert state(certs) == before


def test_the_mode_of_a_certificate_stays_and_a_key_is_private(certs):
    (certs / "server.pem").chmod(0o640)
    (certs / "server.key").chmod(0o400)
    old = os.umask(0o077)
    try:
        folder(certs).renew(["server", "billing"])
    finally:
        os.umask(old)
    modes = [
        stat.S_IMODE((certs / f"{n}").stat().st_mode)
        for n in ("server.pem", "clients/billing.pem", "server.key")
    ]
    assert modes == [0o640, 0o644, 0o600]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_renews_stays_its_owners(certs):
    for name in ("server.pem", "server.key"):
        os.chown(certs / name, 12345, 54321)
    folder(certs).renew(["server"])
    for name in ("server.pem", "server.key"):
        assert ((certs / name).stat().st_uid, (certs / name).stat().st_gid) == (12345, 54321)


def test_a_link_is_not_replaced_by_a_file(certs, tmp_path):
    elsewhere = tmp_path / "server.key"
    (certs / "server.key").rename(elsewhere)
    (certs / "server.key").symlink_to(elsewhere)
    before = state(certs)
    assert_refused("link", folder(certs).renew, ["server"])
    assert (certs / "server.key").is_symlink()
    assert {f: s for f, s in state(certs).items() if f in before} == before


def test_without_locks_nothing_is_replaced(certs, monkeypatch):
    def no_locks(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", no_locks)
    before = state(certs)
    assert_refused("no_locks", folder(certs).renew, ["billing"])
    assert_refused("no_locks", folder(certs).revoke, "billing")
    assert state(certs) == before


def remembered(certs):
    return x509.load_pem_x509_certificates((certs / "replaced.pem").read_bytes())


def test_what_was_replaced_is_remembered_until_it_expires(certs):
    first = leaf(certs / "clients/billing.pem")
    folder(certs, now=NOW + DAY).renew(["billing"])
    second = leaf(certs / "clients/billing.pem")
    folder(certs, now=NOW + 2 * DAY).renew(["billing"])
    assert remembered(certs) == [first, second]
    # The first ended on day 30, the second ends on day 31.
    folder(certs, now=NOW + 30.5 * DAY).renew(["reports"])
    assert remembered(certs) == [second]
    folder(certs, now=NOW + 40 * DAY).renew(["billing"])
    assert not (certs / "replaced.pem").exists()
