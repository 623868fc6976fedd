"""Fetching from an issuer, by HTTPS: small answers, from the address that was meant, in time."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

MAX_BODY_BYTES = 512 * 1024
TIMEOUT = 5.0
"""Seconds for one request as a whole, however slowly its answer trickles in."""


class FetchError(Exception):
    """Nothing usable came; the message names the URL. ``status`` is HTTP's, if there was one."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class Fetcher:
    """An HTTPS client for the URLs of a configuration and those that they lead to.

    What a document names may not make us ask machines that only we can reach: no address that is
    not public, unless ``allow_private_addresses``, and link-local ones (where clouds keep their
    secrets) never. The address that was looked at is the one that is connected to. No redirects,
    no proxies from the environment.
    """

    def __init__(self, *, ca: Path | None = None, allow_private_addresses: bool = False) -> None:
        """Trust ``ca``, a PEM bundle, or by default the system's. Raises ``FetchError``."""
        self._allow_private = allow_private_addresses
        try:
            context = ssl.create_default_context(cafile=None if ca is None else str(ca))
        except (OSError, ssl.SSLError) as error:
            raise FetchError(f"{ca}: cannot be used as a CA bundle: {error.strerror}.") from None
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._client = httpx.Client(
            verify=context,
            trust_env=False,
            follow_redirects=False,
            timeout=TIMEOUT,
            limits=httpx.Limits(max_keepalive_connections=8, keepalive_expiry=30),
        )

    def get(self, url: str) -> bytes:
        """Return the body of a 200. Raises ``FetchError``."""
        return self._request("GET", url)

    def post(self, url: str, form: Mapping[str, str], auth: tuple[str, str] | None = None) -> bytes:
        """Send a form, with HTTP Basic credentials, and return the body of a 200.

        Raises ``FetchError``.
        """
        return self._request("POST", url, data=dict(form), auth=auth)

    def close(self) -> None:
        self._client.close()

    def _request(self, method: str, url: str, **content: Any) -> bytes:
        failure = FetchError(f"{url}: no address.")
        deadline = time.monotonic() + TIMEOUT
        for address in self._addresses(url):
            try:
                return self._ask(method, url, address, deadline, content)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failure = FetchError(f"{url}: cannot connect: {_reason(error)}.")
            except httpx.HTTPError as error:
                raise FetchError(f"{url}: {_reason(error)}.") from None
        raise failure

    def _ask(
        self, method: str, url: str, address: str, deadline: float, content: dict[str, Any]
    ) -> bytes:
        parts = httpx.URL(url)
        request = self._client.build_request(
            method,
            parts.copy_with(host=address),
            headers={"host": parts.netloc.decode(), "accept": "application/json"},
            # The certificate must be the host's, not the address's.
            extensions={"sni_hostname": parts.host},
            **{name: value for name, value in content.items() if name != "auth"},
        )
        response = self._client.send(request, stream=True, auth=content.get("auth"))
        try:
            if response.status_code != httpx.codes.OK:
                raise FetchError(
                    f"{url}: answered with status {response.status_code}"
                    + ("; redirects are not followed." if response.has_redirect_location else "."),
                    response.status_code,
                )
            return b"".join(_bounded(response, url, deadline))
        finally:
            response.close()

    def _addresses(self, url: str) -> list[str]:
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname:
            raise FetchError(f"{url}: is not https://.")
        try:
            found = socket.getaddrinfo(parts.hostname, parts.port or 443, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise FetchError(
                f"{url}: {parts.hostname} cannot be resolved: {_reason(error)}."
            ) from None
        addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
        for text in addresses:
            address = ipaddress.ip_address(text.partition("%")[0])
            # An IPv4 address in IPv6 clothes is where it leads.
            address = getattr(address, "ipv4_mapped", None) or address
            if address.is_link_local or not (address.is_global or self._allow_private):
                raise FetchError(
                    f"{url}: {parts.hostname} is {text}, which is not a public address. If that is "
                    "meant so, set allow_private_addresses = true."
                )
        return addresses


def _bounded(response: httpx.Response, url: str, deadline: float) -> Iterator[bytes]:
    size = 0
    for piece in response.iter_bytes():
        size += len(piece)
        if size > MAX_BODY_BYTES:
            raise FetchError(f"{url}: the answer has more than {MAX_BODY_BYTES} bytes.")
        if time.monotonic() > deadline:
            raise FetchError(f"{url}: the answer takes longer than {TIMEOUT:g} seconds.")
        yield piece


def _reason(error: Exception) -> str:
    text = str(error).strip().rstrip(".")
    return text or type(error).__name__
