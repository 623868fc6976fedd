"""``python -m benchmarks.soak``: rotate certificates, keys and policies under load."""

from __future__ import annotations

import json
import socket
import ssl
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import grpc
import jwt
import typer
from cryptography import x509

from benchmarks import streams
from secure_api.tokens.v1 import token_service_pb2 as pb
from secure_api.tokens.v1.token_service_pb2_grpc import TokenServiceStub
from secure_client import ConnectionSettings, WorkloadTokenSource, connect
from secure_tls.authority import Authority
from secure_tls.folder import CertificateFolder, Order
from tests.support.running import Installation, ServerProcess

_SETTINGS = """
[tls]
crl = "certs/crl.pem"
[policy]
file = "soak.json"
[[workloads]]
spiffe_id = "spiffe://example.org/client/steady"
scopes = ["introspect"]
"""
_SEEN_WITHIN = 15.0
_RETIRE = "8"


class Soak:
    """One server under rotations, and callers none of whose calls may fail."""

    def __init__(self, installation: Installation, server: ServerProcess) -> None:
        self._folder = CertificateFolder(installation.root / "certs")
        self._root = installation.root
        self._server = server
        self._installation = installation
        self._over = threading.Event()
        self._lock = threading.Lock()
        self.calls: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.rotations: Counter[str] = Counter()
        self.seen: Counter[str] = Counter()
        self.seconds: list[float] = []
        self.connections = 0

    # Who is calling.

    @contextmanager
    def load(self) -> Iterator[None]:
        threads = [
            *(threading.Thread(target=self._unary) for _ in range(2)),
            threading.Thread(target=self._stream),
            *(threading.Thread(target=self._flood) for _ in range(2)),
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join()

    def _channel(self) -> grpc.Channel:
        files = self._installation.client("steady")
        own = ConnectionSettings(
            self._server.address, files.ca, files.certificate, files.private_key
        )
        return connect(
            self._server.address,
            ca=files.ca,
            certificate=files.certificate,
            private_key=files.private_key,
            tokens=WorkloadTokenSource(own),
        )

    def _unary(self) -> None:
        with self._channel() as channel:
            stub = TokenServiceStub(channel)
            while not self._over.is_set():
                self._count("unary", lambda: stub.WhoAmI(pb.WhoAmIRequest(), timeout=20))

    def _stream(self) -> None:
        """One stream after the other; a retiring server may end one."""
        with self._channel() as channel:
            stub = TokenServiceStub(channel)
            while not self._over.is_set():
                try:
                    for _ in stub.Introspect(self._questions(), timeout=600):
                        self.calls["messages"] += 1
                    self.calls["streams"] += 1
                except grpc.RpcError as error:
                    if "SERVER_ROTATING" in str(error.trailing_metadata()):
                        self.calls["streams"] += 1
                    else:
                        self.failed[f"stream {error.code().name} {error.details()}"] += 1

    def _questions(self) -> Iterator[pb.IntrospectRequest]:
        while not self._over.is_set():
            yield pb.IntrospectRequest(token="none")
            self._over.wait(0.02)

    def _flood(self) -> None:
        """Connections of an anonymous caller, one after the other."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        while not self._over.is_set():
            with suppress(OSError), self._connection(context):
                self.connections += 1

    def _count(self, kind: str, call: Callable[[], object]) -> None:
        try:
            call()
            self.calls[kind] += 1
        except grpc.RpcError as error:
            self.failed[f"{kind} {error.code().name} {error.details()}"] += 1

    # What is rotated; each is looked for by a fresh connection.

    def rotate(self, number: int) -> None:
        """Rotate one thing, wait until it is seen, and note how long that took."""
        kinds: list[tuple[str, Callable[[int], Callable[[], bool]]]] = [
            ("certificate", self._certificate),
            ("crl", self._crl),
            ("policy", self._policy),
            ("client", self._client),
            ("signing_key", self._signing_key),
            ("authority", self._authority),
        ]
        name, change = kinds[number % len(kinds)]
        seen = change(number)
        self.rotations[name] += 1
        begun = time.monotonic()
        while time.monotonic() - begun < _SEEN_WITHIN:
            if seen():
                self.seen[name] += 1
                self.seconds.append(time.monotonic() - begun)
                return
            time.sleep(0.05)

    def _certificate(self, _number: int) -> Callable[[], bool]:
        self._folder.renew(["server"])
        wanted = _serial(self._root / "certs/server.pem")
        return lambda: self._served_serial() == wanted

    def _client(self, _number: int) -> Callable[[], bool]:
        """The steady callers' own certificate; their channels follow it."""
        self._folder.renew(["steady"])
        return lambda: self._answer("steady") is grpc.StatusCode.OK

    def _crl(self, number: int) -> Callable[[], bool]:
        name = f"gone-{number}"
        self._installation.client(name)
        assert self._answer(name) is grpc.StatusCode.OK
        self._folder.revoke(name)
        return lambda: self._answer(name) is grpc.StatusCode.UNAUTHENTICATED

    def _policy(self, number: int) -> Callable[[], bool]:
        closed = number % 2 == 0 or not self.seen["policy"] % 2
        _write(self._root / "soak.json", policy(open_key_set=not closed).encode())
        wanted = grpc.StatusCode.UNAUTHENTICATED if closed else grpc.StatusCode.OK
        return lambda: self._answer("admin", "GetKeySet") is wanted

    def _signing_key(self, _number: int) -> Callable[[], bool]:
        before = self._key_id()
        self._installation.run("keys", "rotate", "--now")
        return lambda: self._key_id() not in {"", before}

    def _authority(self, number: int) -> Callable[[], bool]:
        """Trust another authority beside ours: accept its clients, refuse the previous one's."""
        bundle = self._root / "certs/ca.pem"
        own = bundle.read_bytes().split(b"-----END CERTIFICATE-----\n")[0]
        own += b"-----END CERTIFICATE-----\n"
        other = Authority.create("example.org")
        _write(bundle, own + other.certificate_pem)
        client = other.issue_client(f"of-another-{number}")
        return lambda: self._answer_of(own, client) is grpc.StatusCode.OK

    # How it is seen.

    def _served_serial(self) -> int:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with suppress(OSError), self._connection(context) as connection:
            der = connection.getpeercert(binary_form=True)
            return x509.load_der_x509_certificate(der or b"").serial_number
        return 0

    @contextmanager
    def _connection(self, context: ssl.SSLContext) -> Iterator[ssl.SSLSocket]:
        host, _, port = self._server.address.rpartition(":")
        with (
            socket.create_connection((host, int(port)), timeout=10) as plain,
            context.wrap_socket(plain, do_handshake_on_connect=False) as connection,
        ):
            connection.do_handshake()
            yield connection

    def _answer(self, client: str, method: str = "") -> grpc.StatusCode:
        files = self._installation.client(client)
        with files.channel(self._server.address) as channel:
            return _status(channel, method)

    def _answer_of(self, ca: bytes, client: Any) -> grpc.StatusCode:
        credentials = grpc.ssl_channel_credentials(
            ca, client.private_key_pem, client.certificate_pem
        )
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.secure_channel(self._server.address, credentials, options) as channel:
            return _status(channel, "")

    def _key_id(self) -> str:
        """The key that signs a new token."""
        with self._installation.client("steady").channel(self._server.address) as channel:
            try:
                tokens = TokenServiceStub(channel).IssueToken(pb.IssueTokenRequest(), timeout=10)
            except grpc.RpcError:
                return ""
        return str(jwt.get_unverified_header(tokens.access_token)["kid"])


def _status(channel: grpc.Channel, method: str) -> grpc.StatusCode:
    path = f"/secure_api.tokens.v1.TokenService/{method}" if method else _HEALTH
    try:
        call: Any = channel.unary_unary(path)
        call(b"", timeout=10)
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    return grpc.StatusCode.OK


_HEALTH = "/grpc.health.v1.Health/Check"


def policy(*, open_key_set: bool) -> str:
    """A policy for the server's own methods, of which one method is allowed or denied."""
    shipped = json.loads((Path(__file__).parents[1] / "secure_server/policy.json").read_text())
    if not open_key_set:
        paths = shipped["allow_rules"][0]["request"]["paths"]
        paths.remove("/secure_api.tokens.v1.TokenService/GetKeySet")
        shipped["allow_rules"][1]["request"]["paths"].append(
            "/secure_api.tokens.v1.TokenService/GetKeySet"
        )
    return json.dumps(shipped)


def _serial(path: Path) -> int:
    return x509.load_pem_x509_certificate(path.read_bytes()).serial_number


def _write(path: Path, data: bytes) -> None:
    draft = path.with_suffix(".draft")
    draft.write_bytes(data)
    draft.replace(path)


def main(
    *,
    seconds: Annotated[
        float, typer.Option(min=1, envvar="SOAK_SECONDS", help="For how long.")
    ] = 120.0,
) -> None:
    """Rotate something every second under a flood of connections and steady calls.

    Then revoke sessions under a thousand open streams, which takes a minute or two. Exits with 1
    if a call failed, a rotation was not seen, the server died, or ``benchmarks.streams`` would.
    The last line is JSON.
    """
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        root = Path(folder)
        CertificateFolder(root / "certs").generate(
            [Order.server("server", ["localhost", "127.0.0.1"], stem="server")]
        )
        (root / "soak.json").write_text(policy(open_key_set=True))
        installation = Installation(
            root, settings=_SETTINGS, environment={"SECURE_SERVER_SERVER__RETIRE": _RETIRE}
        )
        installation.client("steady")
        server = installation.start()
        soak = Soak(installation, server)
        crashes = 0
        try:
            with soak.load():
                end = time.monotonic() + seconds
                number = 0
                while time.monotonic() < end and server.process.poll() is None:
                    begun = time.monotonic()
                    soak.rotate(number)
                    number += 1
                    time.sleep(max(0.0, begun + 1 - time.monotonic()))
                crashes = int(server.process.poll() is not None)
        finally:
            status = server.stop()
            crashes += int(status != 0 and not crashes)
    figures = {
        "seconds": seconds,
        "calls": sum(soak.calls.values()),
        "failed": sum(soak.failed.values()),
        "rotations": sum(soak.rotations.values()),
        "rotations_seen": sum(soak.seen.values()),
        "crashes": crashes,
        "connections": soak.connections,
        "seen_after_seconds_max": round(max(soak.seconds, default=0.0), 2),
        "by_kind": dict(soak.rotations),
    }
    for what, many in soak.failed.most_common(10):
        print(f"failed {many}: {what}")
    for name in soak.rotations:
        print(f"{name}: {soak.rotations[name]} rotations, {soak.seen[name]} seen")
    ended = streams.run()
    print(json.dumps(figures | ended))
    rotated = figures["rotations"] == figures["rotations_seen"]
    if figures["failed"] or crashes or not rotated or streams.is_bad(ended):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
