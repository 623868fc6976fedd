"""Fetching from an issuer by HTTPS, with bounds on address, size and time."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from urllib.parse import SplitResult, urlencode, urlsplit

import urllib3
from urllib3.exceptions import ConnectTimeoutError, HTTPError, SSLError

from secure_base.reloading import Reloaded, Reloads, signature

MAX_BODY_BYTES = 512 * 1024
TIMEOUT = 5.0
"""Seconds for one request with the whole body of its answer. In the head, each part may take as
long."""
_KEPT_OPEN = 2048
"""Connections to one address: half of the largest ``door_threads``, as many as the bulkhead lets
wait at once. They stay open until the issuer closes them."""


class FetchError(Exception):
    """The fetch failed; the message names the URL. ``status`` is the HTTP status, if any."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class Fetcher:
    """An HTTPS client for the URLs of a configuration and those that a document there names.

    Against server-side request forgery it connects to public addresses only: to private ones with
    ``allow_private_addresses``, to link-local ones (cloud metadata services) never. It connects to
    the very address that it checked. It follows no redirects and uses no proxies from the
    environment.
    """

    def __init__(self, *, ca: Path | None = None, allow_private_addresses: bool = False) -> None:
        """Trust ``ca``, a PEM bundle; by default the system's. Raises ``FetchError``."""
        self._allow_private = allow_private_addresses
        self._ca: Reloaded[_Trusted] | None = None
        trusted = _trust(None)
        if ca is not None:
            self._ca = Reloaded(
                "ca",
                lambda last: _read_trusted(ca, last),
                errors=(FetchError,),
                version=lambda: signature([ca]),
            )
            trusted = self._ca.value
            self._ca.subscribe(self._connect_anew)
        self._pools = trusted.pools

    def follow_ca(self, reloads: Reloads, name: str) -> Callable[[], None]:
        """Reload the bundle when it changes: new connections use the new one.

        ``name`` is the authenticator's. Returns a function that stops the reloading.
        """
        if self._ca is None:
            return lambda: None
        self._ca.status.source = f"ca {name}"
        return reloads.follow(self._ca)

    def get(self, url: str) -> bytes:
        """Return the body of a 200. Raises ``FetchError``."""
        return self._request("GET", url, {}, None)

    def post(self, url: str, form: Mapping[str, str], auth: tuple[str, str] | None = None) -> bytes:
        """Send a form, with HTTP Basic credentials, and return the body of a 200.

        Raises ``FetchError``.
        """
        headers = {"content-type": "application/x-www-form-urlencoded"}
        if auth is not None:
            headers |= urllib3.make_headers(basic_auth=":".join(auth))
        return self._request("POST", url, headers, urlencode(form))

    def close(self) -> None:
        self._pools.clear()

    def _connect_anew(self, trusted: _Trusted) -> None:
        # The old pools close their connections once no request uses them any more.
        self._pools = trusted.pools

    def _request(self, method: str, url: str, headers: dict[str, str], body: str | None) -> bytes:
        parts, port = _parts_of(url)
        failure = FetchError(f"{url}: no address.")
        deadline = time.monotonic() + TIMEOUT
        for address in self._addresses(url, parts, port):
            seconds = deadline - time.monotonic()
            if seconds <= 0:
                break
            pool = self._pools.connection_from_host(
                address,
                port,
                "https",
                # The certificate must be the host's, not the address's.
                {"server_hostname": parts.hostname, "assert_hostname": parts.hostname},
            )
            try:
                response = pool.urlopen(
                    method,
                    (parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
                    body,
                    {"host": parts.netloc.rpartition("@")[2], "accept": "application/json"}
                    | headers,
                    timeout=urllib3.Timeout(total=seconds),
                    redirect=False,
                    preload_content=False,
                )
            except (ConnectTimeoutError, SSLError) as error:
                failure = FetchError(f"{url}: cannot connect: {_reason(error)}.")
                continue
            except HTTPError as error:
                raise FetchError(f"{url}: {_reason(error)}.") from None
            return _body_of(response, url, deadline)
        raise failure

    def _addresses(self, url: str, parts: SplitResult, port: int) -> list[str]:
        try:
            found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise FetchError(
                f"{url}: {parts.hostname} cannot be resolved: {_reason(error)}."
            ) from None
        addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
        for text in addresses:
            address = ipaddress.ip_address(text.partition("%")[0])
            # An IPv4 address written as IPv6 is checked as the IPv4 address.
            address = getattr(address, "ipv4_mapped", None) or address
            if address.is_link_local or not (address.is_global or self._allow_private):
                raise FetchError(
                    f"{url}: {parts.hostname} is {text}, which is not a public address. If that is "
                    "meant so, set allow_private_addresses = true."
                )
        return addresses


@dataclass(frozen=True, slots=True)
class _Trusted:
    pem: bytes
    pools: urllib3.PoolManager = field(compare=False)


def _read_trusted(ca: Path, last: _Trusted | None) -> _Trusted:
    try:
        pem = ca.read_bytes()
        if not pem:  # `ssl` would trust the system's authorities instead
            raise FetchError(f"{ca}: cannot be used as a CA bundle: it is empty.")
        return last if last is not None and last.pem == pem else _trust(pem)
    except OSError as error:
        raise FetchError(f"{ca}: cannot be used as a CA bundle: {error.strerror}.") from None
    except ValueError:
        raise FetchError(f"{ca}: cannot be used as a CA bundle: it is not PEM.") from None


def _trust(pem: bytes | None) -> _Trusted:
    # Comments may be in any language; in a certificate no other character is good.
    data = None if pem is None else pem.decode("ascii", "backslashreplace")
    context = ssl.create_default_context(cadata=data)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    pools = urllib3.PoolManager(ssl_context=context, maxsize=_KEPT_OPEN, retries=False)
    return _Trusted(pem or b"", pools)


def _parts_of(url: str) -> tuple[SplitResult, int]:
    """Return a URL's parts and its port."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise FetchError(f"{url}: is not a URL: {_reason(error)}.") from None
    if parts.scheme != "https" or not parts.hostname:
        raise FetchError(f"{url}: is not https://.")
    return parts, 443 if port is None else port


def _body_of(response: urllib3.BaseHTTPResponse, url: str, deadline: float) -> bytes:
    if response.status != HTTPStatus.OK:
        response.close()
        raise FetchError(
            f"{url}: answered with status {response.status}"
            + ("; redirects are not followed." if "location" in response.headers else "."),
            response.status,
        )
    try:
        return b"".join(_bounded(response, url, deadline))
    except HTTPError as error:
        raise FetchError(f"{url}: {_reason(error)}.") from None
    finally:
        # A body read to its end has returned the connection to the pool; otherwise the rest is
        # unread, and the connection cannot be used again.
        response.close()


def _bounded(response: urllib3.BaseHTTPResponse, url: str, deadline: float) -> Iterator[bytes]:
    size = 0
    # What has come by now: a read of a whole block would wait for all of it.
    while piece := response.read1(65536, decode_content=False):
        size += len(piece)
        if size > MAX_BODY_BYTES:
            raise FetchError(f"{url}: the answer has more than {MAX_BODY_BYTES} bytes.")
        if time.monotonic() > deadline:
            raise FetchError(f"{url}: the answer takes longer than {TIMEOUT:g} seconds.")
        yield piece


def _reason(error: BaseException) -> str:
    """Return the system's error text, without the objects that urllib3 puts before it."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error).strip().rstrip(".")
    return text or type(error).__name__
