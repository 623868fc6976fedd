"""The HTTP pages of a server."""

from __future__ import annotations

import ssl

import httpx

_CONTEXT = ssl.create_default_context()
"""Made once: httpx makes one for each request, which takes longer than the request."""


def get_page(address: str, path: str, *, timeout: float = 5.0) -> httpx.Response:
    """Ask for it over a new connection."""
    return httpx.get(f"http://{address}{path}", trust_env=False, verify=_CONTEXT, timeout=timeout)
