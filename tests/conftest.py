"""Shared by all tests: one running server a worker, and its administrator."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog

from support.house import House, running_house

# From now on, not from the first test that asks for ``log``: that would not hear a logger which was
# made before logging was configured.
structlog.configure(processors=list(structlog.get_config()["processors"]))


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A server that tests share: they may add to it, not change what others rely on."""
    settings = (
        '[[workloads]]\nspiffe_id = "spiffe://example.org/client/workload"\n'
        'scopes = ["introspect", "other"]\n'
    )
    with running_house(tmp_path_factory.mktemp("house"), settings) as house:
        yield house


@pytest.fixture(scope="session")
def admin_token(house: House) -> str:
    """An access token of the first administrator, over the certificate of ``house.admin``."""
    return house.first_log_in().access_token


@pytest.fixture
def log() -> Iterator[list[dict[str, object]]]:
    """What is logged while the test runs, by whichever thread."""
    with structlog.testing.capture_logs() as lines:
        yield lines  # type: ignore[misc]
