"""Certificates are renewed while calls run against the whole server: none of them fails."""

import asyncio
import queue
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

import grpc
import pytest
from client_seen import connections, often, until

from secure_api.tokens.v1 import token_service_pb2 as pb
from secure_api.tokens.v1.token_service_pb2_grpc import TokenServiceStub
from secure_client import ConnectionSettings, SessionTokenSource, WorkloadTokenSource, aio
from secure_client.profile import Profile
from secure_client.session import session_of
from secure_tls import Authority
from secure_tls.folder import CertificateFolder, Order
from support.house import PASSWORD, House, running_house

__all__ = ["often"]

RENEWALS = 4


@dataclass
class Home:
    """The server, and the folder of its clients' certificates."""

    house: House
    path: Path

    @property
    def port(self):
        return int(self.house.address.rpartition(":")[2])

    def connection(self, name):
        certificate = self.path / "clients" / f"{name}.pem"
        return ConnectionSettings(
            self.house.address, self.path / "ca.pem", certificate, certificate.with_suffix(".key")
        )

    def renew(self, name):
        CertificateFolder(self.path).renew([f"clients/{name}"])

    def own_connections(self):
        """How many connections the house made itself, to log users in."""
        return len(self.house._channels)


@contextmanager
def make_home(path, root):
    CertificateFolder(path).generate([Order.client("admin"), Order.client("workload")])
    settings = (
        '[[workloads]]\nspiffe_id = "spiffe://example.org/client/workload"\n'
        'scopes = ["introspect"]\n'
    )
    authority = Authority.load(path / "ca.pem", path / "ca.key")
    with running_house(root, settings, authority=authority) as house:
        yield Home(house, path)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    with make_home(tmp_path_factory.mktemp("folder"), tmp_path_factory.mktemp("house")) as home:
        home.house.first_log_in()
        yield home


@pytest.fixture(params=["session", "workload"])
def caller(request, home):
    """``(name, connection, source)`` of who calls, as a person and as a workload."""
    if request.param == "workload":
        connection = home.connection("workload")
        return "workload", connection, WorkloadTokenSource(connection)
    connection = home.connection("admin")
    profile = Profile.named()
    profile.save(connection.settings())
    # A session of the same SPIFFE ID, which was opened over another certificate.
    tokens = home.house.log_in("admin", PASSWORD)
    profile.session.save(session_of(tokens, "admin", connection.target))
    return "admin", connection, SessionTokenSource()


@dataclass
class Seen:
    """The results of the calls: the certificate of each, as the server names it, or a failure."""

    thumbprints: list = field(default_factory=list)
    failures: list = field(default_factory=list)
    over: bool = False

    def wait_for_another(self, known):
        until(lambda: set(self.thumbprints) - known or self.failures)

    def judge(self, log, certificates):
        assert self.failures == []
        assert len(set(self.thumbprints)) == certificates
        # No call was retried after a refusal: the server has refused none.
        assert [line for line in log if "refused" in str(line.get("event"))] == []


@contextmanager
def calling(channel):
    """Threads call continuously, half of them by methods that are never retried."""
    seen, stub = Seen(), TokenServiceStub(channel)

    def keep_calling(start):
        while not seen.over:
            try:
                seen.thumbprints.append(start(pb.WhoAmIRequest()).certificate.thumbprint)
            except grpc.RpcError as error:
                seen.failures.append(error)

    ways = [stub.WhoAmI, lambda request: stub.WhoAmI.future(request).result()]
    threads = [threading.Thread(target=keep_calling, args=(way,)) for way in ways * 2]
    for thread in threads:
        thread.start()
    try:
        seen.wait_for_another(set())
        yield seen
    finally:
        seen.over = True
        for thread in threads:
            thread.join()


def test_C7_no_call_fails_while_certificates_are_renewed(home, caller, often, log):
    name, connection, source = caller
    questions = queue.SimpleQueue()
    with connection.open(source) as channel:
        stream = TokenServiceStub(channel).Introspect(iter(questions.get, None))
        with calling(channel) as seen:
            for number in range(RENEWALS):
                questions.put(pb.IntrospectRequest(correlation_id=str(number)))
                assert next(stream).correlation_id == str(number)
                known = set(seen.thumbprints)
                home.renew(name)
                seen.wait_for_another(known)
        # The stream is still on its first channel, which is closed after it.
        assert connections(home.port) > home.own_connections() + 1
        questions.put(None)
        assert list(stream) == []
        until(lambda: len(channel._rotation.all()) == 1)
        until(lambda: connections(home.port) == home.own_connections() + 1)
    seen.judge(log, RENEWALS + 1)


def replace(path, data):
    draft = path.with_name(f".{path.name}")
    draft.touch(mode=0o600)
    draft.write_bytes(data)
    draft.rename(path)


def test_C7_no_call_fails_while_the_authority_is_replaced_on_both_sides(
    tmp_path, often, log, monkeypatch
):
    monkeypatch.setattr("secure_base.reloading.reloads.INTERVAL", 0.02)
    with make_home(tmp_path / "folder", tmp_path) as home:
        house, folder, root = home.house, home.path, home.house.root
        successor = Authority.create("example.org")
        new = successor.certificate_pem
        both = house.authority.certificate_pem + new
        connection = home.connection("workload")

        def wait_for_server(generation):
            until(lambda: house.server._listeners.count == generation)

        with (
            connection.open(WorkloadTokenSource(connection)) as channel,
            calling(channel) as seen,
        ):

            def trusted(bundle):
                return channel._files.identity.files.ca_bundle == bundle

            replace(root / "ca.pem", both)
            wait_for_server(2)
            replace(folder / "ca.pem", both)
            until(lambda: trusted(both))
            known, issued = set(seen.thumbprints), successor.issue_client("workload")
            replace(folder / "clients/workload.key", issued.private_key_pem)
            replace(folder / "clients/workload.pem", issued.certificate_pem)
            seen.wait_for_another(known)
            until(lambda: len(channel._rotation.all()) == 1)
            issued = successor.issue_server("server", ["localhost"], [ip_address("127.0.0.1")])
            replace(root / "server.key", issued.private_key_pem)
            replace(root / "server.pem", issued.certificate_pem)
            wait_for_server(3)
            replace(folder / "ca.pem", new)
            until(lambda: trusted(new))
            until(lambda: len(channel._rotation.all()) == 1)
            replace(root / "ca.pem", new)
            wait_for_server(4)
            count = len(seen.thumbprints)
            until(lambda: len(seen.thumbprints) > count + 20 or seen.failures)
    seen.judge(log, 2)


def test_C7_no_call_fails_on_asyncio_while_certificates_are_renewed(home, caller, often, log):
    name, connection, source = caller
    seen = Seen()

    async def keep_calling(stub):
        while not seen.over:
            try:
                answer = await stub.WhoAmI(pb.WhoAmIRequest())
                seen.thumbprints.append(answer.certificate.thumbprint)
            except grpc.RpcError as error:
                seen.failures.append(error)

    async def main():
        async with aio.connect(
            connection.target,
            ca=connection.ca,
            certificate=connection.certificate,
            private_key=connection.private_key,
            tokens=source,
        ) as channel:
            stub = TokenServiceStub(channel)
            stream = stub.Introspect()
            callers = [asyncio.create_task(keep_calling(stub)) for _ in range(4)]
            await asyncio.to_thread(seen.wait_for_another, set())
            for number in range(RENEWALS):
                await stream.write(pb.IntrospectRequest(correlation_id=str(number)))
                assert (await stream.read()).correlation_id == str(number)
                known = set(seen.thumbprints)
                await asyncio.to_thread(home.renew, name)
                await asyncio.to_thread(seen.wait_for_another, known)
            seen.over = True
            await asyncio.gather(*callers)
            await stream.done_writing()
            assert await stream.read() is grpc.aio.EOF
            await asyncio.to_thread(until, lambda: len(channel._rotation.all()) == 1)

    asyncio.run(main())
    seen.judge(log, RENEWALS + 1)
