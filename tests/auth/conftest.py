"""An issuer on the network."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from secure_server.testing import Provider, running_provider


@pytest.fixture(scope="module")
def shared_provider() -> Iterator[Provider]:
    with running_provider() as provider:
        yield provider


@pytest.fixture
def provider(shared_provider: Provider) -> Iterator[Provider]:
    shared_provider.recover()
    shared_provider.requests.clear()
    yield shared_provider
    shared_provider.recover()
