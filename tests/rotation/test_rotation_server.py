"""Certificates, authorities and revocation lists are reloaded while calls run (T12 to T19)."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Self

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from secure_server.config import read_config
from secure_server.guard.listener.sockets import (
    ListenError,
    check_free,
    listening_sockets,
    stop_listening,
)
from secure_tls.authority import Authority, Issued
from support.door import silence, wait_until
from support.house import House, Outcome, bearer, call, running_house

SETTINGS = "[http]\nlisten = '127.0.0.1:0'\n"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secure_base.reloading.reloads.INTERVAL", 0.05)


@contextmanager
def quick(
    root: Path,
    *,
    crl: str = "",
    stale_crl: str = "warn",
    bundles: str = "",
    clock: Callable[[], float] = time.time,
) -> Iterator[House]:
    """A house with an empty revocation list, named by a setting, and authorities of partners."""
    authority = Authority.create("example.org")
    tls = ""
    if crl:
        list_file = root / ("one.pem" if crl != "lists" else "lists/one.pem")
        list_file.parent.mkdir(exist_ok=True)
        (root / "crl.pem").write_bytes(
            empty := authority.crl([], number=1, lifetime=timedelta(days=7)).public_bytes(
                Encoding.PEM
            )
        )
        list_file.write_bytes(empty)
        tls = f'crl = "{crl}"\nstale_crl = "{stale_crl}"\n'
    if bundles:
        tls += f"trust_bundles = {{ {bundles} }}\n"
    with running_house(root, SETTINGS, tls=tls, authority=authority, clock=clock) as house:
        yield house


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with quick(tmp_path) as house:
        yield house


def served_serial(house: House) -> int:
    """The serial number of the certificate that a fresh connection is shown.

    One that is just being opened when the listener changes is reset, and opened again.
    """
    try:
        return _served_serial(house)
    except ConnectionError:
        return _served_serial(house)


def _served_serial(house: House) -> int:
    host, _, port = house.address.rpartition(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    pair = house.root / "admin-pair.pem"
    if not pair.exists():
        pair.write_bytes(house.admin.issued.certificate_pem + house.admin.issued.private_key_pem)
    context.load_cert_chain(pair)
    # Over memory: a socket that is reset while ``wrap_socket`` wraps it is left open by that.
    received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(received, sent)
    with socket.create_connection((host, int(port))) as plain:
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                plain.sendall(sent.read())
                if not (data := plain.recv(65536)):
                    raise ConnectionResetError from None
                received.write(data)
        plain.sendall(sent.read())
    der = tls.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der).serial_number


def write_pair(house: House, issued: Issued) -> None:
    """As `secure-certs renew` does: drafts, then two renames."""
    for name, data in (
        ("server.key", issued.private_key_pem),
        ("server.pem", issued.certificate_pem),
    ):
        draft = house.root / f".{name}"
        draft.touch(mode=0o600)
        draft.write_bytes(data)
    for name in ("server.key", "server.pem"):
        (house.root / f".{name}").replace(house.root / name)


def new_leaf(house: House, authority: Authority | None = None) -> Issued:
    return (authority or house.authority).issue_server(
        "server", ["localhost"], [ip_address("127.0.0.1"), ip_address("::1")]
    )


def ask(house: House, channel: grpc.Channel | None = None, issued: Issued | None = None) -> Outcome:
    channel = channel or house.channel(issued or house.admin.issued)
    return call(channel, method="/grpc.health.v1.Health/Check", request=b"")


def healthy(outcome: Outcome) -> bool:
    return outcome.code is grpc.StatusCode.OK


class Callers:
    """Calls without a pause on long-lived channels, and without retries."""

    def __init__(self, house: House, many: int = 4) -> None:
        self._over = threading.Event()
        self.count = 0
        self.failed: list[Outcome] = []
        self._threads = [
            threading.Thread(target=self._run, args=(house, house.channel(house.admin, *OPTIONS)))
            for _ in range(many)
        ]

    def _run(self, house: House, channel: grpc.Channel) -> None:
        while not self._over.is_set():
            outcome = ask(house, channel)
            self.count += 1
            if not healthy(outcome):
                self.failed.append(outcome)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


OPTIONS = (("grpc.enable_retries", 0),)


def test_T18_a_renewed_certificate_is_served_within_seconds_and_no_call_fails(
    house: House, log: list[dict[str, Any]]
) -> None:
    with Callers(house) as callers:
        for _ in range(3):
            renewed = new_leaf(house)
            write_pair(house, renewed)
            wait_until(lambda n=renewed: served_serial(house) == n.certificate.serial_number)  # type: ignore[misc]
            seen = callers.count
            wait_until(lambda n=seen: callers.count > n + 50)  # type: ignore[misc]
    assert callers.failed == []
    assert callers.count > 150
    assert house.server._listeners.count == 4
    assert [line for line in log if line.get("log_level") in {"warning", "error"}] == []


def test_a_stream_stays_open_under_the_old_certificate_until_that_retires(tmp_path: Path) -> None:
    with running_house(tmp_path, SETTINGS) as house:
        house.server._listeners._retire = 1.5
        token = house.first_log_in().access_token
        with silence() as requests:
            stream = house.channel(house.admin).stream_stream(
                "/secure_api.tokens.v1.TokenService/Introspect"
            )(requests, metadata=bearer(token), timeout=60)
            wait_until(lambda: len(house.server._guard.streams) == 1)
            renewed = new_leaf(house)
            write_pair(house, renewed)
            wait_until(lambda: served_serial(house) == renewed.certificate.serial_number)
            assert stream.is_active()
            with pytest.raises(grpc.RpcError) as ended:
                next(stream)
        assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "SERVER_ROTATING" in str(ended.value.trailing_metadata())
        wait_until(lambda: house.server._listeners.retiring == 0)
        assert healthy(ask(house))


def test_T18_a_half_written_pair_is_never_served(house: House) -> None:
    before = served_serial(house)
    renewed = new_leaf(house)
    house.write("server.key", renewed.private_key_pem)
    certificates = house.server._service.parts.certificates.status
    wait_until(lambda: "is not the key of" in certificates.failure)
    assert served_serial(house) == before
    assert healthy(ask(house))
    house.write("server.pem", renewed.certificate_pem)
    wait_until(lambda: served_serial(house) == renewed.certificate.serial_number)
    wait_until(lambda: certificates.failure == "")


def test_T19_an_unusable_set_changes_nothing_and_is_logged_once(
    house: House, log: list[dict[str, Any]]
) -> None:
    before = served_serial(house)
    house.write("server.pem", b"nonsense")
    certificates = house.server._service.parts.certificates.status
    wait_until(lambda: certificates._tries > 3)  # tried again and again
    assert certificates.failures == 1
    assert served_serial(house) == before
    assert healthy(ask(house))
    lines = [str(line["event"]) for line in log if line["log_level"] == "warning"]
    assert len([line for line in lines if "the last good one stays" in line]) == 1
    assert "server.pem" in [line for line in log if line["log_level"] == "warning"][-1]["reason"]
    status, _, page = house.server._pages["/healthz"]()
    assert status.startswith("200")
    assert b"certificate cannot be reloaded" in page
    counted = b'secure_grpc_reload_failures_total{source="certificate"} 1.0'
    assert counted in house.server._metrics.exposition()


def test_T17_clients_of_an_authority_that_was_removed_are_refused_on_open_connections(
    house: House, log: list[dict[str, Any]]
) -> None:
    successor = Authority.create("example.org")
    old, new = house.channel(house.admin), successor.issue_client("admin")
    assert healthy(ask(house, old))
    house.write("ca.pem", house.authority.certificate_pem + successor.certificate_pem)
    wait_until(lambda: healthy(ask(house, issued=new)))
    assert healthy(ask(house, old)), "both are good in the overlap"
    write_pair(house, new_leaf(house, successor))
    house.write("ca.pem", successor.certificate_pem)
    wait_until(lambda: ask(house, old).code is grpc.StatusCode.UNAUTHENTICATED)
    assert "certificate_authority" in {line.get("reason") for line in log}
    credentials = grpc.ssl_channel_credentials(
        successor.certificate_pem, new.private_key_pem, new.certificate_pem
    )
    with grpc.secure_channel(house.address, credentials) as channel:
        wait_until(lambda: healthy(ask(house, channel)))


def write_crl(house: House, number: int, *revoked: Issued, name: str = "crl.pem") -> None:
    crl = house.authority.crl([one.certificate.serial_number for one in revoked], number=number)
    house.write(name, crl.public_bytes(Encoding.PEM))


def test_T14_a_revoked_certificate_is_refused_on_its_open_connection(tmp_path: Path) -> None:
    with quick(tmp_path, crl="crl.pem") as house:
        gone, other = house.client("gone"), house.client("other")
        channel, others = house.channel(gone), house.channel(other)
        assert healthy(ask(house, channel))
        write_crl(house, 2, gone.issued)
        wait_until(lambda: ask(house, channel).code is grpc.StatusCode.UNAUTHENTICATED)
        assert healthy(ask(house, others))
        assert house.server._listeners.count == 1, "this needs no new server"


@pytest.mark.parametrize("defect", ["forged", "truncated", "missing"])
def test_T16_a_list_that_is_no_list_leaves_the_last_good_one(tmp_path: Path, defect: str) -> None:
    with quick(tmp_path, crl="crl.pem") as house:
        gone = house.client("gone")
        write_crl(house, 2, gone.issued)
        channel = house.channel(gone)
        wait_until(lambda: ask(house, channel).code is grpc.StatusCode.UNAUTHENTICATED)
        if defect == "forged":
            stranger = Authority.create("example.org")
            house.write("crl.pem", stranger.crl([], number=3).public_bytes(Encoding.PEM))
        elif defect == "truncated":
            house.write("crl.pem", (house.root / "crl.pem").read_bytes()[:100])
        else:
            (house.root / "crl.pem").unlink()
        wait_until(lambda: house.server._service.parts.certificates.status.failures == 1)
        assert ask(house, channel).code is grpc.StatusCode.UNAUTHENTICATED
        assert healthy(ask(house))


def test_a_folder_of_lists_is_all_of_them(tmp_path: Path) -> None:
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / ".hidden").write_text("not a list")
    with quick(tmp_path, crl="lists") as house:
        gone = house.client("gone")
        channel = house.channel(gone)
        assert healthy(ask(house, channel))
        write_crl(house, 2, gone.issued, name="lists/two.pem")
        wait_until(lambda: ask(house, channel).code is grpc.StatusCode.UNAUTHENTICATED)


@pytest.mark.parametrize("mode", ["warn", "refuse"])
def test_T15_a_stale_list_is_a_warning_or_a_refusal_as_configured(
    tmp_path: Path, mode: str, log: list[dict[str, Any]]
) -> None:
    moment = [time.time()]
    with quick(tmp_path, crl="crl.pem", stale_crl=mode, clock=lambda: moment[0]) as house:
        client = house.client("lives-long", timedelta(days=90)).issued
        assert healthy(ask(house, issued=client))
        moment[0] += timedelta(days=31).total_seconds()
        outcome = ask(house, issued=client)
        if mode == "warn":
            assert healthy(outcome)
            wait_until(lambda: any("is stale" in str(line["event"]) for line in log))
            assert any(
                "stale" in text for text in house.server._service.parts.certificates.warnings
            )
        else:
            assert outcome.code is grpc.StatusCode.UNAUTHENTICATED
            assert "crl_stale" in {line.get("reason") for line in log}


def test_T12_each_trust_domain_is_verified_by_its_own_authorities_alone(tmp_path: Path) -> None:
    partner, impostor = Authority.create("partner.example"), Authority.create("partner.example")
    (tmp_path / "partner.pem").write_bytes(partner.certificate_pem)
    with quick(tmp_path, bundles='"partner.example" = "partner.pem"') as house:
        assert healthy(ask(house))
        assert healthy(ask(house, issued=partner.issue_client("them")))
        # Our authority may issue for our trust domain only; theirs not for ours.
        ours_as_theirs = issue_as(house.authority, "spiffe://partner.example/client/them")
        theirs_as_ours = issue_as(partner, "spiffe://example.org/client/admin")
        for forged in (ours_as_theirs, theirs_as_ours):
            outcome = ask(house, issued=forged)
            assert outcome.code is grpc.StatusCode.UNAUTHENTICATED
        assert not healthy(ask(house, issued=impostor.issue_client("them")))


@pytest.mark.parametrize("becomes", ["malformed", "ended", "missing"])
def test_M6_a_partners_bundle_concerns_that_partners_clients_alone(
    tmp_path: Path, becomes: str
) -> None:
    """The partner's last good one stays; our own changes are reloaded all the same."""
    partner = Authority.create("partner.example")
    (tmp_path / "partner.pem").write_bytes(partner.certificate_pem)
    bundles = '"partner.example" = "partner.pem"'
    with quick(tmp_path, crl="crl.pem", bundles=bundles) as house:
        gone, theirs = house.client("gone"), partner.issue_client("them")
        channel = house.channel(gone)
        assert healthy(ask(house, channel))
        if becomes == "ended":
            old = Authority.create("partner.example", clock=lambda: 1e9)
            house.write("partner.pem", old.certificate_pem)
        elif becomes == "malformed":
            house.write("partner.pem", partner.certificate_pem[:200])
        else:
            (tmp_path / "partner.pem").unlink()
        certificates = house.server._service.parts.certificates.status
        wait_until(lambda: "partner.pem" in certificates.failure)
        write_crl(house, 2, gone.issued)
        wait_until(lambda: ask(house, channel).code is grpc.StatusCode.UNAUTHENTICATED)
        assert healthy(ask(house, issued=theirs))
        assert "partner.pem" in house.server._guard.reloads.warnings[0]
        house.write("partner.pem", partner.certificate_pem)
        wait_until(lambda: certificates.failure == "")


def test_M6_a_server_starts_beside_a_partners_bundle_that_has_ended(tmp_path: Path) -> None:
    old = Authority.create("partner.example", clock=lambda: 1e9)
    (tmp_path / "partner.pem").write_bytes(old.certificate_pem)
    with quick(tmp_path, bundles='"partner.example" = "partner.pem"') as house:
        assert healthy(ask(house))
        reloads = house.server._guard.reloads
        wait_until(lambda: reloads.warnings)
        assert "partner.pem expired" in reloads.warnings[0]
        # No client of that domain is admitted, not even one that our authority issued.
        forged = issue_as(house.authority, "spiffe://partner.example/client/them")
        assert ask(house, issued=forged).code is grpc.StatusCode.UNAUTHENTICATED


def issue_as(authority: Authority, spiffe_id: str) -> Issued:
    """What an authority must not issue, and could."""
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(spiffe_id)])
    return authority.issue(authority.client_template("any").having(names))


def test_a_list_that_must_be_fresh_must_be_named(tmp_path: Path) -> None:
    path = tmp_path / "secure-server.toml"
    path.write_text('[tls]\nstale_crl = "refuse"\n')
    with pytest.raises(Exception, match="every client would be refused"):
        read_config(path)


def is_free(address: str) -> bool:
    try:
        check_free(address, "[server] listen")
    except ListenError:
        return False
    return True


def test_a_listening_socket_is_found_and_closed_alone() -> None:
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(1))
        before = frozenset(listening_sockets())
        server = grpc.server(pool)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        own = frozenset(listening_sockets()) - before
        assert len(own) >= 1
        assert not is_free(f"127.0.0.1:{port}")
        assert stop_listening(own)
        wait_until(lambda: is_free(f"127.0.0.1:{port}"))
        assert not stop_listening(frozenset({1})), "no process has such a socket"
        server.stop(0).wait()
