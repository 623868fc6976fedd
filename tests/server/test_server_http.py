"""The HTTP side: three pages, in the clear, off unless configured."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from prometheus_client.parser import text_string_to_metric_families

from secure_server.app.lifecycle import Server
from secure_server.config import Config
from secure_server.guard.listener.sockets import ListenError
from support.house import House, bearer, call
from support.pages import get_page
from support.raw import dial
from support.second import connected, second_server

PAGES = ["/healthz", "/metrics", "/.well-known/jwks.json"]


@pytest.fixture(scope="module")
def server(house: House) -> Iterator[Server]:
    with second_server(house, http={"listen": "127.0.0.1:0"}) as server:
        yield server


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://{server.http_address}", trust_env=False) as client:
        yield client


def test_it_is_off_by_default(house: House) -> None:
    assert Config().http.listen is None
    assert not hasattr(house.server, "http_address")


def test_healthz_says_that_it_serves_and_while_stopping_that_it_does_not(
    server: Server, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = http.get("/healthz")
    assert (page.status_code, page.json()) == (200, {"status": "SERVING", "warnings": []})
    monkeypatch.setattr(server._stage.stopping, "is_set", lambda: True)
    page = http.get("/healthz")
    assert (page.status_code, page.json()) == (503, {"status": "NOT_SERVING"})


def test_the_key_set_is_the_one_that_verifies_our_tokens_and_holds_nothing_private(
    house: House, http: httpx.Client
) -> None:
    page = http.get("/.well-known/jwks.json")
    assert page.headers["content-type"] == "application/json"
    (key,) = page.json()["keys"]
    assert set(key) == {"kty", "crv", "x", "y", "kid", "use", "alg"}
    assert (key["kty"], key["crv"], key["use"], key["alg"]) == ("EC", "P-256", "sig", "ES256")
    assert key["kid"] == house.forge.key_id
    numbers = house.forge.key.public_key().public_numbers()
    import jwt

    public = jwt.PyJWK(key).key
    assert isinstance(public, ec.EllipticCurvePublicKey)
    assert public.public_numbers() == numbers


def test_metrics_count_calls_and_refusals_and_name_no_caller(
    house: House, server: Server, http: httpx.Client
) -> None:
    def sample(name: str, **labels: str) -> float:
        for family in text_string_to_metric_families(http.get("/metrics").text):
            for one in family.samples:
                if one.name == name and one.labels == labels:
                    return float(one.value)
        return 0.0

    who_am_i = "/secure_api.tokens.v1.TokenService/WhoAmI"
    served = {"method": who_am_i, "code": "OK"}
    refused = {"method": who_am_i, "code": "UNAUTHENTICATED"}
    unknown = {"method": "unknown", "code": "UNAUTHENTICATED"}
    names = [
        ("secure_grpc_calls_total", served),
        ("secure_grpc_calls_total", refused),
        ("secure_grpc_calls_total", unknown),
        ("secure_grpc_refusals_total", {"reason": "anonymous_denied"}),
    ]
    before = [sample(name, **labels) for name, labels in names]
    token = house.forge.token(house.admin.thumbprint)
    with connected(house, server, house.admin) as channel:
        assert call(channel, metadata=bearer(token)).served
        call(channel)
        call(channel, method="/invented.by.the.Caller/Method")
    after = [sample(name, **labels) for name, labels in names]
    assert [b - a for a, b in zip(before, after, strict=True)] == [1, 1, 1, 2]

    text = http.get("/metrics").text
    assert "invented" not in text
    assert "users/admin" not in text
    assert "spiffe:" not in text
    expiry = sample("secure_grpc_certificate_expiry_time_seconds")
    certificate = server._service.parts.certificates.watched.value.files.leaf
    assert expiry == certificate.not_valid_after_utc.timestamp()
    assert sample("secure_grpc_open_streams") == 0


@pytest.mark.parametrize("page", PAGES)
def test_HEAD_has_the_headers_of_GET_and_no_body(http: httpx.Client, page: str) -> None:
    head, get = http.head(page), http.get(page)
    assert head.status_code == get.status_code == 200
    assert head.headers["content-type"] == get.headers["content-type"]
    assert head.content == b""
    assert get.content


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("page", PAGES)
def test_other_methods_are_405(http: httpx.Client, page: str, method: str) -> None:
    reply = http.request(method, page)
    assert reply.status_code == 405


@pytest.mark.parametrize(
    "path",
    ["/", "/healthz/", "/HEALTHZ", "//healthz", "/x", "/metrics/..", "/.well-known/", "/%00"],
)
def test_other_paths_are_404(http: httpx.Client, path: str) -> None:
    assert http.get(path).status_code == 404


def test_a_query_changes_nothing(http: httpx.Client) -> None:
    assert http.get("/healthz?x=1").json()["status"] == "SERVING"


@pytest.mark.parametrize(
    "request_text",
    [
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 32_000 + b"\r\n\r\n",
        b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + b"a" * 1000,
        b"\x16\x03\x01\x02\x00nonsense\r\n\r\n",
        b"GET http://elsewhere/secret HTTP/1.1\r\nHost: elsewhere\r\n\r\n",
    ],
    ids=["headers", "body", "TLS", "proxy"],
)
def test_large_or_malformed_requests_are_refused_and_others_are_served(
    server: Server, http: httpx.Client, request_text: bytes
) -> None:
    with dial(server.http_address, 10) as plain:
        plain.sendall(request_text)
        reply = plain.recv(65536)
    assert reply.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4")), reply
    assert b"Traceback" not in reply
    assert http.get("/healthz").status_code == 200


def test_silent_connections_do_not_keep_the_pages_from_others(
    server: Server, http: httpx.Client
) -> None:
    silent = [dial(server.http_address, 10) for _ in range(20)]
    try:
        assert http.get("/healthz", timeout=3).status_code == 200
        assert silent[0].recv(1) == b""  # and they are hung up on
    finally:
        for one in silent:
            one.close()


HEAD = b"GET /livez HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    "head",
    [
        b"G",
        HEAD + b"X: ",
        b"POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n",
        b"POST /livez HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n",
    ],
    ids=["line", "header", "body", "chunk"],
)
def test_requests_that_come_a_byte_at_a_time_do_not_keep_the_pages_from_others(
    server: Server, http: httpx.Client, log: list[dict[str, object]], head: bytes
) -> None:
    """Each of 48 threads opens the next connection when the one before is hung up on."""
    over = threading.Event()
    longest = []

    def dribble() -> None:
        while not over.is_set():
            with contextlib.suppress(OSError), dial(server.http_address, 10) as slow:
                begun = time.monotonic()
                try:
                    slow.sendall(head)
                    while not over.wait(0.2):
                        slow.sendall(b"a")
                finally:
                    longest.append(time.monotonic() - begun)

    threads = [threading.Thread(target=dribble) for _ in range(48)]
    for thread in threads:
        thread.start()
    try:
        end = time.monotonic() + 5
        while time.monotonic() < end:
            reply = get_page(server.http_address, "/livez", timeout=3)
            assert reply.status_code == 200
            over.wait(0.1)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert http.get("/healthz").status_code == 200
    assert max(longest) < 4  # two seconds, and the look and the byte that notice it
    assert [line for line in log if line.get("logger") == "cheroot"] == []


def test_a_request_whose_head_does_not_end_is_hung_up_on_after_two_seconds(
    server: Server,
) -> None:
    with dial(server.http_address, 10) as slow:
        slow.sendall(HEAD)
        begun = time.monotonic()
        slow.settimeout(0.3)
        while True:
            try:
                assert slow.recv(1) == b""
            except TimeoutError:
                slow.sendall(b"a")
                assert time.monotonic() - begun < 8
            except ConnectionResetError:
                break
            else:
                break
        assert 1.9 < time.monotonic() - begun < 8


def test_a_stop_does_not_wait_for_requests_that_are_on_the_way(house: House) -> None:
    with (
        contextlib.ExitStack() as sockets,
        second_server(house, http={"listen": "127.0.0.1:0"}) as stopped,
    ):
        for _ in range(5):
            sockets.enter_context(dial(stopped.http_address, 10)).sendall(HEAD)
        assert get_page(stopped.http_address, "/livez").status_code == 200
        begun = time.monotonic()
        stopped._http.stop()
        assert time.monotonic() - begun < 1.9


@pytest.mark.parametrize("body", [b"x", b"x" * 100])
def test_a_body_is_refused_unread_and_the_connection_closed(server: Server, body: bytes) -> None:
    with dial(server.http_address, 10) as plain:
        length = b"Content-Length: %d\r\n\r\n" % len(body)
        plain.sendall(HEAD + length + body[:1])
        reply = b""
        while more := plain.recv(65536):
            reply += more
    assert reply.startswith(b"HTTP/1.1 413 ")


# cheroot leaves its socket to the garbage collector when binding it fails.
@pytest.mark.filterwarnings(
    r"ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"
)
def test_an_address_in_use_is_a_sentence(house: House, server: Server) -> None:
    with (
        pytest.raises(ListenError, match=r"^Cannot listen on \S+: .+ with \[http\] listen\.$"),
        second_server(house, http={"listen": server.http_address}),
    ):
        pass


def test_after_stop_the_port_is_free(house: House, tmp_path: Path) -> None:
    with second_server(house, http={"listen": "127.0.0.1:0"}) as first:
        address = first.http_address
    with second_server(house, http={"listen": address}) as again:
        assert json.loads(get_page(again.http_address, "/healthz").text)
