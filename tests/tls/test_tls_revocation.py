"""The folder's revocation list: it grows, its number rises, and it is kept fresh."""

import subprocess
import sys
import textwrap
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from test_tls_folder import HERE, ROOT, assert_refused, race, state
from test_tls_renewal import DAY, NOW, ORDERS, folder, leaf, put

from secure_tls import Authority, AuthorityError, KeyType, RevocationListError, RevocationLists
from secure_tls.folder import CertificateFolder, Order
from secure_tls.outcome import FileState
from secure_tls.revocation import Reason

# The list that ``secure-certs`` makes is valid for 90 days, and from five minutes ago.
HALF = NOW + 45 * DAY - 150


@pytest.fixture
def certs(tmp_path):
    folder(tmp_path / "certs").generate(ORDERS)
    return tmp_path / "certs"


def crl_of(certs):
    return x509.load_pem_x509_crl((certs / "crl.pem").read_bytes())


def number(certs):
    return crl_of(certs).extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def serials(certs):
    return [entry.serial_number for entry in crl_of(certs)]


def serial(certs, name):
    return leaf(certs / f"{name}.pem").serial_number


def write_crl(certs, crl):
    (certs / "crl.pem").write_bytes(crl.public_bytes(Encoding.PEM))


def authority_of(certs):
    return Authority.load(certs / "ca.pem", certs / "ca.key", clock=lambda: NOW)


def assert_unknown(code, act, *arguments):
    with pytest.raises(AuthorityError) as caught:
        act(*arguments)
    assert caught.value.code == code
    return str(caught.value)


def test_O7_revoking_raises_the_number_and_keeps_what_was_revoked_before(certs):
    folder(certs).revoke("billing")
    first = list(crl_of(certs))
    outcomes = folder(certs, now=NOW + DAY).revoke("reports", reason=Reason.KEY_COMPROMISE)
    assert [outcome.state for outcome in outcomes] == [FileState.REVOKED, FileState.RENEWED]
    crl = crl_of(certs)
    assert number(certs) == 3
    assert serials(certs) == [serial(certs, "clients/billing"), serial(certs, "clients/reports")]
    assert crl[0].revocation_date_utc == first[0].revocation_date_utc
    assert list(crl[0].extensions) == []
    assert crl[1].extensions.get_extension_for_class(x509.CRLReason).value.reason == (
        x509.ReasonFlags.key_compromise
    )
    assert crl.last_update_utc.timestamp() == NOW + DAY - 300
    assert crl.next_update_utc.timestamp() == NOW + 91 * DAY
    ca = leaf(certs / "ca.pem")
    listed = RevocationLists.load(certs / "crl.pem", [ca], now=NOW + DAY).of(ca)
    assert listed.serials == {serial(certs, f"clients/{name}") for name in ("billing", "reports")}


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_is_one_of_RFC_5280(certs, reason):
    folder(certs).revoke("billing", reason=reason)
    value = crl_of(certs)[0].extensions.get_extension_for_class(x509.CRLReason).value
    assert value.reason.value == reason


def test_revoking_twice_changes_nothing_and_says_so(certs):
    folder(certs).revoke("billing")
    before = state(certs)
    outcomes = folder(certs, now=NOW + DAY).revoke("billing", reason=Reason.SUPERSEDED)
    assert [outcome.state for outcome in outcomes] == [FileState.ALREADY_REVOKED, FileState.KEPT]
    assert "on the list since 2027-01-15" in outcomes[0].note
    assert state(certs) == before


def test_a_name_revokes_what_it_replaced_as_well(certs):
    """A stolen key works until its certificate expires, even after a renewal."""
    old = [serial(certs, "clients/billing")]
    folder(certs).renew(["billing", "reports"])
    old.append(serial(certs, "clients/billing"))
    folder(certs).renew(["billing"])
    folder(certs).revoke("billing")
    assert set(serials(certs)) == {*old, serial(certs, "clients/billing")}
    assert number(certs) == 2


def test_what_has_expired_is_not_revoked_with_its_successor(certs):
    folder(certs, now=NOW + 80 * DAY).renew(["billing"])
    late = folder(certs, now=NOW + 100 * DAY)
    late.revoke("billing")
    assert serials(certs) == [serial(certs, "clients/billing")]


@pytest.mark.parametrize("name", ["server", "server.pem", "servers/two", "two", "clients/reports"])
def test_a_server_or_a_place_can_be_said(certs, name):
    folder(certs).add(Order.server("two", ["two.example.org"]), key_type=KeyType.ECDSA_P256)
    (revoked, _) = folder(certs).revoke(name)
    assert serials(certs) == [leaf(revoked.path).serial_number]
    assert name.removesuffix(".pem") in str(revoked.path)


def test_a_certificate_kept_elsewhere_is_revoked_by_its_path_and_alone(certs, tmp_path):
    copy = tmp_path / "copy.crt"
    copy.write_bytes((certs / "clients/billing.pem").read_bytes())
    folder(certs).renew(["billing"])
    folder(certs).revoke(str(copy))
    assert serials(certs) == [leaf(copy).serial_number]


def test_a_serial_number_revokes_what_is_nowhere_to_be_found(certs):
    lost = serial(certs, "clients/billing")
    for suffix in (".pem", ".key"):
        (certs / f"clients/billing{suffix}").unlink()
    (outcome, _) = folder(certs).revoke(lost)
    assert serials(certs) == [lost]
    assert (outcome.who, f"{lost:X}" in outcome.note) == ("", True)


def test_a_serial_number_of_the_folder_says_whose_it_is(certs):
    old = serial(certs, "clients/reports")
    folder(certs).renew(["reports"])
    for number, name in ((serial(certs, "server"), "server.pem"), (old, "replaced.pem")):
        (outcome, _) = folder(certs).revoke(number)
        assert outcome.path == certs / name
        assert outcome.who.startswith("spiffe://example.org/")


@pytest.mark.parametrize("wanted", [1, 2**159 - 1])
def test_the_smallest_and_the_largest_serial_number_can_be_revoked(certs, wanted):
    """RFC 5280, section 4.1.2.2: positive, and at most 20 octets with the sign."""
    folder(certs).revoke(wanted)
    assert serials(certs) == [wanted]


@pytest.mark.parametrize("wanted", [0, -1, 2**159])
def test_what_is_no_serial_number_is_refused(certs, wanted):
    assert_unknown("serial", folder(certs).revoke, wanted)


def test_an_unknown_name_is_refused_with_the_near_ones(certs):
    before = state(certs)
    assert "did you mean billing?" in assert_unknown("unknown_name", folder(certs).revoke, "biling")
    assert "inspect" in assert_unknown("unknown_name", folder(certs).revoke, "unknown")
    folder(certs).add(Order.server("billing", ["b.example.org"]), key_type=KeyType.ECDSA_P256)
    assert "say which" in assert_unknown("ambiguous_name", folder(certs).revoke, "billing")
    assert {f: s for f, s in state(certs).items() if f in before} == before


def test_an_authority_and_another_authoritys_certificate_are_refused(certs, authority):
    put(certs, "clients/foreign", authority.issue_client("foreign"))
    before = state(certs)
    assert_unknown("foreign", folder(certs).revoke, "foreign")
    assert_unknown("is_ca", folder(certs).revoke, str(certs / "ca.pem"))
    assert_unknown("is_ca", folder(certs).revoke, serial(certs, "ca"))
    assert state(certs) == before


def test_a_lost_or_forged_list_is_not_replaced_by_an_empty_one(certs):
    folder(certs).revoke("billing")
    write_crl(certs, Authority.create("example.org").crl(number=9))
    before = state(certs)
    with pytest.raises(RevocationListError) as caught:
        folder(certs).revoke("reports")
    assert caught.value.code == "foreign"
    assert state(certs) == before
    (certs / "crl.pem").unlink()
    assert_refused("no_crl", folder(certs).revoke, "reports")
    assert not (certs / "crl.pem").exists()


def test_lists_of_several_authorities_are_not_merged_into_one(certs):
    with (certs / "crl.pem").open("ab") as file:
        file.write((certs / "crl.pem").read_bytes())
    assert_refused("unsupported", folder(certs).revoke, "billing")


def test_a_list_without_a_number_gets_one(certs):
    authority = authority_of(certs)
    crl = authority.crl([7], number=5)
    builder = x509.CertificateRevocationListBuilder().issuer_name(crl.issuer)
    builder = builder.last_update(crl.last_update_utc).next_update(crl.next_update_utc)
    write_crl(
        certs,
        builder.add_revoked_certificate(crl[0]).sign(
            authority.private_key, crl.signature_hash_algorithm
        ),
    )
    folder(certs).revoke("billing")
    assert (number(certs), serials(certs)) == (1, [7, serial(certs, "clients/billing")])


def test_revoking_needs_the_authoritys_key_and_says_so(certs):
    (certs / "ca.key").unlink()
    before = state(certs)
    assert_refused("no_ca_key", folder(certs).revoke, "billing")
    assert state(certs) == before


RUNS = {
    "generate": lambda certs: certs.generate(ORDERS),
    "add": lambda certs: certs.add(Order.client("new"), key_type=KeyType.ECDSA_P256),
    "add what is there": lambda certs: certs.add(ORDERS[1], key_type=KeyType.ECDSA_P256),
    "renew": lambda certs: certs.renew(within=timedelta(0)),
    "revoke again": lambda certs: certs.revoke("billing"),
}


@pytest.mark.parametrize("run", RUNS)
def test_O7_every_run_re_signs_a_list_past_half_of_its_lifetime(certs, run):
    folder(certs).revoke("billing")
    RUNS[run](folder(certs, now=HALF - 1))
    assert number(certs) == 2
    outcomes = RUNS[run](folder(certs, now=HALF))
    assert (number(certs), serials(certs)) == (3, [serial(certs, "clients/billing")])
    assert outcomes[-1].path == certs / "crl.pem"
    assert outcomes[-1].state is FileState.RENEWED
    assert crl_of(certs).next_update_utc.timestamp() == HALF + 90 * DAY


def test_a_stale_list_is_re_signed_too(certs):
    folder(certs, now=NOW + 200 * DAY).generate(ORDERS)
    assert number(certs) == 2


@pytest.mark.parametrize("lock", [True, False])
def test_a_run_that_cannot_re_sign_the_list_says_so(certs, monkeypatch, lock):
    def no_locks(*_):
        raise OSError(95, "Operation not supported")

    if lock:
        (certs / "ca.key").unlink()
    else:
        monkeypatch.setattr("fcntl.flock", no_locks)
    before = state(certs)
    for outcomes in (
        folder(certs, now=HALF).generate(ORDERS),
        folder(certs, now=HALF).add(ORDERS[1], key_type=KeyType.ECDSA_P256),
    ):
        assert outcomes[-1].path == certs / "crl.pem"
        assert "half of its life is over" in outcomes[-1].note
    assert state(certs) == before


def test_a_list_of_another_authority_is_not_replaced(certs):
    write_crl(certs, Authority.create("example.org", clock=lambda: NOW).crl([1], number=9))
    before = state(certs)
    outcomes = folder(certs, now=HALF).generate(ORDERS)
    assert "no list of the authority" in outcomes[-1].note
    assert state(certs) == before


def test_O7_runs_at_once_lose_no_revocation(tmp_path):
    names = [f"c{index}" for index in range(6)]
    certs = tmp_path / "certs"
    CertificateFolder(certs).generate([Order.client(name) for name in names])
    commands = [("revoke", name) for name in names] + [("renew", name) for name in names[:2]]
    before = {name: serial(certs, f"clients/{name}") for name in names}
    results = race(certs, commands)
    assert [code for _, code in results] == [0] * len(commands)
    assert set(before.values()) <= set(serials(certs))
    # One number for each run that revoked something, none for any other.
    assert number(certs) == 1 + len(names)


def test_O7_a_list_is_whole_wherever_a_run_is_killed(tmp_path):
    script = textwrap.dedent(
        """
        import os, signal, sys
        from pathlib import Path
        sys.path[:0] = sys.argv[2:]
        import pytest
        from test_tls_renewal import ORDERS, folder
        from test_tls_renewal_crashes import RenewalFault

        def die():
            os.kill(os.getpid(), signal.SIGKILL)

        for number in range(1, 1000):
            path = Path(sys.argv[1], str(number))
            folder(path).generate(ORDERS[:2])
            child = os.fork()
            if not child:
                RenewalFault(pytest.MonkeyPatch(), number, die)
                folder(path).revoke("billing")
                os._exit(0)
            if os.waitpid(child, 0)[1] == 0:
                break
        print(number)
        """
    )
    command = [sys.executable, "-c", script, tmp_path, HERE, ROOT]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
    runs = int(result.stdout)
    assert runs > 5
    for index in range(1, runs):
        path = tmp_path / str(index)
        # Either list, whole: the old one or the new one.
        assert (number(path), len(serials(path))) in {(1, 0), (2, 1)}
        folder(path).revoke("billing")
        assert (number(path), len(serials(path))) == (2, 1)
        assert not list(path.rglob(".secure-*"))
