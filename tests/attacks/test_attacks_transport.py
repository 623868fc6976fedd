"""Transport: who gets through TLS, and whom the guard refuses that TLS has let through.

The method called is one that the shipped policy opens to every client: who is refused here is
refused for the connection alone.
"""

from __future__ import annotations

import dataclasses
import time
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from secure_tls.authority import Authority, Issued
from support.house import Client, House, Outcome, bearer, call, running_house
from support.second import connected, second_server

OPEN_METHOD = "/secure_api.tokens.v1.TokenService/GetKeySet"
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED

Log = list[dict[str, Any]]


def ask(channel: grpc.Channel) -> Outcome:
    return call(channel, method=OPEN_METHOD, request=b"")


def reasons(log: Log) -> list[str]:
    return [line["reason"] for line in log if line["event"] == "call refused"]


def san(*uris: str) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])


def assert_stopped_before_python(outcome: Outcome, log: Log, handled: float, house: House) -> None:
    assert outcome.code is grpc.StatusCode.UNAVAILABLE, outcome
    assert log == []
    assert calls_ended(house) == handled


def calls_ended(house: House) -> float:
    """How many calls have reached the guard and ended, from the server's own counter."""
    lines = house.server._metrics.exposition().decode().splitlines()
    return sum(
        float(line.rpartition(" ")[2])
        for line in lines
        if line.startswith("secure_grpc_calls_total{")
    )


def assert_refused_by_the_guard(outcome: Outcome, log: Log, reason: str) -> None:
    assert outcome.code is UNAUTHENTICATED, outcome
    assert outcome.reason == "CREDENTIALS_REFUSED"
    assert outcome.details == "The credentials of this call were refused."
    assert reasons(log) == [reason]


def test_a_leaf_of_the_house_is_served(house: House, log: Log) -> None:
    """The counterpart of every test below: a valid certificate works."""
    assert ask(house.channel(house.admin)).served
    assert reasons(log) == []


def test_T1_a_plaintext_client_is_not_served(house: House, log: Log) -> None:
    before = calls_ended(house)
    with grpc.insecure_channel(house.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        outcome = ask(channel)
    assert_stopped_before_python(outcome, log, before, house)


def _foreign(house: House) -> Issued:
    return Authority.create("example.org").issue_client("admin")


def _shifted(house: House, days: float) -> Issued:
    template = house.authority.client_template("shifted", timedelta(days=1))
    shift = timedelta(days=days)
    return house.authority.issue(
        dataclasses.replace(
            template,
            not_before=template.not_before + shift,
            not_after=template.not_after + shift,
        )
    )


def _for_servers(house: House) -> Issued:
    return house.authority.issue_server("other", ["localhost"])


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda _house: None, id="T2_no_certificate"),
        pytest.param(_foreign, id="T3_of_a_foreign_authority_with_the_right_name"),
        pytest.param(lambda house: _shifted(house, -2), id="T4_expired"),
        pytest.param(lambda house: _shifted(house, +1), id="T5_not_yet_valid"),
        pytest.param(_for_servers, id="T6_for_servers_only"),
    ],
)
def test_T2_to_T6_a_client_certificate_that_TLS_refuses_never_reaches_Python(
    house: House, log: Log, make: Any
) -> None:
    before = calls_ended(house)
    assert_stopped_before_python(ask(house.channel(make(house))), log, before, house)


def test_T7_a_leaf_without_extended_key_usage_is_refused_by_the_guard(
    house: House, log: Log
) -> None:
    template = house.authority.client_template("x").lacking(x509.ExtendedKeyUsage)
    outcome = ask(house.channel(house.authority.issue(template)))
    assert_refused_by_the_guard(outcome, log, "eku")


def test_T8_a_leaf_that_is_an_authority_is_refused_by_the_guard(house: House, log: Log) -> None:
    template = house.authority.client_template("x").having(
        x509.BasicConstraints(ca=True, path_length=None), critical=True
    )
    outcome = ask(house.channel(house.authority.issue(template)))
    assert_refused_by_the_guard(outcome, log, "is_ca")


def test_T9_a_leaf_with_only_a_common_name_is_refused_by_the_guard(house: House, log: Log) -> None:
    template = house.authority.client_template("admin").lacking(x509.SubjectAlternativeName)
    outcome = ask(house.channel(house.authority.issue(template)))
    assert_refused_by_the_guard(outcome, log, "no_san")


@pytest.mark.parametrize(
    "second", ["spiffe://example.org/client/admin", "https://example.org/client/admin"]
)
def test_T10_a_leaf_with_a_second_URI_beside_its_SPIFFE_ID_is_refused_by_the_guard(
    house: House, log: Log, second: str
) -> None:
    template = house.authority.client_template("x").having(
        san("spiffe://example.org/client/x", second)
    )
    outcome = ask(house.channel(house.authority.issue(template)))
    assert_refused_by_the_guard(outcome, log, "many_uri_sans")


@pytest.mark.parametrize(
    "spiffe_id",
    [
        pytest.param("spiffe://example.org", id="no path"),
        pytest.param("spiffe://example.org/", id="empty path"),
        pytest.param("spiffe://example.org/client//x", id="empty segment"),
        pytest.param("spiffe://example.org/client/x/", id="trailing slash"),
        pytest.param("spiffe://example.org/client/../x", id="parent segment"),
        pytest.param("spiffe://example.org/./x", id="dot segment"),
        pytest.param("spiffe://example.org/client/%61dmin", id="percent-encoding"),
        pytest.param("spiffe://EXAMPLE.org/client/x", id="upper-case trust domain"),
        pytest.param("spiffe://example.org:443/client/x", id="port"),
        pytest.param("spiffe://admin@example.org/client/x", id="user information"),
        pytest.param("spiffe://example.org/client/x?admin", id="query"),
        pytest.param("spiffe://example.org/client/x#admin", id="fragment"),
        pytest.param("SPIFFE://example.org/client/x", id="upper-case scheme"),
        pytest.param("spiffe:example.org/client/x", id="no slashes"),
        pytest.param("spiffe:///client/x", id="no trust domain"),
        pytest.param("spiffe://example.org/" + "x" * 2048, id="too long"),
    ],
)
def test_T11_a_malformed_SPIFFE_ID_is_refused_by_the_guard(
    house: House, log: Log, spiffe_id: str
) -> None:
    template = house.authority.client_template("x").having(san(spiffe_id))
    outcome = ask(house.channel(house.authority.issue(template)))
    assert_refused_by_the_guard(outcome, log, "spiffe_id")


@pytest.mark.parametrize("name", ["example.org\nx", "example.org\x00.evil", "example.org x"])
def test_T11_a_URI_with_characters_that_no_URI_has_is_refused_by_the_guard(
    house: House, log: Log, name: str
) -> None:
    template = house.authority.client_template("x").having(san(f"spiffe://{name}/client/x"))
    outcome = ask(house.channel(house.authority.issue(template)))
    assert_refused_by_the_guard(outcome, log, "uri_san")
    assert not any(character in str(log[0]["detail"]) for character in "\n\x00")


def partner(house: House) -> Client:
    template = house.authority.client_template("x").having(san("spiffe://partner.org/client/x"))
    return Client(house.authority.issue(template))


def test_T12_another_trust_domain_than_the_configured_is_unauthenticated(
    house: House, log: Log
) -> None:
    """Even with a valid token bound to that certificate, which a trusted authority signed."""
    client = partner(house)
    metadata = bearer(house.forge.token(client.thumbprint))
    outcome = call(house.channel(client), metadata=metadata)
    assert_refused_by_the_guard(outcome, log, "trust_domain")


POLICY_FOR_OUR_OWN = """{
  "name": "ours",
  "allow_rules": [
    {"name": "ours", "source": {"principals": ["spiffe://example.org/*"]},
     "request": {"paths": ["/secure_api.users.v1.UserService/*",
                           "/secure_api.tokens.v1.TokenService/*"]}}
  ]
}"""


def test_T12_a_configured_trust_domain_that_no_rule_names_is_denied(
    tmp_path: Path, log: Log
) -> None:
    tmp_path.joinpath("policy.json").write_text(POLICY_FOR_OUR_OWN)
    settings = '[policy]\nfile = "policy.json"\n'
    with running_house(tmp_path, settings) as house:
        both = {"trust_domains": ["example.org", "partner.org"]}
        with second_server(house, tls=both) as server:
            client = partner(house)
            metadata = bearer(house.forge.token(client.thumbprint))
            with connected(house, server, client) as channel:
                outcome = call(channel, metadata=metadata)
            ours = bearer(house.forge.token(house.admin.thumbprint))
            with connected(house, server, house.admin) as channel:
                allowed = call(channel, metadata=ours)
    assert outcome.code is grpc.StatusCode.PERMISSION_DENIED
    assert outcome.reason == "NOT_ALLOWED"
    assert reasons(log) == ["policy"]
    assert allowed.served


def test_T13_a_resumed_session_whose_certificate_expired_meanwhile_is_refused(
    house: House, log: Log
) -> None:
    """That the guard answers at all shows that TLS resumed: a full handshake would fail."""
    from grpc.experimental.session_cache import ssl_session_cache_lru

    template = house.authority.client_template("brief")
    end = (datetime.now(UTC) + timedelta(seconds=3)).replace(microsecond=0)
    issued = house.authority.issue(dataclasses.replace(template, not_after=end))
    options = [
        ("grpc.ssl_session_cache", ssl_session_cache_lru(4)),
        ("grpc.ssl_target_name_override", "localhost"),  # sessions are cached by a DNS name only
    ]
    assert ask(house.channel(issued, *options)).served
    while datetime.now(UTC) < end + timedelta(seconds=1):
        time.sleep(0.05)

    assert_refused_by_the_guard(ask(house.channel(issued, *options)), log, "certificate_dates")
    assert ask(house.channel(issued)).code is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("days", [-2, 2])
def test_T13_a_connection_that_outlives_its_certificates_dates_is_refused_at_the_next_call(
    house: House, log: Log, days: int
) -> None:
    offset = 0.0

    def clock() -> float:
        return datetime.now(UTC).timestamp() + offset

    client = house.client("dated", timedelta(days=1))
    with second_server(house, clock) as server, connected(house, server, client) as channel:
        assert ask(channel).served
        offset = days * 86400.0
        outcome = ask(channel)
        offset = 0.0
        again = ask(channel)
    assert_refused_by_the_guard(outcome, log, "certificate_dates")
    assert again.served


def test_T14_a_certificate_on_the_revocation_list_is_refused_by_the_guard(
    house: House, tmp_path: Path, log: Log
) -> None:
    revoked, other = house.authority.issue_client("gone"), house.authority.issue_client("gone")
    path = tmp_path / "crl.pem"
    crl = house.authority.crl([revoked.certificate.serial_number], number=1)
    path.write_bytes(crl.public_bytes(Encoding.PEM))
    with second_server(house, tls={"crl": path}) as server:
        with connected(house, server, other) as channel:
            assert ask(channel).served
        with connected(house, server, revoked) as channel:
            first, second = ask(channel), ask(channel)
    assert first.code is second.code is UNAUTHENTICATED
    assert reasons(log) == ["certificate_revoked"] * 2


def test_T21_a_client_refuses_a_server_certificate_for_another_name(
    house: House, tmp_path: Path, log: Log
) -> None:
    issued = house.authority.issue_server("server", ["other.example"], [ip_address("192.0.2.1")])
    for name, data in (("s.pem", issued.certificate_pem), ("s.key", issued.private_key_pem)):
        tmp_path.joinpath(name).touch(mode=0o600)
        tmp_path.joinpath(name).write_bytes(data)
    files = {"certificate": tmp_path / "s.pem", "private_key": tmp_path / "s.key"}
    with second_server(house, tls=files) as server:
        with connected(house, server, house.admin) as channel:
            outcome = ask(channel)
        named = ("grpc.ssl_target_name_override", "other.example")
        with connected(house, server, house.admin, named) as channel:
            assert ask(channel).served
    assert outcome.code is grpc.StatusCode.UNAVAILABLE
    assert "Hostname Verification Check failed" in outcome.details
    assert reasons(log) == []


FORGED = [
    ("x-forwarded-client-cert", "By=spiffe://example.org/x;URI=spiffe://example.org/client/admin"),
    ("forwarded", "for=127.0.0.1;host=localhost;proto=https"),
    ("x-forwarded-for", "127.0.0.1"),
    ("x-real-ip", "127.0.0.1"),
    ("x-ssl-client-verify", "SUCCESS"),
    ("x-ssl-client-s-dn", "CN=admin"),
    ("x-ssl-cert", "spiffe://example.org/client/admin"),
    ("x-spiffe-id", "spiffe://example.org/client/admin"),
    ("x-endpoint-api-userinfo", "eyJzdWIiOiAidXNlcnMvYWRtaW4ifQ"),
]


@pytest.mark.parametrize("forged", FORGED, ids=lambda pair: pair[0])
def test_T23_metadata_that_claims_an_identity_changes_no_answer(
    house: House, admin_token: str, log: Log, forged: tuple[str, str]
) -> None:
    """It changes neither WhoAmI, nor a refusal, nor the audit log."""
    channel, other = house.channel(house.admin), house.channel(house.client("other"))
    stolen = bearer(admin_token)
    without = [call(channel, metadata=stolen), call(other, metadata=stolen), call(other)]
    audited = [dict(line) for line in log]
    log.clear()
    with_it = [
        call(channel, metadata=(*stolen, forged)),
        call(other, metadata=(*stolen, forged)),
        call(other, metadata=(forged,)),
    ]
    assert with_it == without
    assert [outcome.served for outcome in with_it] == [True, False, False]
    assert log == audited
