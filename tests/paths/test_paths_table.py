"""Path validation by the table: each row's leaf is good, or refused for the row's reason."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from paths_pki import DAY, Pki, authority, client
from paths_row import Row
from paths_table import ROWS, ZERO

from secure_tls import links
from secure_tls.lists import RevocationLists
from secure_tls.paths import Verdict, judge_client
from secure_tls.trust import Trust

PLAIN = Row("plain")
every_row = pytest.mark.parametrize("row", ROWS, ids=str)


def _trust(row: Row, pki: Pki, folder: Path, now: float) -> Trust:
    """The ``Trust`` of an operator's files at this moment."""
    revoked = None
    if row.lists is not None:
        everybody = pki.certificates(row.every_authority())
        revoked = RevocationLists.load(row.write_lists(pki, folder), everybody, now=now)
    return Trust(
        pki.certificates(row.trusted),
        {domain: pki.certificates(names) for domain, names in row.bundles.items()},
        revoked,
        trust_domains=None if row.domains is None else frozenset((*row.domains, *row.bundles)),
        refuse_stale_lists=row.refuse_stale,
    )


def _judge(
    row: Row, folder: Path, *, sent: tuple[str, ...] | None = None, now: float | None = None
) -> Verdict:
    pki = row.build(ZERO)
    moment = row.moment(ZERO) if now is None else now
    trust = _trust(row, pki, folder / "crl", row.moment(ZERO))
    names = row.sent if sent is None else sent
    return judge_client(pki.pem(row.leaf), pki.pem(*names), trust, moment)


@every_row
def test_each_line_is_good_or_refused_for_its_true_reason(row: Row, tmp_path: Path) -> None:
    pki, now = row.build(ZERO), row.moment(ZERO)
    trust = _trust(row, pki, tmp_path / "crl", now)
    verdict = judge_client(pki.pem(row.leaf), pki.pem(*row.sent), trust, now)
    assert verdict.code == row.code, verdict.reason
    assert bool(verdict.reason) is bool(row.code)
    assert verdict.reason.isprintable()
    assert verdict.since <= now <= verdict.until
    if row.code:
        assert verdict.path == ()
    else:
        assert verdict.peer is not None
        assert verdict.path[0] == pki.certificate(row.leaf)
        assert verdict.path[-1] in pki.certificates(row.anchors(pki))
        for subject, issuer in zip(verdict.path, verdict.path[1:], strict=False):
            subject.verify_directly_issued_by(issuer)


@every_row
def test_M4_the_order_of_what_is_sent_and_sending_it_twice_change_nothing(
    row: Row, tmp_path: Path
) -> None:
    assert _judge(row, tmp_path, sent=row.sent[::-1]).code == row.code
    if len(row.sent) <= 4:
        assert _judge(row, tmp_path, sent=(*row.sent, *row.sent)).code == row.code


_WITH_ROOM = [
    row
    for row in ROWS
    if len(row.sent) < 8
    and "low" not in (*row.sent, row.leaf)
    and row.build(ZERO).is_made_here("mid")
]


@pytest.mark.parametrize("row", _WITH_ROOM, ids=str)
def test_M4_one_certificate_more_changes_nothing(row: Row, tmp_path: Path) -> None:
    """The list of an intermediate below ours, which has issued nothing here."""
    assert _judge(row, tmp_path, sent=("low", *row.sent)).code == row.code


@every_row
def test_M5_a_verdict_holds_as_long_as_it_says(row: Row, tmp_path: Path) -> None:
    """The verdict holds in this interval, both ends included."""
    verdict = _judge(row, tmp_path)
    now = float(row.moment(ZERO))
    for moment in (
        max(verdict.since, now - 3000 * DAY),
        (max(verdict.since, now - 3000 * DAY) + now) / 2,
        (min(verdict.until, now + 3000 * DAY) + now) / 2,
        min(verdict.until, now + 3000 * DAY),
    ):
        again = _judge(row, tmp_path, now=moment)
        assert again.code == verdict.code, f"{moment - now} seconds from now"


def test_M5_a_good_verdict_ends_with_the_first_certificate_of_its_path(tmp_path: Path) -> None:
    for row, ends in (
        (PLAIN, 50 * DAY),
        (next(row for row in ROWS if "intermediate in its last second" in row.name), 20 * DAY),
        (next(row for row in ROWS if "root in its last second" in row.name), 20 * DAY),
    ):
        assert _judge(row, tmp_path, now=ZERO).until == ZERO + ends


def test_M5_of_two_good_paths_the_verdict_outlives_the_shorter_one(tmp_path: Path) -> None:
    """It may end with the one that it followed; then the other is found."""
    brief = authority("root", subject="mid", key="mid", until=DAY)
    row = Row("two", pki={"brief": brief}, sent=("brief", "mid"))
    verdict = _judge(row, tmp_path)
    assert verdict.until >= ZERO + DAY
    later = _judge(row, tmp_path, now=ZERO + DAY + 1)
    assert (later.code, later.until) == ("", ZERO + 50 * DAY)


_LEAF = PLAIN.build(ZERO).pem("leaf")


@pytest.mark.parametrize(
    "leaf",
    [
        b"",
        b"junk",
        _LEAF + _LEAF,
        _LEAF[: len(_LEAF) // 2],
        _LEAF.replace(b"CERTIFICATE", b"PUBLIC KEY"),
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ],
    ids=["empty", "junk", "two", "half", "not_a_certificate", "not_DER"],
)
def test_a_leaf_that_cannot_be_read_is_malformed_and_has_no_peer(
    leaf: bytes, tmp_path: Path
) -> None:
    pki = PLAIN.build(ZERO)
    verdict = judge_client(leaf, pki.pem("mid"), _trust(PLAIN, pki, tmp_path, ZERO), ZERO)
    assert (verdict.code, verdict.peer, verdict.path) == ("malformed", None, ())
    assert verdict.reason


@pytest.mark.parametrize(
    "junk",
    [
        b"junk",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\n",
    ],
    ids=["junk", "not_DER", "half"],
)
def test_M4_what_cannot_be_read_among_what_is_sent_never_raises_and_is_never_an_issuer(
    junk: bytes, tmp_path: Path
) -> None:
    pki = PLAIN.build(ZERO)
    trust = _trust(PLAIN, pki, tmp_path, ZERO)
    assert judge_client(pki.pem("leaf"), junk, trust, ZERO).code
    assert judge_client(pki.pem("leaf"), pki.pem("mid") + junk, trust, ZERO).code == ""


def test_M4_an_empty_trust_bundle_refuses(tmp_path: Path) -> None:
    pki = PLAIN.build(ZERO)
    verdict = judge_client(pki.pem("leaf"), pki.pem("mid", "root"), Trust((), {}), ZERO)
    assert verdict.code == "certificate_authority"
    empty = Trust(pki.certificates(("root",)), {"example.org": ()})
    assert (
        judge_client(pki.pem("leaf"), pki.pem("mid"), empty, ZERO).code == "certificate_authority"
    )


@pytest.mark.parametrize("keys", [1, 8], ids=["one_key", "eight_keys"])
def test_M4_eight_certificates_that_all_vouch_for_each_other_cost_less_than_a_second(
    keys: int,
) -> None:
    """All names are one, so that each could have issued each: 8! ways, none to an authority.

    Measured: the processor time of this thread, which a client makes us spend.
    """
    twins = {
        f"t{n}": authority(f"t{(n + 1) % 8}", subject="t", key=f"t{n % keys}", aki=False, ski=False)
        for n in range(8)
    }
    row = Row("twins", pki={**twins, "leaf": client("t0", aki=False)}, sent=tuple(twins))
    pki = row.build(ZERO)
    leaf, sent = pki.pem("leaf"), pki.pem(*row.sent)
    trust = Trust(pki.certificates(("root",)), {})
    begin = time.thread_time()
    verdict = judge_client(leaf, sent, trust, ZERO)
    assert time.thread_time() - begin < 1.0
    assert verdict.code


def test_M4_keys_that_are_slow_to_verify_with_cost_nothing(tmp_path: Path) -> None:
    """An attacker can make an authority of our name with an exponent of 2048 bits; TLS here cannot
    use it, and checking a signature with it takes a hundred times as long.
    """
    row = Row("slow", sent=("mid",), pki={"mid": authority("root", kind="rsa2048")})
    pki = row.build(ZERO)
    mid = pki.certificate("mid")
    slow = rsa.RSAPublicNumbers(2**2047 - 1, 2**2047 + 2**2000 + 1).public_key()
    template = x509.CertificateBuilder(
        mid.issuer, mid.subject, slow, 1, mid.not_valid_before_utc, mid.not_valid_after_utc
    ).add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    made = template.sign(pki.key("spare"), hashes.SHA256()).public_bytes(Encoding.PEM)
    trust = _trust(row, pki, tmp_path, ZERO)
    with pytest.MonkeyPatch.context() as patch:
        tried: list[x509.Certificate] = []
        signed = links._signed
        patch.setattr(links, "_signed", lambda one, other: tried.append(one) or signed(one, other))
        assert judge_client(pki.pem("leaf"), made + pki.pem("mid"), trust, ZERO).code == ""
    assert mid in tried
    assert x509.load_pem_x509_certificate(made) not in tried


def test_M4_thousands_of_certificates_are_refused_before_they_are_read() -> None:
    pki = PLAIN.build(ZERO)
    trust = Trust(pki.certificates(("root",)), {})
    sent = pki.pem("acme_mid") * 5000
    begin = time.thread_time()
    assert judge_client(pki.pem("leaf"), sent + pki.pem("mid"), trust, ZERO).code
    assert time.thread_time() - begin < 1.0


def test_the_table_is_what_it_says_it_is() -> None:
    """Each code has a line, each attack of this table one, and a quarter goes over the wire."""
    codes = {row.code for row in ROWS}
    assert codes == {
        "", "is_ca", "key_usage", "eku", "no_san", "uri_san", "dns_san", "many_uri_sans",
        "spiffe_id", "trust_domain", "certificate_dates", "weak_key", "weak_signature",
        "certificate_authority", "issuer_dates", "issuer_usage", "issuer_eku", "path_length",
        "name_constraints", "critical_extension", "certificate_revoked", "issuer_revoked",
        "crl_missing", "crl_stale", "path",
    }  # fmt: skip
    numbers = {row.name.split()[0] for row in ROWS}
    assert {"M3", "M4", "M5", "M6", "M20", "T7", "T8", "T9", "T10", "T11", "T12", "T17"} <= numbers
    assert sum(bool(row.wire) for row in ROWS) * 4 >= len(ROWS) >= 70
    assert not any(row.wire for row in ROWS if not row.build(ZERO).is_made_here(row.leaf))


def test_the_weak_signatures_of_the_table_are_what_they_claim() -> None:
    """They are made by hand: OpenSSL accepts them below, here is what they say."""
    for row in ROWS:
        if row.code == "weak_signature":
            pki = row.build(ZERO)
            oids = {
                x509.load_der_x509_certificate(
                    pki.certificate(name).public_bytes(Encoding.DER)
                ).signature_algorithm_oid.dotted_string
                for name in ("leaf", "mid")
            }
            assert oids & {"1.2.840.113549.1.1.5", "1.2.840.113549.1.1.4"}
